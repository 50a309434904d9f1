"""Pictures that are many times longer than wide cost memory in proportion to their pixels."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from soutu.models.preprocess import fit
from soutu.types import ModelInfo
from tests.pictures import encoded
from tests.serving import ROOT, filled, served

INFO = ModelInfo(
    "m", 8, 16, 77, (0.5,) * 3, (0.3,) * 3, "bicubic", "shortest", (), "", "s", "f"
)  # fmt: skip
LIMIT_MB = 400
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

# Prints the most memory that this process has had; ru_maxrss would tell the parent's.
PEAK = """
from pathlib import Path
line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
print(int(line.split()[1]) // 1000)
"""


def with_mode(mode, interpolation="bicubic", size=16):
    return ModelInfo(
        INFO.name, 8, size, 77, INFO.mean, INFO.std, interpolation, mode, (), "", "s", "f"
    )


def noise(height, width):
    rng = np.random.default_rng(height * 7 + width)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def reference(image, info):
    """Resize all of it, then crop, as CLIP's reference code does."""
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    height, width = image.shape[:2]
    size, short = info.image_size, min(width, height)
    scaled = (int(size * width / short), int(size * height / short))
    resized = Image.fromarray(image).resize(scaled, filters[info.interpolation])
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(17, 1), (1, 33), (3, 400), (401, 3), (5, 1000), (20, 1000), (2000, 31), (1, 999), (7, 113)],
)
def test_a_thin_picture_is_what_the_reference_makes_of_it(height, width, interpolation):
    info = with_mode("shortest", interpolation)
    image = noise(height, width)
    error = np.abs(fit(image, info).astype(int) - reference(image, info))
    assert error.max() <= 1  # Pillow rounds to 8 bits between its two passes


@pytest.mark.parametrize("size", [(16, 256), (256, 16), (48, 480), (10, 160), (300, 200)])
def test_an_ordinary_picture_is_the_same_to_the_bit(size):
    image = noise(*size)
    assert (fit(image, INFO) == reference(image, INFO)).all()


@pytest.mark.parametrize("size", [(3, 900), (900, 3), (1, 70), (70, 1)])
def test_a_squashed_thin_picture_differs_by_the_order_of_rounding_alone(size):
    image = noise(*size)
    whole = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.abs(fit(image, with_mode("squash")).astype(int) - whole).max() <= 2


@ON_LINUX
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_memory_is_in_proportion_to_the_pixels(mode):
    """At the size of a real model, a strip of 3 megapixels: 600 GB if it were resized whole."""
    code = f"""
import numpy as np
from soutu.models.preprocess import fit
from soutu.types import ModelInfo
info = ModelInfo("m", 8, 336, 77, (0.5,) * 3, (0.3,) * 3, "bicubic", {mode!r}, (), "", "s", "f")
for shape in [(3_000_000, 1, 3), (1, 3_000_000, 3), (65_000, 2, 3), (2, 65_000, 3)]:
    assert fit(np.zeros(shape, np.uint8), info).shape == (336, 336, 3)
{PEAK}"""
    assert peak_of(code) < LIMIT_MB


def peak_of(code, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return int(done.stdout.split()[-1])


STRIPS = [("PNG", (1, 100_000)), ("PNG", (60_000, 1)), ("GIF", (1, 60_000)), ("JPEG", (2, 65_000))]


@ON_LINUX
def test_a_folder_of_strips_is_indexed_in_bounded_memory(tmp_path):
    for number, (form, size) in enumerate(STRIPS * 4):
        picture = Image.new("RGB", size, (number * 9, 80, 200))
        (tmp_path / f"{number}.{form.lower()}").write_bytes(encoded(picture, form))
    code = f"""
import sys
from soutu import Gallery
with Gallery.open(sys.argv[1], settings={{"model": "tiny", "workers": 8}}) as gallery:
    report = gallery.index()
    assert report.encoded == {len(STRIPS) * 4}, report
{PEAK}"""
    assert peak_of(code, tmp_path) < LIMIT_MB


@ON_LINUX
def test_strips_that_are_uploaded_or_named_in_a_query_are_answered_in_bounded_memory(tmp_path):
    root = filled(tmp_path, ["a.jpg", "b.jpg"])
    (root / "strip.png").write_bytes(encoded(Image.new("RGB", (1, 100_000), "red")))
    with served(root) as url:
        for form, size in STRIPS:
            answer = upload(url, encoded(Image.new("RGB", size, "blue"), form))
            assert b'"hits"' in answer
        code = f"""
import sys
from soutu import Gallery
with Gallery.open(sys.argv[1]) as gallery:
    assert len(gallery.search(sys.argv[1] + "/strip.png", k=1)) == 1
    assert gallery.explain("cat ./strip.png")
{PEAK}"""
        assert peak_of(code, root) < LIMIT_MB


def upload(url, data):
    part = b'--part\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = part % (b"image", b'; filename="a"', data) + part % (b"request", b"", b'{"k":1}')
    body += b"--part--\r\n"
    request = urllib.request.Request(
        f"{url}/api/v1/search",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=part"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()
