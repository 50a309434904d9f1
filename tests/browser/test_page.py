"""The page, as somebody uses it with a mouse."""

import json
import re

from tests.browser.conftest import found, settled, shown, until

GRAY = ("一只灰猫蹲在树干上", "房间里有一只灰色的小猫")


def search(page, text):
    return settled(page, lambda: page.fill("#q", text))


def test_a_grey_cat_comes_first(visit, site):
    page = visit(site)
    until(page, "document.querySelector('#welcome').textContent.includes('50')")
    search(page, "灰猫")
    assert set(shown(page)[:2]) == set(GRAY)
    assert "q=%E7%81%B0%E7%8C%AB" in page.url
    assert "50 of 50" in page.text_content("#status")
    assert "Likely here" in page.text_content("#confidence")


def test_a_chip_is_switched_off_weighed_and_reset(visit, site):
    page = visit(f"{site}/?q=灰猫")
    before = shown(page)
    name = page.get_by_role("button", name="gray cat", exact=True)
    assert name.get_attribute("aria-pressed") == "true"
    asked = settled(page, name.click)
    assert [v["unused"] for v in asked["variants"] if v["text"] == "gray cat"] == ["switched-off"]
    assert asked["fusion"] == "chosen"
    assert name.get_attribute("aria-pressed") == "false"
    page.reload()  # what was chosen is in the address
    shown(page)
    assert name.get_attribute("aria-pressed") == "false"
    settled(page, name.click)
    asked = settled(page, page.get_by_role("button", name="Count “gray cat” more").click)
    assert [v["weight"] for v in asked["variants"] if v["text"] == "gray cat"] == [1.5]
    assert "×1.5" in page.text_content("#chips")
    settled(page, page.get_by_role("button", name="As proposed").click)
    assert shown(page)[:12] == before[:12]
    assert "v=" not in page.url


def test_what_is_not_searched_for_says_why(visit, site):
    page = visit(f"{site}/?q=火箭")
    shown(page)
    chip = page.locator(".chip:not(.on) .name").first
    assert "the model reads the query as it stands" in chip.get_attribute("title")


def test_nothing_here_matches(visit, site):
    page = visit(f"{site}/?q=火箭&sure=0.5")
    page.wait_for_selector("#empty h2")
    assert page.text_content("#empty h2") == "No picture matches “火箭”"
    assert page.locator(".card").count() == 0
    settled(page, page.get_by_role("button", name="Show the closest anyway").click)
    assert found(page) == 50
    assert "Probably no match" in page.text_content("#confidence")


def test_between_two_thresholds_it_is_not_sure(visit, site):
    page = visit(f"{site}/?q=大提琴")
    assert (
        page.wait_for_selector("#confidence .confidence.unsure").text_content() == "Not sure (15%)"
    )
    page = visit(f"{site}/?q=大提琴&lang=zh", locale="zh-CN")
    assert "不确定" in page.wait_for_selector("#confidence .confidence").text_content()


def test_a_filter_that_admits_nothing_says_what_is_near(visit, site):
    page = visit(f"{site}/?q=cat&where=folder = 'image'")
    assert page.wait_for_selector("#empty p").text_content() == "The nearest: folder = 'images'"


def test_similar_pictures_have_an_address_and_there_is_a_way_back(visit, site):
    page = visit(f"{site}/?q=灰猫")
    first = shown(page)[0]
    page.hover(".card >> nth=0")
    settled(page, page.locator(".card >> nth=0").get_by_role("button", name="Similar").click)
    assert shown(page)[0] == first
    assert re.search(r"\?image=\d+$", page.url)
    assert page.locator("#like img").is_visible()
    settled(page, page.go_back)
    assert page.input_value("#q") == "灰猫"
    page.go_forward()
    page.wait_for_url("**/?image=*")
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector("body.start")


def test_an_id_may_be_as_long_as_a_store_elsewhere_makes_it(visit, site):
    page = visit(f"{site}/?image={2**53 - 1}", allowed=["status of 404"])
    until(page, "document.querySelector('#status').classList.contains('error')")
    assert str(2**53 - 1) in page.text_content("#status")


def test_typing_is_one_place_to_go_back_from(visit, site):
    page = visit(site)
    settled(page, lambda: page.locator("#q").press_sequentially("red car", delay=5))
    page.fill("#q", "red cars")
    page.wait_for_url("**q=red+cars")
    page.go_back()
    page.wait_for_selector("body.start")
    assert page.input_value("#q") == ""


def test_what_is_being_typed_stays_whatever_arrives(visit, site):
    page = visit(site)
    # In one go, as keys do it: between the two, the page would still be right to tidy the box.
    page.evaluate("q.value = 'gre', q.dispatchEvent(new Event('input'))")
    page.click("#lang")  # draws all of it anew, before the search is sent
    assert page.input_value("#q") == "gre"
    page.click("#filter")
    page.fill("#q", "灰猫")
    page.evaluate("document.querySelector('#f-width').value = 10")
    asked = settled(page, lambda: page.dispatch_event("#f-width", "change"))
    assert asked["query"]["raw"] == "灰猫"
    assert page.input_value("#q") == "灰猫"


