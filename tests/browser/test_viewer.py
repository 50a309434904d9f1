"""One picture, large."""

import pytest

from tests.browser.conftest import settled, shown, until

SWIPE = """([from, to]) => {
  const box = document.querySelector('#viewer .stage');
  const at = (x) => [new Touch({ identifier: 1, target: box, clientX: x, clientY: 300 })];
  box.dispatchEvent(new TouchEvent('touchstart', { touches: at(from), bubbles: true }));
  box.dispatchEvent(new TouchEvent('touchend', { changedTouches: at(to), bubbles: true }));
}"""


@pytest.fixture
def opened(visit, site):
    def at(**how):
        page = visit(f"{site}/?q=灰猫", **how)
        words = shown(page)
        page.locator(".card .open").first.click()
        page.wait_for_selector("#viewer[open] .stage img")
        return page, words

    return at


def label(page):
    return page.get_attribute("#viewer", "aria-label")


def test_what_is_known_is_said(opened):
    page, words = opened()
    assert label(page) == words[0]
    until(page, "document.querySelector('#viewer').textContent.includes('kB')")
    told = page.text_content("#viewer .about")
    for one in (words[0], "images/001.jpg", "640 × 640", "Score", "Cosine", "%"):
        assert one in told


def test_a_finger_turns_pages(opened):
    page, words = opened(viewport={"width": 390, "height": 844}, has_touch=True)
    page.evaluate(SWIPE, [300, 100])
    assert label(page) == words[1]
    page.evaluate(SWIPE, [100, 300])
    assert label(page) == words[0]
    page.evaluate(SWIPE, [100, 110])
    assert label(page) == words[0]


def test_going_back_leaves_it(opened, site):
    page, _ = opened()
    page.keyboard.press("Escape")
    settled(page, lambda: (page.fill("#q", "red car"), page.press("#q", "Enter")))
    page.locator(".card .open").first.click()
    page.wait_for_selector("#viewer[open]")
    page.go_back()
    until(page, "!document.querySelector('#viewer').open")
    assert page.input_value("#q") == "red car"
    settled(page, page.go_back)
    assert page.input_value("#q") == "灰猫"


def test_similar_pictures_from_it_have_the_focus(opened):
    page, words = opened()
    settled(page, lambda: page.keyboard.press("s"))
    assert page.locator("#viewer[open]").count() == 0
    until(page, "document.activeElement.closest('.card')?.dataset.index === '0'")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"1. {words[0]}"


def test_a_large_picture_is_loaded_whole_where_the_window_is_larger_than_its_thumbnail(visit, site):
    page = visit(site, viewport={"width": 1280, "height": 1000}, device_scale_factor=2)

    def larger(route):
        answer = route.fetch()
        told = answer.json()
        for hit in told["hits"]:
            hit["width"] = hit["height"] = 4000
        route.fulfill(response=answer, json=told)

    page.route("**/api/v1/search", larger)
    page.fill("#q", "灰猫")
    shown(page)
    with page.expect_request("**/api/v1/images/1"):
        page.locator(".card .open").first.click()
    until(page, "document.querySelector('#viewer .stage img').src.endsWith('/images/1')")
