"""Twenty thousand pictures, and pictures with names that nobody should give them."""

import pytest

from tests.browser.conftest import found, settled, shown, until
from tests.serving import filled, served

NAMES = [
    "<script>document.title='taken'</script>.jpg",
    "\"><img src=x onerror=document.title='taken'>.jpg",
    "'; drop table images; --.jpg",
    "a&amp;b &lt;c&gt; %2e%2e%2f.jpg",
    "{{7*7}} ${7*7} #{7*7}.jpg",
    "😀 🐱‍👤 👨‍👩‍👧.jpg",
    "灰猫 在 树上。.jpg",
    "‮gpj.evil‬.jpg",
    "new\nline\ttab.jpg",
    "  spaces  .jpg",
    "=1+1,cmd.jpg",
    "#hash?query&and=.jpg",
    "a" * 240 + ".jpg",
    b"not \xff\xfe unicode.jpg".decode("utf-8", "surrogateescape"),
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    with served(filled(tmp_path_factory.mktemp("hostile"), NAMES)) as url:
        yield url


def test_names_are_text(visit, hostile):
    page = visit(f"{hostile}/?q=cat")
    words = shown(page)
    assert len(words) == len(NAMES)
    assert NAMES[0].rpartition("/")[2] in words, "a folder's name is left to the tooltip"
    titles = page.locator(".card .caption").evaluate_all("all => all.map(one => one.title)")
    assert NAMES[0] in titles
    assert NAMES[6] in words
    assert not any("\u202e" in one for one in words)
    until(page, "[...document.querySelectorAll('.card img')].every(one => one.complete)")
    assert page.locator(".card.failed").count() == 0
    broken = "[...document.querySelectorAll('.card img')].filter(one => !one.naturalWidth).length"
    assert page.evaluate(broken) == 0
    for place in range(len(NAMES)):
        page.locator(".card .open").nth(place).click()
        page.wait_for_selector("#viewer[open] .stage img")
        page.keyboard.press("Escape")
    assert page.title() == "cat · 搜图 Soutu"
    assert page.evaluate("document.scripts.length") == 1
    for place in range(len(NAMES)):
        page.locator(".card .open").nth(place).focus()
        page.keyboard.press("x")
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    text = saved.value.path().read_bytes().decode("utf-8-sig", "surrogatepass")
    assert "'=1+1" in text


def test_each_can_be_downloaded_and_searched_by(visit, hostile):
    page = visit(f"{hostile}/?q=cat")
    shown(page)
    for place in range(len(NAMES)):
        page.locator(".card .open").nth(place).click()
        with page.expect_download() as saved:
            page.locator("#viewer").get_by_role("link", name="Download").click()
        assert saved.value.path().read_bytes().startswith(b"\xff\xd8")
        page.keyboard.press("Escape")
    settled(page, lambda: (page.locator(".card .open").nth(13).focus(), page.keyboard.press("s")))
    assert found(page) == len(NAMES)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    names = [f"{number // 500:02}/{number:05}.jpg" for number in range(20_000)]
    with served(filled(tmp_path_factory.mktemp("many"), names)) as url:
        yield url


def scrolled(page, count):
    """Go on down until that many results are known."""
    until(
        page,
        f"""(() => {{
            scrollTo(0, document.documentElement.scrollHeight);
            const said = document.querySelector('#status').textContent.replace(',', '');
            return parseInt(said) >= {count};
        }})()""",
    )


def test_twenty_thousand(visit, many):
    page = visit(f"{many}/?q=cat")
    shown(page)
    assert "of 20,000" in page.text_content("#status")
    scrolled(page, 1500)
    assert page.locator(".card").count() <= 300, "tiles far away are in the document"
    page.evaluate("scrollTo(0, 0)")
    until(
        page,
        "document.querySelectorAll('.card')[30]?.getAttribute('aria-posinset') === '31'",
    )
    seen = [int(one.get_attribute("aria-posinset")) for one in page.query_selector_all(".card")]
    assert seen == sorted(seen)
    assert page.get_attribute(".card", "aria-setsize") == "-1"  # more than is known


def test_the_last_of_twenty_thousand_can_be_reached(visit, many):
    page = visit(f"{many}/?q=cat&where=folder%20%3D%20%2739%27")
    shown(page)
    scrolled(page, 500)
    until(page, "document.querySelector('#status').textContent.startsWith('500 of')")
    page.locator(".card .open").last.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("500. ")