def test_an_older_answer_never_takes_the_place_of_a_newer_one(visit, site):
    page = visit(site)
    held = []

    def hold(route):
        if "first" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/v1/search", hold)
    page.fill("#q", "first")
    until(page, "document.querySelector('#status').textContent.startsWith('Searching')")
    search(page, "灰猫")
    assert len(held) == 1
    held[0].abort()
    assert page.text_content("#status").startswith("50 of 50")
    assert set(shown(page)[:2]) == set(GRAY)


def test_composing_chinese_does_not_search_half_a_word(visit, site):
    page = visit(site)
    asked = []
    page.on("request", lambda one: "/search" in one.url and asked.append(json.loads(one.post_data)))
    page.focus("#q")
    keyboard = page.context.new_cdp_session(page)
    for part in ("h", "hu", "hui", "hui m", "hui mao"):
        told = {"text": part, "selectionStart": len(part), "selectionEnd": len(part)}
        keyboard.send("Input.imeSetComposition", told)
        page.wait_for_timeout(120)
    page.wait_for_timeout(400)  # longer than typing is waited for
    assert asked == []
    settled(page, lambda: keyboard.send("Input.insertText", {"text": "灰猫"}))
    assert [one["text"] for one in asked] == ["灰猫"]


def test_filters_write_the_filter(visit, site):
    page = visit(f"{site}/?q=猫", allowed=["status of 400"])
    shown(page)
    page.get_by_role("button", name="Filters").click()
    page.fill("#f-folder", "it's")
    settled(page, lambda: page.press("#f-folder", "Enter"))
    assert page.input_value("#f-where") == "folder = 'it''s'"
    assert "No picture passes the filter" in page.text_content("#empty")
    page.fill("#f-where", "name = '005.jpg' or name = '016.jpg'")
    asked = settled(page, lambda: page.press("#f-where", "Enter"))
    assert {hit["path"] for hit in asked["hits"]} == {"images/005.jpg", "images/016.jpg"}
    page.fill("#f-where", "wide > 3")
    page.press("#f-where", "Enter")
    until(page, "document.querySelector('#f-error').textContent.includes('wide')")
    settled(page, page.get_by_role("button", name="Clear").click)
    assert "where" not in page.url


def test_light_dark_chinese_english_are_remembered(visit, site):
    page = visit(site, color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate(colour) != light
    page.click("#lang")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.reload()
    until(page, "document.querySelector('#welcome').textContent.includes('张图片')")
    assert page.evaluate(colour) != light
    assert page.get_by_role("button", name="筛选").is_visible()


def test_history_and_selection(visit, site):
    page = visit(site)
    settled(page, lambda: (page.fill("#q", "灰猫"), page.press("#q", "Enter")))
    shown(page)
    for place in (0, 1):
        page.hover(f".card >> nth={place}")
        page.locator(f".card >> nth={place}").get_by_role("button", name="Select").click()
    assert "2 selected" in page.text_content("#selection")
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    lines = saved.value.path().read_text("utf-8-sig").splitlines()
    assert lines[0] == "image_path,caption,score"
    assert len(lines) == 3
    assert lines[1].startswith("images/")
    page.click("#home")
    page.click("#history")
    settled(page, page.get_by_role("link", name="灰猫").click)
    assert page.input_value("#q") == "灰猫"
    page.click("#history")
    page.locator("#history-dialog").get_by_role("button", name="Clear").click()
    assert "Nothing yet" in page.text_content("#history-dialog")


def test_paths_are_copied_or_saved(visit, site):
    page = visit(f"{site}/?q=灰猫", permissions=["clipboard-read", "clipboard-write"])
    shown(page)
    page.locator(".card .open").first.focus()
    page.keyboard.press("x")
    copy = page.locator("#selection").get_by_role("button").first
    copy.click()
    page.wait_for_selector("#selection >> text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "images/001.jpg\n"
    # As where there is no TLS:
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    with page.expect_download() as saved:
        copy.click()
    assert saved.value.path().read_text("utf-8") == "images/001.jpg\n"


def test_terms_are_shown_with_their_signs(visit, site):
    page = visit(f"{site}/?q=2:灰猫 %2B 雪地 - 水")
    shown(page)
    assert page.locator("#chips .sign").all_text_contents() == ["2 ×", "+", "−"]
    assert page.locator("#chips .term").count() == 3


def test_history_keeps_the_last_fifty(visit, site):
    page = visit(site)
    earlier = json.dumps([f"/?q={n}" for n in range(70)])
    page.evaluate("all => localStorage.setItem('soutu-history', all)", earlier)
    settled(page, lambda: (page.fill("#q", "灰猫"), page.press("#q", "Enter")))
    kept = page.evaluate("JSON.parse(localStorage.getItem('soutu-history'))")
    assert kept == ["/?q=%E7%81%B0%E7%8C%AB", *(f"/?q={n}" for n in range(49))]


def test_without_storage_it_works_as_well(visit, site):
    page = visit(site)
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
    )
    page.goto(f"{site}/?q=灰猫")
    assert set(shown(page)[:2]) == set(GRAY)
    page.click("#theme")
    page.click("#history")
