"""From a file's bytes to upright RGB pixels, whatever the file turns out to hold."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from soutu.errors import BadImage
from soutu.sources.extras import WHOLE, develop, is_raw
from soutu.sources.formats import open_picture
from soutu.sources.gate import Gate
from soutu.sources.pixels import to_rgb
from soutu.sources.regular import NotRegular, TooLong, read_regular
from soutu.types import Rgb

MAX_PIXELS = 178_000_000
MAX_BYTES = 2_000_000_000
Cut = Callable[[Image.Image], Image.Image]

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
SIDEWAYS = (5, 6, 7, 8)
"""The orientations that exchange width and height."""


@dataclass(frozen=True)
class Decoded:
    """A picture's pixels and what its header tells.

    ``rgb`` is read-only. ``width`` and ``height`` are the upright picture's.
    ``taken`` is the EXIF time of exposure, local, "YYYY-MM-DDTHH:MM:SS", followed by
    the offset ("+08:00") if the file states one; "" where the file does not tell.
    """

    rgb: Rgb
    width: int
    height: int
    taken: str


def content_hash(data: bytes) -> bytes:
    """32 bytes that name this content (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=32).digest()


def read_file(path: Path, *, shown: str | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of an ordinary file, to be hashed and decoded from one reading.

    ``shown`` is the name for messages. Raises ``BadImage`` if the file cannot be read,
    is empty, is longer than ``max_bytes``, or is a pipe, folder or device.
    """
    name = str(path) if shown is None else shown
    try:
        data = read_regular(path, max_bytes)
    except NotRegular:
        raise BadImage("image-not-file", path=name) from None
    except TooLong:
        raise BadImage("image-file-too-large", path=name, limit=max_bytes) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadImage("image-unreadable", path=name, reason=reason) from error
    if not data:
        raise BadImage("image-empty", path=name)
    return data


def decode(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    shown: str | None = None,
    least: int | None = None,
    gate: Gate | None = None,
    cut: Cut | None = None,
) -> Decoded:
    """Decode a file or its bytes to RGB: upright, first frame, transparency on white.

    ``shown`` is the name for messages. With ``least`` a JPEG is decoded at 1/2, 1/4 or 1/8 of
    its size if its shorter side keeps at least so many pixels: several times sooner, and
    ``rgb`` is smaller than ``width`` × ``height``. ``gate`` bounds what several threads decode
    at once, ``cut`` makes of the upright picture what ``rgb`` is to be.

    Raises ``BadImage`` for anything that is not a whole picture of at most ``max_pixels``
    pixels; that limit is checked on the header, before a pixel is decoded. Of a damaged note
    beside whole pixels Pillow may warn; the filters belong to the application, so none is set
    here.
    """
    if isinstance(source, bytes):
        name, data = shown or "(bytes)", source
        if not data:
            raise BadImage("image-empty", path=name)
    else:
        name = shown or str(source)
        data = read_file(source, shown=name)
    try:
        image = develop(data, name, max_pixels) if is_raw(name) else open_picture(data, name)
    except BadImage:
        raise
    except Exception as error:
        raise _damaged(error, name) from error
    if image is None:
        raise BadImage("image-unknown", path=name)
    with image:
        _check_size(image, max_pixels, name)
        # Hostile bytes draw nearly every class of exception out of a decoder (OSError,
        # SyntaxError, ValueError, struct.error, MemoryError …), so none is singled out.
        try:
            whole = _reduce(image, least)
            with gate.admit(image.width * image.height) if gate else nullcontext():
                return _upright(image, whole, cut)
        except Exception as error:
            raise _damaged(error, name) from error


def _upright(image: Image.Image, whole: tuple[int, int] | None, cut: Cut | None) -> Decoded:
    """``whole``: the size that the file tells, where the picture is decoded at a smaller one."""
    image.load()
    orientation, taken = read_exif(image)
    upright = to_rgb(image)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if whole is None:  # a TIFF's size is the upright picture's only once it is loaded
        whole = upright.size
    elif orientation in SIDEWAYS:
        whole = whole[1], whole[0]
    return Decoded(np.asarray(cut(upright) if cut else upright, dtype=np.uint8), *whole, taken)


def _reduce(image: Image.Image, least: int | None) -> tuple[int, int] | None:
    """Let a JPEG's decoder leave out what is not needed, and return the whole picture's size; None
    where nothing is left out. (Pillow's draft mode keeps the colours only of grey and RGB.)"""
    shorter, whole = min(image.size), image.size
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return image.info.get(WHOLE)
    if least is None or shorter < 2 * least:
        return None
    scale = least / shorter
    image.draft(image.mode, (ceil(image.width * scale), ceil(image.height * scale)))
    return whole


def _check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage("image-too-large", path=name, width=width, height=height, limit=max_pixels)


def _damaged(error: Exception, name: str) -> BadImage:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return BadImage("image-no-memory", path=name)
    # Reading past the end shows as an index error that Pillow wraps while in the header.
    ended = (EOFError, IndexError, struct.error)
    if "truncated" in reason.lower() or isinstance(error.__cause__ or error, ended):
        return BadImage("image-truncated", path=name)
    return BadImage("image-damaged", path=name, reason=reason)


def read_exif(image: Image.Image) -> tuple[int, str]:
    """Orientation (1 if not told) and time taken. Call after load(): PNG may keep its
    EXIF behind the pixels, and TIFF turns itself upright and then drops the tag."""
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        details = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:
        # The pixels are whole: a damaged note beside them costs the note, not the picture.
        return 1, ""
    taken = _taken(
        details.get(ExifTags.Base.DateTimeOriginal),
        details.get(ExifTags.Base.OffsetTimeOriginal),
    )
    return (orientation if isinstance(orientation, int) else 1), taken


def _taken(time: object, offset: object) -> str:
    if not isinstance(time, str):
        return ""
    try:
        moment = datetime.strptime(time.strip(" \0"), "%Y:%m:%d %H:%M:%S")
    except ValueError:  # cameras without a clock write zeros or blanks
        return ""
    zone = offset.strip(" \0") if isinstance(offset, str) else ""
    known = re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", zone)
    return moment.isoformat() + (zone if known else "")
