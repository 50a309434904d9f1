"""A picture's header tells what decoding the picture would tell."""

import pytest
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from soutu.images.decode import ImageHeader, decode, read_header
from tests.pictures import FORMS, encoded, needs, scene


def noted(form: str, orientation: int) -> dict:
    """Options for saving a picture with a note of how it was held and when."""
    exif = TiffImagePlugin.ImageFileDirectory_v2() if form == "TIFF" else Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    return {"tiffinfo" if form == "TIFF" else "exif": exif}


def told(data: bytes, name: str = "x") -> ImageHeader:
    picture = decode(data, name=name)
    return ImageHeader(picture.width, picture.height, picture.taken)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_header_says_what_decoding_says(form, orientation):
    needs(form)
    keeps = form in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
    data = encoded(scene(), form, **(noted(form, orientation) if keeps else {}))
    found = read_header(data, "x")
    assert found == told(data)
    turned = keeps and orientation in (6, 8)
    assert (found.width, found.height) == ((16, 32) if turned else (32, 16))
    assert found.taken == ("2024-05-06T07:08:09" if keeps else "")


def test_exif_behind_the_pixels_of_a_png_counts_too():
    data = encoded(scene(), "PNG", **noted("PNG", 6))
    at = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    end = data.index(b"IEND") - 4
    moved = data[:at] + data[at + length : end] + data[at : at + length] + data[end:]
    assert read_header(moved, "x") == told(moved) == ImageHeader(16, 32, "2024-05-06T07:08:09")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_no_pixel_is_decoded(form, monkeypatch):
    needs(form)
    data = encoded(scene(), form)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert read_header(data, "x") == ImageHeader(32, 16, "")


@pytest.mark.parametrize("data", [b"", b"hello", encoded(scene())[:20], b"\xff\xd8\xff\xe1\0\0"])
def test_what_is_no_picture_is_unknown(data):
    assert read_header(data, "x") == ImageHeader(0, 0, "")
    assert read_header(data, "x.dng") == ImageHeader(0, 0, "")
