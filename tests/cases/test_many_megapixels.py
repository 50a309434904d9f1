"""What counts against the limit of pixels is what is decoded: large JPEGs are reduced meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from soutu import Gallery
from soutu.errors import BadImage
from soutu.images.decode import MAX_PIXELS, PixelBudget, decode
from soutu.images.repair import is_sequential
from tests.cases.test_deep_tiffs import colours, tiff, typed
from tests.cases.test_png_notes import chunk
from tests.pictures import encoded

SIZE = (1632, 1224)
PIXELS = SIZE[0] * SIZE[1]


def photo(size=SIZE, mode="RGB"):
    ramp = np.linspace(0, 255, size[0]).astype(np.uint8)[None].repeat(size[1], 0)
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2)).convert(mode)


BASELINE = encoded(photo(), "JPEG")
PROGRESSIVE = encoded(photo(), "JPEG", progressive=True)
GREY = encoded(photo(mode="L"), "JPEG")


@pytest.mark.parametrize("data", [BASELINE, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize(
    ("share", "width"), [(1.0, 1632), (0.9, 816), (0.25, 816), (0.2, 408), (0.13, 408)]
)
def test_a_jpeg_beyond_the_limit_is_reduced_until_it_fits(data, share, width):
    decoded = decode(data, max_pixels=int(PIXELS * share))
    assert (decoded.width, decoded.height) == SIZE
    assert decoded.rgb.shape[1] == width


def test_what_the_model_needs_is_reduced_as_before():
    decoded = decode(BASELINE, max_pixels=PIXELS // 8 + 1, min_side=100)
    assert decoded.rgb.shape == (153, 204, 3)
    assert (decoded.width, decoded.height) == SIZE


@pytest.mark.parametrize("min_side", [None, 100])
def test_eight_times_the_limit_is_too_large_whatever_is_needed(min_side):
    with pytest.raises(BadImage) as caught:
        decode(BASELINE, max_pixels=PIXELS // 8 - 1, min_side=min_side)
    assert caught.value.code == "image-too-large"
    assert caught.value.fields["width"] == SIZE[0]


@pytest.mark.parametrize("min_side", [None, 100])
def test_a_progressive_one_is_held_whole_and_counts_three_quarters(min_side):
    assert decode(PROGRESSIVE, max_pixels=PIXELS * 3 // 4, min_side=min_side).width == SIZE[0]
    with pytest.raises(BadImage):
        decode(PROGRESSIVE, max_pixels=PIXELS * 3 // 4 - 1, min_side=min_side)


def test_other_formats_count_as_they_are():
    for form in ("PNG", "BMP", "WEBP", "TIFF", "GIF"):
        with pytest.raises(BadImage):
            decode(encoded(photo(), form), max_pixels=PIXELS - 1, min_side=100)
    with pytest.raises(BadImage):
        decode(encoded(photo(mode="CMYK"), "JPEG"), max_pixels=PIXELS - 1, min_side=100)


def test_which_jpegs_are_decoded_as_they_are_read():
    assert is_sequential(BASELINE)
    assert is_sequential(GREY)
    assert not is_sequential(PROGRESSIVE)
    assert not is_sequential(b"\xff\xd8")
    assert not is_sequential(BASELINE[:100])
    several = bytearray(BASELINE)
    start = several.index(b"\xff\xda")
    several[start + 4] = 1  # a scan of one colour
    assert not is_sequential(bytes(several))
    assert is_sequential(BASELINE[:2] + b"\xff" * 5 + BASELINE[3:])


def test_a_lying_header_is_refused_before_anything_is_decoded():
    data = bytearray(BASELINE)
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = b"\xff\xdc\xff\xdc"  # 65,500 × 65,500
    for min_side in (None, 100):
        with pytest.raises(BadImage) as caught:
            decode(bytes(data), min_side=min_side)
        assert caught.value.code == "image-too-large"
    head = b"\0\x01\0\0\0\x01\0\0\x08\x02\0\0\0"
    with pytest.raises(BadImage):
        decode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head), min_side=100)


def test_the_budget_of_the_threads_counts_what_is_decoded():
    budget = PixelBudget(10)  # smaller than any: alone, and not for ever
    assert decode(BASELINE, budget=budget, min_side=100).width == SIZE[0]
    assert decode(PROGRESSIVE, budget=budget, min_side=100).width == SIZE[0]
    assert decode(BASELINE[:-2], budget=budget).width == SIZE[0], "decoded twice"
    assert decode(tiff(typed(colours(), "f4")), budget=budget).width == colours().shape[1]


def test_a_phones_200_megapixels_are_read_by_default(tmp_path):
    size = (16320, 12240)
    assert size[0] * size[1] > MAX_PIXELS
    picture = Image.linear_gradient("L").resize((16320 // 2, 12240 // 2)).resize(size, 0)
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "phone.jpg").write_bytes(encoded(picture, "JPEG", quality=50))
    del picture
    with Gallery.open(root, settings={"model": "tiny"}) as gallery:
        report = gallery.index()
        assert (report.encoded, report.failed) == (1, ())
        (hit,) = gallery.search(root / "phone.jpg", k=1)
        assert hit.score > 0.99
        (row,) = gallery.store.images([hit.id])
        assert (row.width, row.height) == size
