"""Where a person is: pictures with an address, going back, filters that stay."""

import pytest
from PIL import Image

from soutu.gallery import Gallery
from tests.browser.conftest import settled, shown, until
from tests.conftest import picture
from tests.serving import ROOT, served

FILE = ROOT / "clip_retrieval" / "data" / "images" / "005.jpg"
EXIF, TAKEN = 0x8769, 0x9003  # the directory, and DateTimeOriginal in it


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """130 pictures of two years in folders of months, each a minute later than the one before."""
    root = tmp_path_factory.mktemp("album") / "photos"
    for number in range(130):
        year, month = 2015 + number // 100, 1 + number % 2
        folder = root / str(year) / f"{month:02}月"
        folder.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif.get_ifd(EXIF)[TAKEN] = f"{year}:{month:02}:03 {number // 60:02}:{number % 60:02}:00"
        Image.fromarray(picture(number)).save(folder / f"{number:03}.jpg", exif=exif)
    with Gallery.open(root, model="tiny") as gallery:
        gallery.index()
    with served(root) as url:
        yield url


def where(page):
    return page.input_value("#f-where")


def choose(page, field, value):
    page.evaluate("document.querySelector('#filters').hidden = false")
    element = page.locator(f"#{field}")
    if field == "f-shape":
        element.select_option(value)
    else:
        element.fill(value)
        element.dispatch_event("change")


def test_back_closes_the_picture_and_stays_on_the_page(visit, site):
    page = visit(f"{site}/?q=灰猫")
    words = shown(page)
    page.locator(".card .open").nth(1).click()
    page.wait_for_selector("#viewer[open]")
    assert "#p=" in page.url
    page.go_back()
    until(page, "!document.querySelector('#viewer').open")
    assert "#p=" not in page.url
    assert shown(page)[:5] == words[:5]
    page.go_forward()
    page.wait_for_selector("#viewer[open]")


def test_closing_a_picture_leaves_no_entry_behind(visit, site):
    page = visit(site)
    page.fill("#q", "灰猫")
    page.press("#q", "Enter")
    shown(page)
    page.locator(".card .open").first.click()
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#viewer').open && !location.hash")
    page.go_back()
    until(page, "document.body.classList.contains('start')")


def test_an_address_opens_its_picture(visit, site):
    page = visit(f"{site}/?q=灰猫")
    shown(page)
    page.locator(".card .open").nth(2).click()
    page.wait_for_selector("#viewer[open]")
    label = page.get_attribute("#viewer", "aria-label")
    other = visit(page.url)
    other.wait_for_selector("#viewer[open]")
    assert other.get_attribute("#viewer", "aria-label") == label


def test_back_from_similar_pictures_returns_to_the_place(visit, site):
    page = visit(f"{site}/?q=cat", viewport={"width": 420, "height": 500})
    shown(page)
    page.evaluate("scrollTo(0, 1500)")
    until(page, "history.state && history.state.y > 1000")
    y = page.evaluate("scrollY")
    page.evaluate("[...document.querySelectorAll('.card .more')].at(-1).click()")
    until(page, "location.search.includes('image=')")
    until(page, "document.querySelectorAll('.card .score').length > 0")
    page.go_back()
    until(page, "location.search.includes('q=cat')")
    until(page, f"Math.abs(scrollY - {y}) < 5")


@pytest.mark.parametrize(
    ("text", "field", "value", "expected"),
    [
        ("orientation = portrait", "f-width", "300", "orientation = portrait and width >= 300"),
        (
            "name contains '000' or size > 30000", "f-shape", "square",
            "orientation = square and (name contains '000' or size > 30000)",
        ),
        ("name contains 'a and b'", "f-width", "5", "width >= 5 and name contains 'a and b'"),
        ("folder = 'it''s'", "f-width", "5", "folder = 'it''s' and width >= 5"),
        ("width >= 10", "f-width", "20", "width >= 20"),
        ("not (width > 5) and height > 3", "f-width", "20",
         "width >= 20 and not (width > 5) and height > 3"),
    ],
)  # fmt: skip
def test_the_form_loses_no_filter(visit, site, text, field, value, expected):
    page = visit(f"{site}/?q=cat")
    shown(page)
    page.evaluate("document.querySelector('#filters').hidden = false")
    page.fill("#f-where", text)
    page.locator("#f-where").dispatch_event("change")
    choose(page, field, value)
    assert where(page) == expected


