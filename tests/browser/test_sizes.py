"""From a phone to a wall: nothing is wider than the window, and nothing jumps."""

import pytest

from tests.browser.conftest import settled, shown, until

WIDE = """[...document.querySelectorAll('body *')]
  .filter(one => one.checkVisibility() && !one.closest('#chips > *'))
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.outerHTML.slice(0, 80))"""


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(WIDE) == []


@pytest.mark.parametrize(
    ("width", "locale"), [(320, "en-US"), (390, "zh-CN"), (1280, "en-US"), (2560, "zh-CN")]
)
def test_nothing_is_wider_than_the_window(visit, site, width, locale):
    page = visit(site, viewport={"width": width, "height": 900}, locale=locale)
    fits(page)
    settled(page, lambda: page.fill("#q", "2:灰猫 + 雪地 - 水"))
    shown(page)
    page.click("#filter")
    page.locator(".card .open").first.focus()
    page.keyboard.press("x")
    fits(page)
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open] .stage img")
    fits(page)
    page.keyboard.press("Escape")
    page.click("#keys")
    fits(page)


def test_another_width_keeps_the_place(visit, site):
    page = visit(f"{site}/?q=灰猫")
    shown(page)
    page.evaluate("scrollTo(0, 900)")
    top = """(() => {
        const line = document.querySelector('header').getBoundingClientRect().bottom;
        return [...document.querySelectorAll('.card')]
            .filter(one => one.getBoundingClientRect().bottom > line)[0]?.dataset.index;
    })()"""
    until(page, "scrollY === 900")
    before = int(page.evaluate(top))
    assert before > 10
    page.set_viewport_size({"width": 700, "height": 800})
    until(page, "document.querySelector('#grid').clientWidth < 700")
    page.wait_for_timeout(100)  # two frames: the layout follows the width
    after = int(page.evaluate(top))
    assert abs(after - before) <= 6, "a row of pictures"


def test_nothing_jumps_while_pictures_load(visit, site):
    page = visit(site)
    page.route("**/thumbnails/**", lambda route: None)  # none ever comes
    settled(page, lambda: page.fill("#q", "灰猫"))
    page.wait_for_selector(".card .open img")
    places = """[...document.querySelectorAll('.card')].slice(0, 20).map((one) => {
        const box = one.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"""
    before = page.evaluate(places)
    page.unroute("**/thumbnails/**")
    settled(page, lambda: page.fill("#q", "灰猫 "))
    page.wait_for_selector(".card.loaded")
    assert page.evaluate(places) == before


@pytest.mark.parametrize(("factor", "side"), [(1, "256"), (2, "512")])
def test_thumbnails_are_as_large_as_the_screen_can_show(visit, site, factor, side):
    page = visit(site, device_scale_factor=factor)
    asked = []
    page.on("request", lambda one: "/thumbnails/" in one.url and asked.append(one.url))
    settled(page, lambda: page.fill("#q", "灰猫"))
    shown(page)
    page.wait_for_selector(".card.loaded")
    assert {one.split("size=")[1] for one in asked} == {f"{side}&v=1"}
