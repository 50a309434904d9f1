"""A JPEG of which every pixel is there is read, with or without its end marker; no other is."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from soutu import Gallery
from soutu.errors import BadImage
from soutu.images.decode import decode
from tests.pictures import encoded

END = b"\xff\xd9"


def photo(mode="RGB", size=(200, 136)):
    """Something in every block, to the last row."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (17, 25, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


KINDS = {
    "baseline": encoded(photo(), "JPEG", quality=85),
    "4:4:4": encoded(photo(), "JPEG", subsampling=0),
    "optimised": encoded(photo(), "JPEG", optimize=True),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "grey": encoded(photo("L"), "JPEG"),
    "grey progressive": encoded(photo("L"), "JPEG", progressive=True),
    "CMYK": encoded(photo("CMYK"), "JPEG"),
    "restart markers": encoded(photo(), "JPEG", restart_marker_rows=1),
    "restarts in a row": encoded(photo(), "JPEG", restart_marker_blocks=3),
    "large": encoded(photo(size=(1500, 1100)), "JPEG"),
    "MPO": encoded(photo(), "MPO", save_all=True, append_images=[photo("RGB", (40, 30))]),
}
TAILS = {"none": b"", "half a marker": b"\xff", "two halves": b"\xff\xff"}


def without_end(data):
    assert data.endswith(END)
    return data[:-2]


def refused(data, **options):
    try:
        decode(data, **options)
    except BadImage as error:
        return error.code in ("image-truncated", "image-damaged")
    return False


@pytest.mark.parametrize("min_side", [None, 60])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_without_its_end_marker_is_read(kind, tail, min_side):
    data = KINDS[kind]
    whole = decode(data, min_side=min_side).rgb
    assert (decode(without_end(data) + TAILS[tail], min_side=min_side).rgb == whole).all()


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "CMYK"])
def test_zeros_behind_a_whole_picture_do_no_harm(kind):
    data = KINDS[kind]
    whole = decode(data).rgb
    for marker in (b"", b"\xff", END):
        assert (decode(without_end(data) + marker + bytes(4096)).rgb == whole).all()


@pytest.mark.parametrize("min_side", [None, 60])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "MPO"])
def test_a_picture_that_lacks_rows_is_refused(kind, min_side):
    data = without_end(KINDS[kind])
    for share in (0.99, 0.97, 0.9, 0.7, 0.5, 0.3):
        assert refused(data[: int(len(data) * share)], min_side=min_side), share


@pytest.mark.parametrize("kind", ["baseline", "grey", "progressive"])
def test_zeros_in_place_of_rows_are_no_rows(kind):
    data = without_end(KINDS[kind])
    for share in (0.95, 0.6):
        cut = data[: int(len(data) * share)]
        assert refused(cut + bytes(len(data) - len(cut)))


def test_a_cut_at_a_restart_marker_is_refused():
    data = without_end(KINDS["restart markers"])
    starts = [n for n in range(1, len(data)) if data[n - 1] == 0xFF and 0xD0 <= data[n] <= 0xD7]
    assert len(starts) > 4
    for start in starts:
        for end in (start - 1, start, start + 1):
            assert refused(data[:end]), end


def test_a_progressive_picture_that_lacks_a_scan_is_refused():
    data = without_end(KINDS["progressive"])
    scans = [n for n in range(len(data) - 1) if data[n : n + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for start in scans[1:]:
        for end in (start, start + 3):
            assert refused(data[:end]), end


@pytest.mark.parametrize("cut", range(1, 12))
def test_the_last_bytes_count_where_they_hold_pixels(cut):
    """A decoder fills what is missing: what is accepted must not depend on it."""
    data = without_end(KINDS["4:4:4"])[:-cut]
    if not refused(data):
        difference = decode(data).rgb.astype(int) - decode(KINDS["4:4:4"]).rgb
        assert np.abs(difference).max() == 0


def test_damage_before_the_end_marker_stays_what_it_was():
    chance = random.Random(5)
    data = without_end(KINDS["baseline"])
    for _ in range(100):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] = chance.randrange(256)
        refused(bytes(damaged), max_pixels=1_000_000)  # nothing but BadImage is raised


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_other_formats_without_their_trailers_are_read(form):
    data = encoded(photo(), form)
    if form == "WEBP":
        data += b"\0"  # bytes behind it
    short = {"GIF": data[:-1], "PNG": data[:-12], "WEBP": data}[form]
    assert (decode(short).rgb == decode(data).rgb).all()


def test_index_and_search_read_them(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number, kind in enumerate(KINDS):
        (root / f"{number}.jpg").write_bytes(without_end(KINDS[kind]))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(KINDS["baseline"][:-500])
    with Gallery.open(root, settings={"model": "tiny"}) as gallery:
        report = gallery.index()
        assert (report.encoded, report.failed) == (len(KINDS), ())
        assert gallery.search(root / "0.jpg", k=1)[0].path == "0.jpg"
        with pytest.raises(BadImage):
            gallery.search(cut)
