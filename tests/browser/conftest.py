"""Real Chromium on a real server; nothing may be asked of any other host, nothing may go wrong."""

import shutil

import pytest

from soutu.factory import RULES_FILE
from soutu.gallery import Gallery
from tests.serving import ROOT, served

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Let go of after each file: its driver keeps an event loop running in this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo gallery, indexed with ``tiny``."""
    folder = tmp_path_factory.mktemp("demo") / "photos"
    shutil.copytree(ROOT / "clip_retrieval" / "data", folder)
    with Gallery.open(folder, model="tiny") as gallery:
        gallery.index(folder / "captions.csv")
        (gallery.home / RULES_FILE).write_text("queries:\n  灰猫: [灰猫 猫, gray cat]\n", "utf-8")
    return folder


@pytest.fixture(scope="session")
def site(demo):
    with served(demo) as url:
        yield url


@pytest.fixture
def visit(browser):
    """``visit(url, **context)``: a page that has been watched from the start."""
    contexts, faults = [], []

    def opened(url, *, allowed=(), **how):
        how = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **how}
        context = browser.new_context(**how)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        own = "/".join(url.split("/")[:3])

        def told(message):
            if message.type == "error" and not any(one in message.text for one in allowed):
                faults.append(message.text)

        def asked(request):
            if not request.url.startswith((own, "blob:" + own, "data:")):
                faults.append(f"asked {request.url}")

        page.on("console", told)
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("request", asked)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def until(page, true):
    """Wait for what the page's own policy lets nobody evaluate inside of it."""
    for _ in range(1500):
        if page.evaluate(true):
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"never: {true}")


def hurried(page):
    """Let what the page waits for come twenty times as soon."""
    page.evaluate("void (setTimeout = ((real) => (what, ms) => real(what, ms / 20))(setTimeout))")


def found(page):
    """How many results the list has, seen or not."""
    page.wait_for_selector(".card .open img")
    return int(page.get_attribute(".card", "aria-setsize"))


def shown(page):
    """Captions of the tiles that are near the window, best first."""
    page.wait_for_selector(".card .open img")
    return page.eval_on_selector_all(".card .caption", "all => all.map(one => one.textContent)")


def settled(page, change):
    """Make ``change`` and wait for the answer to the search that it leads to."""
    with page.expect_response(lambda answer: "/api/v1/search" in answer.url) as found:
        change()
    assert found.value.ok
    until(page, "!document.querySelector('.skeleton')")
    return found.value.json()