def test_a_shared_filter_fills_the_form(visit, site):
    page = visit(f"{site}/?q=cat&where=orientation = square and width >= 20")
    shown(page)
    assert page.input_value("#f-shape") == "square"
    assert page.input_value("#f-width") == "20"
    choose(page, "f-width", "30")
    assert where(page) == "orientation = square and width >= 30"


def test_cards_that_scrolled_away_load_no_picture(visit, site):
    page = visit(f"{site}/?q=cat", viewport={"width": 420, "height": 500})
    shown(page)
    page.evaluate("""() => {
      window.first = document.querySelectorAll('.card img')[3];
      scrollTo(0, 6000);
    }""")
    until(page, "!window.first.isConnected")
    assert page.evaluate("window.first.hasAttribute('src')") is False


def test_an_error_is_red_and_the_search_box_is_centred(visit, site):
    page = visit(f"{site}/?q=cat", viewport={"width": 1280, "height": 700})
    shown(page)
    box = page.locator("#search").bounding_box()
    assert abs(box["x"] + box["width"] / 2 - page.evaluate("document.body.clientWidth") / 2) <= 1
    page.evaluate("document.querySelector('#status').classList.add('error')")
    colours = page.evaluate("""() => {
      const probe = Object.assign(document.createElement('p'), { className: 'error' });
      document.body.append(probe);
      return [document.querySelector('#status'), probe].map((e) => getComputedStyle(e).color);
    }""")
    assert colours[0] == colours[1]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_the_selection_bar_uses_the_width_of_a_phone(visit, site, width):
    page = visit(f"{site}/?q=cat", viewport={"width": width, "height": 700})
    shown(page)
    page.locator(".card .mark").first.dispatch_event("click")
    box = page.locator("#selection").bounding_box()
    middle = page.evaluate("document.body.clientWidth") / 2
    assert box["x"] >= 10
    assert box["x"] + box["width"] <= 2 * middle - 9
    assert abs(box["x"] + box["width"] / 2 - middle) <= 1
    assert box["width"] > min(width - 40, 300)


def test_terms_of_one_variant_do_not_agree_or_disagree(visit, site):
    page = visit(f"{site}/?q=蝴蝶 %2B 花")
    shown(page)
    assert "gree" not in page.text_content("#confidence")
    first = page.locator(".chip").first.bounding_box()
    grid = page.locator("#grid").bounding_box()
    assert abs(first["x"] - grid["x"]) <= 1


def test_line_breaks_of_a_caption_are_spaces(visit, site):
    page = visit(f"{site}/?q=cat")
    shown(page)
    text = page.evaluate(
        "import('/static/dom.js').then((dom) => dom.plain('two\\nlines\\r\\n\\tof text\\u0007'))"
    )
    assert text == "two lines of text\ufffd"


def sources(page):
    """Which pictures the first six tiles show."""
    shown(page)
    return page.eval_on_selector_all(".card img", "all => all.slice(0, 6).map((one) => one.src)")


