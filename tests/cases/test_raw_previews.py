"""Raw files: content decides what a file is; what cannot be developed is its largest preview."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from soutu import Gallery
from soutu.errors import BadImage
from soutu.images.decode import decode, read_header
from soutu.images.raw import is_raw
from soutu.images.scan import RAW_SUFFIXES, has_image_suffix
from tests.cases.test_image_bombs import with_scans
from tests.pictures import encoded, scene
from tests.unit.test_decode_formats import QUARTERS, dng, heic

pytest.importorskip("rawpy", reason="needs the extra raw")
CORNERS = Image.fromarray((QUARTERS >> 8).astype(np.uint8))  # red, green, blue, grey


def preview(size=(960, 640), **options):
    return encoded(CORNERS.resize(size), "JPEG", quality=90, **options)


def camera(*jpegs, kind=52546, orientation=1, order="<", taken=""):
    """A TIFF of a sensor whose packing nobody knows, with JPEGs before its directory."""
    body = b"".join(jpegs) + bytes(1000)
    body += bytes(len(body) % 2)
    exif_at = 8 + len(body)
    text = taken.encode().ljust(20, b"\0")
    exif = struct.pack(order + "HHHII", 1, 0x9003, 2, 20, exif_at + 18) + bytes(4) + text
    start = exif_at + len(exif)
    tags = [
        (254, 4, 0), (256, 4, 1024), (257, 4, 768), (258, 3, 16), (259, 3, kind), (262, 3, 32803),
        (273, 4, 8), (274, 3, orientation), (277, 3, 1), (278, 4, 768), (279, 4, 1000),
        (34665, 4, exif_at), (50706, 1, 0x00000701 if order == "<" else 0x01070000),
    ]  # fmt: skip
    directory = struct.pack(order + "H", len(tags))
    for tag, form, value in tags:
        count = 4 if tag == 50706 else 1
        packed = struct.pack(
            order + ("HH" if form == 3 else "I"), *((value, 0) if form == 3 else (value,))
        )
        directory += struct.pack(order + "HHI", tag, form, count) + packed
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "I", start) + body + exif + directory + bytes(4)


def brightest(rgb):
    return [int(np.argmax(rgb[r, c])) for r in (10, -10) for c in (10, -10)][:3]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [52546, 34892, 7, 1, 65000])
def test_the_largest_preview_stands_in(kind, order):
    data = camera(preview((160, 120)), preview(), preview((400, 300)), kind=kind, order=order)
    decoded = decode(data, name="a.dng", min_side=300)
    assert (decoded.width, decoded.height, decoded.preview) == (960, 640, True)
    assert brightest(decoded.rgb) == [0, 1, 2]


@pytest.mark.parametrize(
    ("orientation", "size"), [(3, (960, 640)), (6, (640, 960)), (8, (640, 960))]
)
def test_a_preview_is_turned_upright(orientation, size):
    decoded = decode(camera(preview(), orientation=orientation), name="a.nef")
    assert (decoded.width, decoded.height) == size
    first = {3: [None, 2, 1], 6: [2, 0, None], 8: [1, None, 0]}[orientation]
    pairs = zip(brightest(decoded.rgb), first, strict=True)
    assert all(colour == expected for colour, expected in pairs if expected is not None)


def test_a_preview_that_takes_long_is_none():
    """Another stands in; without one the file cannot be read."""
    bomb = with_scans(500, (1000, 700))
    decoded = decode(camera(bomb, preview()), name="a.dng", min_side=300)
    assert (decoded.width, decoded.height) == (960, 640)
    with pytest.raises(BadImage):
        decode(camera(bomb), name="a.dng", min_side=300)


def test_a_preview_that_is_smaller_than_the_model_needs_is_none():
    for side in (None, 400):
        with pytest.raises(BadImage) as caught:
            decode(camera(preview((160, 120))), name="a.dng", min_side=side)
        assert "b'" not in str(caught.value)
    assert decode(camera(preview((320, 240))), name="a.dng", min_side=300).preview


def test_a_broken_preview_gives_way_to_the_next():
    data = camera(preview()[:20_000] + bytes(100), preview((400, 300)))
    assert decode(data, name="a.dng").width in (400, 960)
    lossless = preview().replace(b"\xff\xc0", b"\xff\xc3", 1)
    assert decode(camera(lossless, preview((400, 300))), name="a.dng").width == 400


def test_previews_beyond_the_limit_of_pixels_are_left_out():
    with pytest.raises(BadImage):
        decode(camera(preview()), name="a.dng", max_pixels=500_000)


def test_the_time_of_exposure_is_that_of_the_raw_file():
    data = camera(preview(), taken="2024:05:06 07:08:09")
    assert decode(data, name="a.dng").taken == "2024-05-06T07:08:09"


def test_a_plain_tiff_of_that_name_is_read():
    image = Image.fromarray(np.asarray(CORNERS)).resize((300, 260))
    decoded = decode(encoded(image, "TIFF"), name="a.dng")
    assert decoded.rgb.shape == (260, 300, 3)
    assert brightest(decoded.rgb) == [0, 1, 2]


@pytest.mark.parametrize("suffix", ["dng", "NEF", "cr2", "arw", "pef", "x3f", "iiq"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_picture_of_that_name_is_what_it_is(form, suffix):
    data = encoded(scene(), form)
    decoded = decode(data, name=f"a.{suffix}")
    assert decoded.rgb.shape == (16, 32, 3)
    assert not decoded.preview
    assert read_header(data, f"a.{suffix}").width == 32


def test_a_heic_of_that_name_is_what_it_is():
    data = heic(np.asarray(CORNERS))
    assert decode(data, name="a.dng").width == 160


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a", "a.bin"])
def test_a_dng_of_another_name_is_developed(name):
    decoded = decode(dng(QUARTERS), name=name)
    assert (decoded.width, decoded.height, decoded.preview) == (160, 120, False)
    assert brightest(decoded.rgb) == [0, 1, 2]


def test_heads_that_only_raw_files_have():
    for head in (b"FUJIFILMCCD-RAW ", b"IIRO\x08\0\0\0", b"MMOR\0\0\0\0", b"IIU\0\x18\0\0\0",
                 b"FOVb\0\0\2\0", b"\0MRM\0\1\2\3", b"II*\0\x10\0\0\0CR\2\0",
                 b"\0\0\0\x18ftypcrx \0\0", b"II\x1a\0\0\0HEAPCCDR"):  # fmt: skip
        assert is_raw(head, "a.jpg"), head
    for head in (
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"\xff\xd8\xff\xe0",
        b"",
        b"CR",
        b"12345678CR",
    ):
        assert not is_raw(head, "a.jpg"), head
    assert is_raw(b"II*\0\x08\0\0\0", "a.NEF")


@pytest.mark.parametrize("suffix", sorted(RAW_SUFFIXES))
def test_cameras_endings_are_known(suffix):
    assert has_image_suffix(f"DSC_0001.{suffix.upper()}")
    assert is_raw(b"MM\0*" + bytes(30), f"a.{suffix}")


def test_the_report_names_what_was_a_preview(tmp_path, soutu):
    (tmp_path / "whole.dng").write_bytes(dng(QUARTERS))
    (tmp_path / "odd.dng").write_bytes(camera(preview()))
    (tmp_path / "none.dng").write_bytes(camera())
    (tmp_path / "jpeg.nef").write_bytes(preview())
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as gallery:
        report = gallery.index()
    assert (report.encoded, report.previews) == (3, ("odd.dng",))
    assert [error.fields["path"] for error in report.failed] == ["none.dng"]
    code, _, err = soutu("index", tmp_path, "--rebuild")
    assert code == 0
    assert "odd.dng" in err
    assert "b'" not in err


def test_hostile_bytes_raise_nothing_else():
    data = camera(preview((300, 260)))
    rng = np.random.default_rng(2)
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(data), 3)
        places[0] = rng.integers(len(data) - 200, len(data))
        damaged[places] = rng.integers(0, 256, 3)
        try:
            decode(damaged.tobytes(), name="a.dng", max_pixels=2_000_000)
        except BadImage:
            continue
    many = b"II*\0\x08\0\0\0" + b"\xff\xd8\xff\xe0\0\x02" * 100_000
    with pytest.raises(BadImage):
        decode(many, name="a.dng")


def test_exif_of_the_preview_is_no_second_turn():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    decoded = decode(camera(preview(exif=exif), orientation=6), name="a.dng")
    assert (decoded.width, decoded.height) == (640, 960)
