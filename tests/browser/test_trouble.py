"""A server that asks for a token, is busy, or is gone; and the page goes on."""

import json

import pytest

from tests.browser.conftest import found, hurried, settled, until
from tests.serving import served

LISTEN = """() => {
  window.heard = [];
  const banner = document.querySelector('#banner');
  new MutationObserver(() => heard.push(banner.textContent)).observe(banner, {childList: true});
}"""
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def locked(demo):
    with served(demo, environment={"SOUTU_TOKEN": TOKEN}) as url:
        yield url


def test_signing_in(visit, locked):
    page = visit(f"{locked}/?q=灰猫", allowed=["status of 401"])
    page.wait_for_selector("#signin[open]")
    page.fill("#signin input", "a-wrong-token-of-some-length")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#signin .error').textContent.includes('token')")
    page.fill("#signin input", TOKEN)
    page.keyboard.press("Enter")
    assert found(page) == 50
    assert page.locator("#signin[open]").count() == 0
    until(page, "[...document.querySelectorAll('.card img')].some(one => one.naturalWidth)")
    cookie = next(one for one in page.context.cookies() if one["name"].startswith("soutu_session_"))
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.reload()
    assert found(page) == 50


def test_a_link_with_the_token(visit, locked):
    page = visit(f"{locked}/?q=灰猫#token={TOKEN}", allowed=["status of 401"])
    assert found(page) == 50
    assert "token" not in page.url


def test_a_busy_server_is_asked_again(visit, site):
    page = visit(site, allowed=["status of 503"])
    refused = []

    def busy(route):
        if not refused:
            refused.append(1)
            error = {"status": 503, "code": "server-busy", "message": "busy", "fields": {}}
            body = json.dumps({"error": error})
            return route.fulfill(status=503, headers={"Retry-After": "1"}, body=body)
        return route.continue_()

    hurried(page)
    page.evaluate(LISTEN)
    page.route("**/api/v1/search", busy)
    page.fill("#q", "灰猫")
    until(page, "heard.some(said => said.includes('busy'))")
    assert found(page) == 50
    assert page.locator("#banner").is_hidden()
    assert len(refused) == 1


def test_a_server_that_is_gone_for_a_while(visit, site):
    page = visit(site, allowed=["ERR_", "Failed to load"])
    lost = []

    def gone(route):
        if not lost:
            lost.append(1)
            return route.abort()
        return route.continue_()

    hurried(page)
    page.evaluate(LISTEN)
    page.route("**/api/v1/search", gone)
    page.fill("#q", "灰猫")
    until(page, "heard.some(said => said.includes('not responding'))")
    assert found(page) == 50


def test_without_a_network_it_waits_for_one(visit, site):
    page = visit(site, allowed=["ERR_", "Failed to load"])
    hurried(page)
    page.evaluate(LISTEN)
    page.context.set_offline(True)
    page.fill("#q", "灰猫")
    until(page, "heard.some(said => said.includes('offline'))")
    page.context.set_offline(False)
    assert found(page) == 50
    assert page.locator("#banner").is_hidden()


def test_what_is_no_query_is_said_and_the_next_is_answered(visit, site):
    page = visit(site, allowed=["status of 400"])
    page.fill("#q", "- cat")
    until(page, "document.querySelector('#status.error')?.textContent.includes('cat')")
    settled(page, lambda: page.fill("#q", "cat"))
    assert found(page) == 50
    assert page.locator("#status.error").count() == 0


def test_a_picture_that_did_not_come_is_asked_for_again(visit, site):
    page = visit(site, allowed=["status of 503"])
    lost = []

    def busy(route):
        if route.request.url in lost:
            return route.continue_()
        lost.append(route.request.url)
        return route.fulfill(status=503, body="")

    hurried(page)
    page.route("**/thumbnails/**", busy)
    settled(page, lambda: page.fill("#q", "灰猫"))
    page.wait_for_selector(".card.loaded")
    assert lost


def test_a_picture_that_is_gone(visit, site):
    page = visit(site, allowed=["status of 404"])
    hurried(page)
    page.route("**/thumbnails/**", lambda route: route.fulfill(status=404, body=""))
    settled(page, lambda: page.fill("#q", "灰猫"))
    page.wait_for_selector(".card.failed")
    assert "cannot be shown" in page.locator(".card.failed").first.text_content()
    page.locator(".card.failed .open").first.click()
    page.wait_for_selector("#viewer .unavailable")
