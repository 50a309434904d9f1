"""The page's pictures in docs/screenshots: ``python -m benchmarks.screenshots``.

``soutu serve`` on the demo gallery (``tiny``), in Chromium on a phone, a laptop and a large screen,
in both themes and languages. Needs ``playwright``, ``chromium`` and a Chinese font.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.load import run_server
from benchmarks.page import ARGUMENTS, gallery

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
WIDEST = 1440  # pixels kept of a large screen
MAX_BYTES = 60_000  # bytes of a file, if a quality that can be looked at allows
QUALITIES = (86, 80, 72, 64, 56, 48)
PHONE = 390
HEIGHTS = {PHONE: 844, 1280: 800, 2560: 1440}
LIGHT, DARK = "light", "dark"
LOCALES = {LIGHT: "zh-CN", DARK: "en-US"}


def nothing_more(page: Page) -> None:
    """What the address says is enough."""


def open_first(page: Page) -> None:
    page.locator(".card .open").first.click()
    page.wait_for_selector("#viewer .stage img")


def set_filter(page: Page) -> None:
    page.click("#filter")
    page.fill("#f-width", "600")
    page.press("#f-width", "Enter")


@dataclass(frozen=True)
class Shot:
    """One picture of the page: ``then`` is done once the results are there."""

    name: str
    width: int
    theme: str
    address: str = "/?q=灰猫"
    then: Callable[[Page], None] = nothing_more
    wait: str = ".card.loaded"


SHOTS = (
    *(Shot("search", width, theme) for width in HEIGHTS for theme in (LIGHT, DARK)),
    Shot("viewer", 1280, DARK, then=open_first),
    Shot("filters", 1280, LIGHT, then=set_filter),
    Shot("no-match", 1280, LIGHT, "/?q=火箭&sure=0.5", wait="#empty h2"),
    Shot("terms", PHONE, DARK, "/?q=2:灰猫 %2B 雪地 - 水"),
)


def take(browser: Browser, url: str, shot: Shot) -> bytes:
    """PNG."""
    phone = shot.width == PHONE
    context = browser.new_context(
        viewport={"width": shot.width, "height": HEIGHTS[shot.width]},
        color_scheme="dark" if shot.theme == DARK else "light",
        locale=LOCALES[shot.theme], is_mobile=phone, has_touch=phone, reduced_motion="reduce",
    )  # fmt: skip
    page = context.new_page()
    page.goto(url + shot.address)
    page.wait_for_selector(shot.wait)
    shot.then(page)
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    png = page.screenshot()
    context.close()
    return png


def small(png: bytes) -> bytes:
    """WebP of the best quality that fits."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        out = io.BytesIO()
        picture.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= MAX_BYTES:
            break
    return out.getvalue()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("needs chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        with run_server(gallery(Path(folder))) as (url, _):
            for shot in SHOTS:
                file = out / f"{shot.name}-{shot.width}-{shot.theme}.webp"
                file.write_bytes(small(take(browser, url, shot)))
                print(f"{file.name}: {file.stat().st_size} bytes")
        browser.close()


if __name__ == "__main__":
    main()
