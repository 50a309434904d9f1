"""What a picture's header tells, its pixels left alone."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from math import ceil
from pathlib import Path, PurePosixPath
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from soutu.errors import BadImage
from soutu.fs import FileTooLarge, NotRegularFile, read_regular_file
from soutu.types import Rgb

# Formats that need a further package: HEIC (phones) and cameras' raw files.


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


# Opening a picture by its content, in the formats Soutu reads and no others.


class _Tiff(TiffImagePlugin.TiffImageFile):
    def load_prepare(self) -> None:
        # Pillow repeats its own size check only where it makes the canvas itself.
        if self._im is None:
            size = getattr(self, "_tile_size", self.size)
            self.im = Image.new(self.mode, size, None).im
        super().load_prepare()


_READERS: tuple[type[ImageFile.ImageFile], ...] = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    _Tiff,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PpmImagePlugin.PpmImageFile,
)


def format_of(prefix: bytes) -> str | None:
    """What a file that begins with ``prefix`` (64 bytes of it) is: Pillow's name of the format;
    None for what no reader here knows."""
    if is_heic(prefix):
        return "HEIF"
    for reader in _READERS:
        accepts = Image.OPEN[str(reader.format)][1]
        if accepts is not None and accepts(prefix[:16]) is True:
            return str(reader.format)
    return None


def open_picture(data: bytes, name: str) -> ImageFile.ImageFile | None:
    """Read the header of a picture; None if no reader knows the content. ``name`` is for messages.

    A reader that knows the content but not the rest raises as it likes.
    ``Image.open`` is left out on purpose. It warns of large pictures by a limit that
    belongs to the whole process, and neither that limit nor the warning filters can be
    changed for one thread alone; and it would try formats, such as PostScript, that
    run far more code than a picture is worth.
    """
    prefix, stream = data[:16], BytesIO(data)
    if is_heic(data[:64]):
        return open_heic(stream, name)
    for reader in _READERS:
        accepts = Image.OPEN[str(reader.format)][1]
        # A string is Pillow's way to say: mine, but I was built without that codec.
        if accepts is not None and accepts(prefix) is True:
            return reader(stream)
    return None


# From any of Pillow's pixel modes to plain 8-bit RGB.


_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB, transparency laid on white, deep greys scaled to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG: Pillow keeps the high byte of the pixels but not of their key.
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey values (height, width) of a deep picture as uint8.

    16-bit values map their full range, so that a dark picture stays dark. Integers of
    32 bits and floats have no agreed white: the smallest usual one that holds all
    values is taken, and else the range from the darkest to the brightest value.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[values == key] = 255
        return grey
    numbers = values.astype(np.float32)
    numbers[~np.isfinite(numbers)] = 0
    low, high = float(numbers.min()), float(numbers.max())
    for white in (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    span = (high - low) or 1.0
    scaled: NDArray[np.uint8] = np.rint((numbers - low) * (255.0 / span)).astype(np.uint8)
    return scaled


# How many pixels may be decoded at the same time, by all threads together.


MAX_PIXELS_IN_FLIGHT = 64_000_000  # 200 MB as RGB


class PixelBudget:
    """Lets pictures in while the sum of their pixels is at most ``limit``; a larger picture than
    that goes in alone, so that it costs no more than its own decoding."""

    def __init__(self, limit: int = MAX_PIXELS_IN_FLIGHT) -> None:
        self._limit, self._inside, self._changed = limit, 0, Condition()

    @contextmanager
    def admit(self, pixels: int) -> Iterator[None]:
        taken = min(pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._inside + taken <= self._limit)
            self._inside += taken
        try:
            yield
        finally:
            with self._changed:
                self._inside -= taken
                self._changed.notify_all()


# From a file's bytes to upright RGB pixels, whatever the file turns out to hold.


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
class DecodedImage:
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
        data = read_regular_file(path, max_bytes)
    except NotRegularFile:
        raise BadImage("image-not-file", path=name) from None
    except FileTooLarge:
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
    gate: PixelBudget | None = None,
    cut: Cut | None = None,
) -> DecodedImage:
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


def _upright(image: Image.Image, whole: tuple[int, int] | None, cut: Cut | None) -> DecodedImage:
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
    return DecodedImage(np.asarray(cut(upright) if cut else upright, dtype=np.uint8), *whole, taken)


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


# Where a PNG may keep its EXIF. Pillow decodes all pixels to look behind them.
_NOTES = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageHeader:
    """``width``, ``height`` and ``taken`` as in ``decode.Decoded``; 0, 0 and "" where unknown."""

    width: int
    height: int
    taken: str


def read_header(data: bytes, name: str) -> ImageHeader:
    """The header of a file's bytes, with what decoding it would tell. What cannot be read is no
    error: it is unknown. ``name`` tells cameras' raw files, which have to be developed."""
    try:
        if is_raw(name):
            picture = decode(data, shown=name)
            return ImageHeader(picture.width, picture.height, picture.taken)
        image = open_picture(data, name)
        if image is None:
            return ImageHeader(0, 0, "")
        with image:
            return _header(image, data)
    except Exception:  # hostile bytes draw nearly every class of exception
        return ImageHeader(0, 0, "")


def _header(image: Image.Image, data: bytes) -> ImageHeader:
    width, height = image.size
    if image.format == "PNG" and not any(note in data for note in _NOTES):
        return ImageHeader(width, height, "")
    orientation, taken = read_exif(image)
    upright = hasattr(image, "_tile_size")  # a TIFF, as newer Pillows open it
    if orientation in SIDEWAYS and not upright:
        width, height = height, width
    return ImageHeader(width, height, taken)
