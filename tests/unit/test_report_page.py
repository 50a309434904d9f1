"""Reports as a browser shows them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

HERE = Path(__file__).parents[1] / "collection"
NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
BLUE = (0x25, 0x63, 0xEB)

# Whether two Chinese characters are drawn as themselves: a missing glyph looks like any other.
# It runs in a frame, which may be as narrow as a telephone; Chromium's window may not.
PROBE = """<script>
const drawn = text => { const c = document.createElement("canvas"); c.width = c.height = 40;
  const g = c.getContext("2d"); g.font = "30px " + getComputedStyle(document.body).fontFamily;
  g.fillText(text, 2, 32); return c.toDataURL(); };
const shown = new Set(["猫", "图", "\\u{10FFFD}"].map(drawn));
const wide = [...document.querySelectorAll("main *")].filter(one => !one.closest(".wide *, svg *")
  && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML);
parent.document.documentElement.dataset.seen = JSON.stringify({
  inner: innerWidth, glyphs: shown.size,
  scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth,
  wide: wide.slice(0, 3), small: Math.min(...[...document.querySelectorAll("svg")].map(
    one => 12 * one.getBoundingClientRect().width / 360))});
</script>"""


def browse(folder, width, *more):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
         f"--window-size={width},2400", *more],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One of a single evaluation, one of several ways."""
    from soutu.cli.main import _run

    folder = tmp_path_factory.mktemp("pages")
    asked = ["--lang", "zh", "eval", str(HERE), "--model", "tiny", "--limit", "80"]
    asked += ["--work", str(folder / "w"), "--out"]
    assert _run([*asked, str(folder / "one")]) == 0
    assert _run([*asked, str(folder / "several"), "--compare", "raw,expand+fusion=mean"]) == 0
    return folder


@pytest.mark.parametrize("name", ["one", "several"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_wider_than_the_screen_and_chinese_is_drawn(pages, tmp_path, name, width):
    text = (pages / name / "report.html").read_text("utf-8")
    probed = tmp_path / "probed.html"
    framed = html.escape(text.replace("</body>", PROBE + "</body>"))
    frame = f'<iframe width="{width}" height="2000" frameborder="0" srcdoc="{framed}"></iframe>'
    probed.write_text(f"<!doctype html><meta charset=utf-8>{frame}", "utf-8")
    found = browse(tmp_path, 2000, "--dump-dom", probed.as_uri())
    seen = json.loads(html.unescape(re.search('data-seen="(.*?)"', found)[1]))
    assert seen["inner"] == width
    assert seen["scroll"] <= seen["client"]
    assert seen["wide"] == []
    assert seen["glyphs"] == 3, "characters without glyphs: no Chinese font?"
    assert seen["small"] > 10, "letters in plots are large enough to read"


@pytest.mark.parametrize("width", [390, 1280])
def test_plots_are_drawn(pages, tmp_path, width):
    shot = tmp_path / "page.png"
    page = pages / "one" / "report.html"
    browse(tmp_path, width, f"--screenshot={shot}", page.as_uri())
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    assert (np.abs(pixels - BLUE).max(axis=2) < 4).sum() > 100, "the first curve"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000, "thumbnails"
