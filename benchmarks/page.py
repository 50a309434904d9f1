"""How soon the page can be used: ``python -m benchmarks.page [--runs 9]``.

``soutu serve`` on the demo gallery (``tiny``) and Chromium on the same machine, each run in a new
browser profile. Milliseconds by the browser's own clock, from the first byte of the page to when
its box takes a search (``soutu-usable``), and to the first answer to 灰猫 after Enter; and the
time from starting the server to its first answer. Needs ``playwright`` and ``chromium``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import run_server
from benchmarks.record import save
from soutu.gallery import Gallery
from soutu.images.scan import demo_data
from soutu.server.routes import page_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MEASURED = """() => {
  const page = performance.getEntriesByType('navigation')[0];
  const after = (name) => performance.getEntriesByName(name)[0].startTime - page.responseStart;
  return { usable: after('soutu-usable'), painted: after('first-contentful-paint') };
}"""
ANSWERED = """() => {
  const all = performance.getEntriesByType('resource');
  const asked = all.find(one => one.name.includes('/search'));
  return asked.responseEnd - asked.startTime;
}"""


def figures(values: Sequence[float]) -> dict[str, float]:
    low, high = min(values), max(values)
    return {
        "min": round(low, 1),
        "median": round(statistics.median(values), 1),
        "max": round(high, 1),
    }


def gallery(folder: Path) -> Path:
    """The demo's pictures, indexed."""
    root = folder / "photos"
    shutil.copytree(demo_data(), root)
    with Gallery.open(root, model="tiny") as opened:
        opened.index(root / "captions.csv")
    return root


def first_answer(root: Path) -> float:
    """Milliseconds from starting a server to its first answer to a search."""
    begun = time.perf_counter()
    with run_server(root) as (url, _):
        with urllib.request.urlopen(f"{url}/api/v1/search?q=cat") as answer:
            json.load(answer)
        return (time.perf_counter() - begun) * 1000


def visit(browser: Browser, url: str) -> dict[str, Any]:
    """One person's first visit."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(url)
    # The page's policy forbids waiting inside of it.
    while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
        page.wait_for_timeout(10)
    results: dict[str, Any] = page.evaluate(MEASURED)
    page.fill("#q", "灰猫")
    page.press("#q", "Enter")
    page.wait_for_selector(".card.loaded")
    results["search"] = page.evaluate(ANSWERED)
    context.close()
    return results


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("needs chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root = gallery(Path(folder))
        starts = [first_answer(root) for _ in range(max(3, runs // 3))]
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        with run_server(root) as (url, _):
            visit(browser, url)  # what only the first of all pays is the server's, not the page's
            visits = [visit(browser, url) for _ in range(runs)]
        version = browser.version
        browser.close()
    load = round(os.getloadavg()[0], 1)  # what else the machine had to do
    kinds = ("usable", "painted", "search")
    results = {f"{kind}, ms": figures([visit[kind] for visit in visits]) for kind in kinds}
    sizes = [len(file.data) for file in page_files().values()]
    weight = {"files": len(sizes), "bytes": sum(sizes)}
    start = {"from starting the server to its first answer, ms": figures(starts)}
    print(
        save(
            "page",
            {"chromium": version, "runs": runs, "load": load, "weight": weight, **results, **start},
        )
    )


if __name__ == "__main__":
    main()
