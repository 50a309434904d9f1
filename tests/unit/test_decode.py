"""Decoding: every pixel mode to upright RGB, and refusals that name the cure."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from soutu.images.decode import decode
from tests.pictures import FORMS, RED, WHITE, encoded, grey_row, greys, needs, png, scene


@pytest.mark.parametrize("form", FORMS)
def test_every_format_decodes_to_what_was_saved(form: str) -> None:
    needs(form)
    decoded = decode(encoded(scene(), form))
    assert decoded.rgb.dtype == np.uint8
    assert decoded.rgb.shape == (16, 32, 3)
    assert (decoded.width, decoded.height, decoded.taken) == (32, 16, "")
    error = np.abs(decoded.rgb.astype(int) - np.asarray(scene()).astype(int))
    assert error.mean() < 20  # GIF has a palette, JPEG and AVIF lose a little


@pytest.mark.parametrize("form", FORMS)
def test_pillows_own_size_limit_plays_no_part(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(form)
    data = encoded(scene(), form)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 512 pixels: Pillow would warn
    assert decode(data).width == 32
    assert Image.MAX_IMAGE_PIXELS == 300


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    needs(form)
    corners = Image.new("RGB", (32, 16), "black")
    corners.paste(WHITE, (0, 0, 16, 8))  # upright: white at the top left
    turns = {v: k for k, v in {6: 8, 8: 6}.items()}
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    opposite = turns.get(orientation, orientation)
    stored = corners.transpose(undo[opposite]) if orientation > 1 else corners
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode(encoded(stored, form, exif=exif))
    assert (decoded.width, decoded.height) == (32, 16)
    assert decoded.rgb.shape == (16, 32, 3)
    assert decoded.rgb[:8, :16].mean() > 220
    assert decoded.rgb[8:].mean() < 30
    assert decoded.rgb[:8, 16:].mean() < 30


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert decode(encoded(scene(), "JPEG", exif=exif)).width == 32


@pytest.mark.parametrize(
    ("time", "offset", "taken"),
    [
        ("2024:05:06 07:08:09", None, "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09", "+08:00", "2024-05-06T07:08:09+08:00"),
        ("2024:05:06 07:08:09\0", "-03:30", "2024-05-06T07:08:09-03:30"),
        ("2024:05:06 07:08:09", "   :  ", "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09", "local", "2024-05-06T07:08:09"),
        ("0000:00:00 00:00:00", None, ""),
        ("    :  :     :  :  ", None, ""),
        ("2024:13:40 07:08:09", None, ""),
        (None, "+08:00", ""),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG"])
def test_time_taken_is_told_and_never_guessed(
    form: str, orientation: int, time: str | None, offset: str | None, taken: str
) -> None:
    exif: Any = TiffImagePlugin.ImageFileDirectory_v2() if form == "TIFF" else Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = "1999:09:09 09:09:09"  # edited then, not taken then
    details: dict[int, str] = {}
    if time is not None:
        details[ExifTags.Base.DateTimeOriginal] = time
    if offset is not None:
        details[ExifTags.Base.OffsetTimeOriginal] = offset
    exif[ExifTags.IFD.Exif] = details
    options = {"tiffinfo" if form == "TIFF" else "exif": exif}
    assert decode(encoded(scene(), form, **options)).taken == taken


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_exif_block_costs_the_note_and_not_the_picture() -> None:
    bad = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    decoded = decode(encoded(scene(), "JPEG", exif=bad))
    assert (decoded.width, decoded.taken) == (32, "")


def test_alpha_is_laid_on_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((255, 128, 0)):
        rgba.putpixel((x, 0), (0, 0, 0, alpha))
    assert grey_row(encoded(rgba)) == [0, 127, 255]
    assert grey_row(encoded(rgba.convert("LA"))) == [0, 127, 255]


def test_transparent_palette_entries_are_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    for x in range(3):
        image.putpixel((x, 0), x)
    one = decode(encoded(image, "PNG", transparency=1)).rgb
    assert one[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 255, 0]]
    many = decode(encoded(image, "PNG", transparency=bytes([0, 255, 128]))).rgb
    assert many[0].tolist() == [[255, 255, 255], [0, 0, 255], [127, 255, 127]]
    gif = decode(encoded(image, "GIF", transparency=1)).rgb
    assert gif[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 255, 0]]


def test_colour_keys_without_alpha_channel_are_white() -> None:
    assert grey_row(encoded(greys([0, 7, 200], np.uint8), "PNG", transparency=7)) == [0, 255, 200]
    rgb = Image.new("RGB", (2, 1), RED)
    rgb.putpixel((1, 0), (1, 2, 3))
    keyed = decode(encoded(rgb, "PNG", transparency=(1, 2, 3))).rgb
    assert keyed[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_colour_keys_of_16_bit_pngs() -> None:
    key = b"tRNS" + struct.pack(">H", 0x1234)
    row = b"\0" + struct.pack(">3H", 0, 0x1234, 0xFFFF - 257)
    assert grey_row(png(3, 1, 16, 0, row, key)) == [0, 255, 254]
    key = b"tRNS" + struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0, 0)
    assert decode(png(2, 1, 16, 2, row, key)).rgb[0].tolist() == [[255, 255, 255], [0x12, 0, 0]]


def test_16_bit_greys_are_scaled_and_not_clipped() -> None:
    values = [0, 128, 257, 32768, 65535]
    image = greys(values, np.uint16)
    wanted = [0, 0, 1, 128, 255]
    for form in ("PNG", "TIFF", "PPM"):
        assert grey_row(encoded(image, form)) == wanted, form


def test_a_dark_16_bit_picture_stays_dark() -> None:
    assert grey_row(encoded(greys([0, 257, 514], np.uint16))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 25700.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
    ],
)
def test_floats_take_the_smallest_usual_white(values: list[float], wanted: list[int]) -> None:
    assert grey_row(encoded(greys(values, np.float32), "TIFF")) == wanted


def test_32_bit_integers_are_spread_when_they_exceed_16_bits() -> None:
    data = encoded(greys([0, 1 << 20, 1 << 21], np.int32), "TIFF")
    assert grey_row(data) == [0, 128, 255]


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("TIFF", {})])
def test_cmyk_becomes_the_same_colour(form: str, options: dict[str, Any]) -> None:
    rgb = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), form, **options)).rgb
    assert np.abs(rgb.astype(int) - RED).max() < 12


def test_bilevel_and_palette() -> None:
    assert grey_row(encoded(greys([0, 255], np.uint8).convert("1"))) == [0, 255]
    assert decode(encoded(Image.new("P", (1, 1), 0))).rgb.shape == (1, 1, 3)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(form: str) -> None:
    needs(form)
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), "blue")
    data = encoded(first, form, save_all=True, append_images=[second])
    rgb = decode(data).rgb
    assert np.abs(rgb.astype(int) - RED).max() < 12
