"""What a picture's header tells, its pixels left alone."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from soutu.sources.decode import SIDEWAYS, decode, read_exif
from soutu.sources.extras import is_raw
from soutu.sources.formats import open_picture

# Where a PNG may keep its EXIF. Pillow decodes all pixels to look behind them.
_NOTES = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class Header:
    """``width``, ``height`` and ``taken`` as in ``decode.Decoded``; 0, 0 and "" where unknown."""

    width: int
    height: int
    taken: str


def read_header(data: bytes, name: str) -> Header:
    """The header of a file's bytes, with what decoding it would tell. What cannot be read is no
    error: it is unknown. ``name`` tells cameras' raw files, which have to be developed."""
    try:
        if is_raw(name):
            picture = decode(data, shown=name)
            return Header(picture.width, picture.height, picture.taken)
        image = open_picture(data, name)
        if image is None:
            return Header(0, 0, "")
        with image:
            return _header(image, data)
    except Exception:  # hostile bytes draw nearly every class of exception
        return Header(0, 0, "")


def _header(image: Image.Image, data: bytes) -> Header:
    width, height = image.size
    if image.format == "PNG" and not any(note in data for note in _NOTES):
        return Header(width, height, "")
    orientation, taken = read_exif(image)
    upright = hasattr(image, "_tile_size")  # a TIFF, as newer Pillows open it
    if orientation in SIDEWAYS and not upright:
        width, height = height, width
    return Header(width, height, taken)