def test_words_beside_a_picture_search_for_both(visit, site):
    page = visit(f"{site}/?image=20")
    alone = sources(page)
    answer = settled(page, lambda: page.fill("#q", "snow - water"))
    terms = [(term["kind"], term["value"], term["weight"]) for term in answer["query"]["terms"]]
    assert terms == [
        ("indexed", answer["query"]["terms"][0]["value"], 1),
        ("text", "snow", 1),
        ("text", "water", -1),
    ]
    assert page.locator("#like img").is_visible()
    assert "image=20" in page.url
    assert "q=snow" in page.url
    assert page.locator("#chips .term").all_text_contents()[0] == "Like this picture"
    both = sources(page)
    assert both != alone
    page.reload()
    assert sources(page) == both
    assert page.input_value("#q") == "snow - water"
    assert page.locator("#like img").is_visible()
    answer = settled(page, lambda: page.fill("#q", ""))
    assert [term["kind"] for term in answer["query"]["terms"]] == ["indexed"]
    assert sources(page) == alone
    assert "q=" not in page.url
    settled(page, lambda: page.fill("#q", "snow"))
    answer = settled(page, page.get_by_role("button", name="Remove").click)
    assert [term["value"] for term in answer["query"]["terms"]] == ["snow"]
    assert page.input_value("#q") == "snow"
    assert page.url.endswith("/?q=snow")


def test_variants_beside_a_picture_are_switched_off(visit, site):
    page = visit(f"{site}/?image=20&q=灰猫")
    shown(page)
    name = page.get_by_role("button", name="gray cat", exact=True)
    answer = settled(page, name.click)
    assert answer["query"]["terms"][0]["kind"] == "indexed"
    assert [v["term"] for v in answer["variants"] if v["unused"] == "switched-off"] == [1]
    page.reload()
    shown(page)
    assert name.get_attribute("aria-pressed") == "false"


def test_words_beside_an_uploaded_picture_search_for_both(visit, site):
    page = visit(site)
    settled(page, lambda: page.set_input_files("#file", FILE))
    alone = sources(page)
    answer = settled(page, lambda: page.fill("#q", "snow"))
    assert [term["kind"] for term in answer["query"]["terms"]] == ["image", "text"]
    assert sources(page) != alone
    assert page.locator("#like img").is_visible()
    settled(page, lambda: page.fill("#q", ""))
    assert sources(page) == alone


def test_a_filter_alone_shows_its_pictures_newest_first(visit, album):
    page = visit(f"{album}/?where=folder = '2015'", viewport={"width": 420, "height": 500})
    names = shown(page)
    assert page.locator("body.start").count() == 0
    assert names[:2] == ["099.jpg", "097.jpg"], "February, and the last minute of it"
    assert page.text_content(".card .score") == "2015-02-03"
    assert page.text_content("#status") == "60 of 100 pictures, newest first"
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(page, "document.querySelector('#status').textContent.startsWith('100 of 100')")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(page, "[...document.querySelectorAll('.card .caption')].at(-1).textContent === '000.jpg'")
    page.locator(".card .open").last.click()
    page.wait_for_selector("#viewer[open]")
    assert page.text_content("#viewer .rank") == "100"
    page.keyboard.press("Escape")
    settled(page, lambda: page.fill("#q", "cat"))
    assert "best first" in page.text_content("#status")
    page.fill("#q", "")
    until(page, "document.querySelector('#status').textContent.includes('newest first')")
    page.evaluate("document.querySelector('#f-clear').click()")
    until(page, "document.body.classList.contains('start')")


def test_a_folder_without_the_folders_above_it_is_offered_whole(visit, album):
    page = visit(f"{album}/?where=width > 1 and folder = '01月'")
    near = page.wait_for_selector("#empty p").text_content()
    assert near == "The nearest: folder = '2015/01月' · folder = '2016/01月'"
    page.get_by_role("button", name="folder = '2016/01月'").click()
    assert shown(page)[0] == "128.jpg"
    assert where(page) == "width > 1 and folder = '2016/01月'"
    page = visit(f"{album}/?where=folder = 'nothing like it'")
    page.get_by_role("button", name="Clear the filter").click()
    page.wait_for_selector("body.start")
    assert page.url == f"{album}/"
