"""Where a person is: pictures with an address, going back, filters that stay."""

import pytest

from tests.browser.conftest import shown, until


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
