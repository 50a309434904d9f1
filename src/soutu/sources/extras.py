"""Formats that need a further package: HEIC (phones) and cameras' raw files."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from soutu.errors import BadImage

if TYPE_CHECKING:
    from PIL import Image, ImageFile

HEIC = frozenset({"heic", "heif", "hif"})
RAW = frozenset({"dng", "arw", "cr2", "cr3", "nef", "orf", "raf", "rw2"})
BRANDS = (b"heic", b"heix", b"heim", b"heis")
WHOLE = "whole size"  # key of a raw picture's full size where it was developed at half of it


def is_heic(prefix: bytes) -> bool:
    """Whether a file that begins so is a HEIC picture: one of the brands in its first box."""
    return prefix[4:8] == b"ftyp" and any(brand in prefix[8:] for brand in BRANDS)


def open_heic(stream: io.BytesIO, name: str) -> ImageFile.ImageFile:
    """Its header; pillow-heif turns the pixels upright by itself."""
    try:
        import pillow_heif
    except ImportError:
        raise BadImage("image-needs-extra", path=name, kind="HEIC", extra="heic") from None
    reader: Any = pillow_heif.HeifImageFile
    opened: ImageFile.ImageFile = reader(stream)
    return opened


def is_raw(name: str) -> bool:
    """By its ending: inside, most raw files are TIFFs, and open as their thumbnail."""
    return PurePosixPath(name).suffix.lower().lstrip(".") in RAW


def develop(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """A raw file at half its size (one pixel for each 2 × 2 of the sensor), upright, with the
    camera's white balance."""
    try:
        import rawpy
    except ImportError:
        raise BadImage("image-needs-extra", path=name, kind="raw", extra="raw") from None
    with rawpy.imread(io.BytesIO(data)) as raw:
        sizes = raw.sizes
        width, height = sizes.width, sizes.height
        if width * height > max_pixels:
            told = {"width": width, "height": height, "limit": max_pixels}
            raise BadImage("image-too-large", path=name, **told)
        pixels = raw.postprocess(use_camera_wb=True, half_size=True)
    from PIL import Image

    image = Image.fromarray(pixels)
    turned = (pixels.shape[0] > pixels.shape[1]) != (height > width)
    image.info[WHOLE] = (height, width) if turned else (width, height)
    return image
