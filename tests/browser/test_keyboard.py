"""The page without a mouse, and what a screen reader is told."""

from tests.browser.conftest import settled, shown


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")


def test_all_of_it_by_keyboard(visit, site):
    page = visit(site)
    page.keyboard.press("Tab")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("灰猫")
    settled(page, lambda: page.keyboard.press("Enter"))
    first, second = shown(page)[:2]
    page.keyboard.press("ArrowDown")
    assert focused(page) == f"1. {first}"
    page.keyboard.press("ArrowRight")
    assert focused(page) == f"2. {second}"
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("8. ")  # six in a row
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert "1 selected" in page.text_content("#selection")
    assert page.locator("#viewer[open]").count() == 0
    page.keyboard.press("x")
    assert page.locator("#selection").is_hidden()
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert page.locator("#viewer").get_attribute("aria-label") == second
    page.keyboard.press("ArrowLeft")
    assert page.locator("#viewer").get_attribute("aria-label") == first
    for _ in range(12):  # the focus stays in the dialog (or goes to the browser's own)
        page.keyboard.press("Tab")
        inside = (
            "document.activeElement.closest('#viewer') || document.activeElement === document.body"
        )
        assert page.evaluate(f"Boolean({inside})")
    page.keyboard.press("Escape")
    assert page.locator("#viewer[open]").count() == 0
    page.wait_for_function(  # the browser tells the page a moment later that a dialog was closed
        "label => document.activeElement.getAttribute('aria-label') === label", arg=f"1. {first}"
    )
    settled(page, lambda: page.keyboard.press("s"))
    assert "image=" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    assert page.locator("#help[open]").count() == 1
    page.keyboard.press("Escape")


def test_chips_by_keyboard_keep_the_focus(visit, site):
    page = visit(f"{site}/?q=灰猫")
    shown(page)
    page.get_by_role("button", name="gray cat", exact=True).focus()
    settled(page, lambda: page.keyboard.press("Space"))
    assert page.evaluate("Boolean(document.activeElement.closest('#chips'))")


def test_every_control_has_a_name_and_one_tile_is_in_the_tab_order(visit, site):
    page = visit(f"{site}/?q=灰猫")
    shown(page)
    page.click("#filter")
    nameless = """[...document.querySelectorAll('button, a, input:not([type=file]), select')]
        .filter(one => one.checkVisibility()
            && !(one.getAttribute('aria-label') ?? one.textContent.trim())
            && !one.labels?.[0]?.textContent.trim())
        .map(one => one.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.locator("#grid .open[tabindex='0']").count() == 1
    assert page.locator("#grid [role=listitem]").count() == 50
    for role in ("search", "main", "banner", "navigation", "status"):
        assert page.get_by_role(role).count() >= 1, role


def test_on_a_phone_what_is_touched_is_large_and_nothing_overflows(visit, site):
    page = visit(f"{site}/?q=灰猫", viewport={"width": 390, "height": 844}, has_touch=True)
    shown(page)
    page.click("#filter")
    small = """[...document.querySelectorAll('button, select, input')]
        .filter(one => one.type !== 'file' && one.checkVisibility())
        .map(one => [one.id || one.textContent, one.getBoundingClientRect()])
        .filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name)"""
    assert page.evaluate(small) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_who_wants_no_motion_gets_none(visit, site):
    page = visit(site, reduced_motion="reduce")
    card = "<div class='card skeleton'></div>"
    page.evaluate(f'document.querySelector("#grid").innerHTML = "{card}"')
    moving = "getComputedStyle(document.querySelector('.skeleton'), '::before').animationName"
    assert page.evaluate(moving) == "none"
