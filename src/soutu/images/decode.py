"""Decode image files of all supported formats to upright RGB pixels, or read only their headers.

A format is recognised by its content; TIFFs with the name of a camera's raw file are raw files
(``raw.py``). HEIC and raw files need the extras ``heic`` and ``raw``.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from errno import ENOMEM
from math import ceil
from pathlib import Path
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

from soutu.errors import BadImage, BadInput
from soutu.fs import FileTooLarge, NotRegularFile, expand_user, read_regular_file
from soutu.images.bombs import check_cost
from soutu.images.colour import convert_to_srgb, profile_mode, profile_of
from soutu.images.deep_tiff import read_layout, read_pixels, scale_to_eight_bits
from soutu.images.metadata import CREATION_TIME, exposure_time
from soutu.images.raw import FULL_SIZE, PREVIEW, TAKEN, develop, is_raw, time_taken
from soutu.images.repair import clean_png, end_jpeg, is_sequential
from soutu.types import Rgb

MAX_PIXELS = 178_000_000
MAX_BYTES = 2_000_000_000
MAX_PIXELS_IN_FLIGHT = 64_000_000  # 200 MB as RGB


@dataclass(frozen=True)
class DecodedImage:
    """An image's pixels and what its header says.

    ``rgb`` is read-only. ``width`` and ``height`` are those of the upright image.
    ``taken`` is the time of exposure, local, "YYYY-MM-DDTHH:MM:SS" or as much of it as the file
    states, followed by the offset ("+08:00") if there is one; "" where the file has none.
    ``preview``: a raw file could not be developed, and this is the preview inside it.
    """

    rgb: Rgb
    width: int
    height: int
    taken: str
    preview: bool = False


@dataclass(frozen=True)
class ImageHeader:
    """``width``, ``height`` and ``taken`` as in ``DecodedImage``; 0, 0 and "" where unknown."""

    width: int
    height: int
    taken: str


class PixelBudget:
    """Limit how many pixels all threads together decode at the same time.

    An image larger than the limit is decoded alone and costs no more than its own decoding.
    """

    def __init__(self, limit: int = MAX_PIXELS_IN_FLIGHT) -> None:
        self._limit, self._in_use, self._changed = limit, 0, Condition()

    @contextmanager
    def acquire(self, pixels: int) -> Iterator[None]:
        """Wait until ``pixels`` fit into the budget, and hold them for the ``with`` block."""
        pixels = min(pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._in_use + pixels <= self._limit)
            self._in_use += pixels
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= pixels
                self._changed.notify_all()


def content_hash(data: bytes) -> bytes:
    """Return the 32 bytes that identify this content (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=32).digest()


def read_file(
    path: Path, *, name: str | None = None, max_bytes: int = MAX_BYTES, any_content: bool = False
) -> bytes:
    """Read an image file once, to hash and decode the same bytes.

    ``name`` is the name for messages. Of a long file that begins like no picture no more than the
    beginning is read, unless it may have ``any_content``. Raises BadImage if the file cannot be
    read, is empty, is longer than ``max_bytes``, or is a pipe, folder or device.
    """
    name = str(path) if name is None else name

    def check(head: bytes) -> None:
        if not is_raw(head, name) and format_of(head) is None:
            raise BadImage("image-unknown", path=name)

    try:
        data = read_regular_file(path, max_bytes, None if any_content else check)
    except NotRegularFile:
        raise BadImage("image-not-file", path=name) from None
    except FileTooLarge:
        raise BadImage("image-file-too-large", path=name, limit=max_bytes) from None
    except OSError as error:
        if error.errno == ENOMEM:
            raise BadImage("image-no-memory", path=name) from None
        reason = error.strerror or type(error).__name__
        raise BadImage("image-unreadable", path=name, reason=reason) from error
    if not data:
        raise BadImage("image-empty", path=name)
    return data


def decode(
    source: Path | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
    budget: PixelBudget | None = None,
    transform: Callable[[Image.Image], Image.Image] | None = None,
) -> DecodedImage:
    """Decode a file or its bytes to RGB: upright, first frame, transparency on white.

    Parameters
    ----------
    source
        A file, or the bytes of one.
    name
        The name for messages; its suffix tells raw files from other TIFFs.
    max_pixels
        The most pixels that are decoded. Checked on the header, before any is.
    min_side
        Decode a JPEG at 1/2, 1/4 or 1/8 of its size if its shorter side keeps at least so many
        pixels: several times faster, and ``rgb`` is smaller than ``width`` × ``height``. One that
        is larger than ``max_pixels`` is reduced until it is not.
    budget
        Bounds what several threads decode at once.
    transform
        Makes ``rgb`` out of the upright image, RGB or CMYK; colours are converted to sRGB after it.

    Raises
    ------
    BadImage
        For anything that is not a complete image, or takes more than ``max_pixels`` pixels.

    Notes
    -----
    Pillow may warn of damaged metadata beside undamaged pixels; warning filters belong to the
    application, so none is set here.
    """
    if isinstance(source, bytes):
        name, data = name or "(bytes)", source
        if not data:
            raise BadImage("image-empty", path=name)
    else:
        name = name or str(source)
        data = read_file(source, name=name)

    def hold(pixels: int) -> AbstractContextManager[None]:
        return budget.acquire(pixels) if budget else nullcontext()

    def attempt(data: bytes) -> DecodedImage:
        if is_raw(data, name):
            image: Image.Image = develop(data, name, max_pixels, min_side)
        else:
            try:
                image = _open_image(data, name)
            except SyntaxError:  # Pillow has no mode for it
                if format_of(data[:64]) != "TIFF":
                    raise
                image = _open_deep_tiff(data, name, max_pixels, hold)
        with image:
            width, height = image.size
            full_size = _reduce_jpeg(image, min_side, max_pixels)
            pixels = _count_decoded(image, data, width * height)
            if pixels > max_pixels:
                raise _too_large(name, width, height, max_pixels)
            with hold(pixels):
                return _to_upright_rgb(image, full_size, transform)

    try:
        try:
            return attempt(data)
        except OSError:
            if format_of(data[:64]) != "JPEG":
                raise
            with hold(MAX_PIXELS):  # alone: it is decoded in full
                whole = end_jpeg(data)
            if whole is None:
                raise
            return attempt(whole)
    except BadImage:
        raise
    # Hostile bytes draw nearly every class of exception out of a decoder (OSError,
    # SyntaxError, ValueError, struct.error, MemoryError …), so none is singled out.
    except Exception as error:
        raise _decoding_error(error, name) from error


def load_rgb(
    image: str | Path | Image.Image | Rgb, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Rgb:
    """Return an image as RGB, uint8 (height, width, 3), whichever form it comes in.

    ``image`` is a file's path, a Pillow image (turned upright if it has an EXIF orientation), or
    such an array itself; ``name`` is the name for messages. Raises BadImage, or BadInput for an
    array of another shape or dtype.
    """
    if isinstance(image, (str, Path)):
        return decode(expand_user(image), max_pixels=max_pixels, name=name).rgb
    if isinstance(image, Image.Image):
        try:
            return _to_upright_rgb(image, None, None).rgb
        except Exception as error:
            raise _decoding_error(error, name or "(image)") from error
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise BadInput("image-array", dtype=array.dtype, shape=array.shape)
    return array


def read_header(data: bytes, name: str) -> ImageHeader:
    """Read what decoding a file's bytes would tell, without decoding them.

    Raw files and rare TIFFs have to be decoded all the same. What cannot be read is no error, it is
    unknown.
    """
    try:
        if is_raw(data, name):
            return _decode_header(data, name)
        with _open_image(data, name) as image:
            width, height = image.size
            # Pillow decodes all pixels of a PNG to look for EXIF behind them.
            if image.format == "PNG" and not any(chunk in data for chunk in _PNG_EXIF):
                return ImageHeader(width, height, "")
            orientation, taken = _read_exif(image)
            upright = hasattr(image, "_tile_size")  # a TIFF, as newer Pillows open it
            if orientation in _SIDEWAYS and not upright:
                width, height = height, width
            return ImageHeader(width, height, taken)
    except Exception:  # hostile bytes draw nearly every class of exception
        if format_of(data[:64]) == "TIFF":
            with suppress(BadImage):
                return _decode_header(data, name)
        return ImageHeader(0, 0, "")


def _decode_header(data: bytes, name: str) -> ImageHeader:
    decoded = decode(data, name=name)
    return ImageHeader(decoded.width, decoded.height, decoded.taken)


def format_of(prefix: bytes) -> str | None:
    """Return Pillow's name for the format of a file that begins with ``prefix`` (64 bytes).

    None for what no reader here knows.
    """
    if _is_heic(prefix):
        return "HEIF"
    reader = _find_reader(prefix)
    return str(reader.format) if reader else None


# Opening: the formats that Soutu reads, and no others


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
# One of these stands in a HEIC file's first box; the second four are of sequences.
_HEIC_BRANDS = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
)  # fmt: skip
_PNG_EXIF = (
    b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp", CREATION_TIME.encode()
)  # fmt: skip


def _open_image(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header of an image. BadImage if no reader knows the content.

    A reader that knows the content but not the rest raises as it likes.
    ``Image.open`` is left out on purpose. It warns of large images by a limit that
    belongs to the whole process, and neither that limit nor the warning filters can be
    changed for one thread alone; and it would try formats, such as PostScript, that
    run far more code than an image is worth.
    """
    if _is_heic(data):
        try:
            import pillow_heif
        except ImportError:
            raise BadImage("image-needs-extra", path=name, kind="HEIC", extra="heic") from None
        heic_reader: Any = pillow_heif.HeifImageFile  # which turns the pixels upright by itself
        image: ImageFile.ImageFile = heic_reader(io.BytesIO(data))
        return image
    reader = _find_reader(data)
    if reader is None:
        raise BadImage("image-unknown", path=name)
    check_cost(data, name)
    if reader is not PngImagePlugin.PngImageFile:
        return reader(io.BytesIO(data))
    data, profile = clean_png(data)
    image = reader(io.BytesIO(data))
    if profile:
        image.info["icc_profile"] = profile
    return image


def _open_deep_tiff(
    data: bytes, name: str, max_pixels: int, hold: Callable[[int], AbstractContextManager[None]]
) -> Image.Image:
    """Return the pixels of a TIFF that Pillow has no mode for, upright."""
    layout = read_layout(data, name)
    if layout.cost > max_pixels:
        raise _too_large(name, layout.width, layout.height, max_pixels)
    with hold(layout.cost):
        image = read_pixels(data, layout)
    if layout.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[layout.orientation])
    image.info |= {TAKEN: time_taken(data), "icc_profile": layout.profile}
    return image


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in _HEIC_BRANDS)


def _find_reader(data: bytes) -> type[ImageFile.ImageFile] | None:
    for reader in _READERS:
        accepts = Image.OPEN[str(reader.format)][1]
        # A string is Pillow's way to say: mine, but I was built without that codec.
        if accepts is not None and accepts(data[:16]) is True:
            return reader
    return None


def _too_large(name: str, width: int, height: int, limit: int) -> BadImage:
    return BadImage("image-too-large", path=name, width=width, height=height, limit=limit)


def _reduce_jpeg(
    image: Image.Image, min_side: int | None, max_pixels: int
) -> tuple[int, int] | None:
    """Let a JPEG's decoder leave out what is not needed; return the full size if it will.

    Pillow's draft mode keeps the colours only of grey and RGB.
    """
    width, height = full_size = image.size
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return image.info.get(FULL_SIZE)
    if min_side is not None and min(full_size) >= 2 * min_side:
        scale = min_side / min(full_size)
        image.draft(image.mode, (ceil(width * scale), ceil(height * scale)))
    elif width * height > max_pixels:
        divisor = next((n for n in (2, 4) if -(-width // n) * -(-height // n) <= max_pixels), 8)
        image.draft(image.mode, (max(1, width // divisor), max(1, height // divisor)))
    else:
        return None
    return full_size


def _count_decoded(image: Image.Image, data: bytes, full: int) -> int:
    """Return how many pixels decoding costs the memory and time of; ``full`` are all of them.

    Coefficients of a JPEG in several scans are all held, at 3 bytes a pixel; of others they are
    passed through, at an eighth of the time.
    """
    decoded = image.width * image.height
    if image.format != "JPEG" or decoded == full:
        return decoded
    # Pillow tells what is progressive; only scans of single colours have to be looked for.
    held = image.info.get("progressive") or (full > MAX_PIXELS and not is_sequential(data))
    return max(decoded, full * 3 // 4 if held else full // 8)


# Pixels: from any of Pillow's modes to upright 8-bit RGB

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
_SIDEWAYS = (5, 6, 7, 8)
"""The orientations that exchange width and height."""


def _to_upright_rgb(
    image: Image.Image,
    full_size: tuple[int, int] | None,
    transform: Callable[[Image.Image], Image.Image] | None,
) -> DecodedImage:
    """``full_size``: the size that the file states, where the image is decoded at a smaller one."""
    image.load()
    orientation, taken = _read_exif(image)
    profile = profile_of(image)
    mode = profile_mode(image, profile)
    upright = image if mode == "CMYK" else _to_rgb(image)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if full_size is None:  # a TIFF's size is the upright image's only once it is loaded
        full_size = upright.size
    elif orientation in _SIDEWAYS:
        full_size = full_size[1], full_size[0]
    if transform:
        upright = transform(upright)
    if mode:
        upright = convert_to_srgb(upright, profile, mode)
    pixels = np.asarray(upright, dtype=np.uint8)
    return DecodedImage(pixels, *full_size, taken, PREVIEW in image.info)


def _read_exif(image: Image.Image) -> tuple[int, str]:
    """Return orientation (1 if there is none) and time of exposure. Call after load().

    PNG may keep its EXIF behind the pixels, and TIFF turns itself upright and then drops the tag.
    """
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        details = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:
        # The pixels are undamaged: bad metadata costs the metadata, not the image.
        orientation, details = 1, {}
    taken = image.info.get(TAKEN) or exposure_time(
        details, image.info.get("xmp", b""), image.info.get(CREATION_TIME, "")
    )
    return (orientation if isinstance(orientation, int) else 1), taken


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode RGB, transparency laid on white, deep greys scaled to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG: Pillow keeps the high byte of the pixels but not of their key.
        image = image.copy()
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba)
    return canvas


def _to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Scale the grey values (height, width) of a deep image to uint8.

    16-bit values map their full range, so that a dark image stays dark.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[values == key] = 255
        return grey
    return scale_to_eight_bits(values, (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0))


def _decoding_error(error: Exception, name: str) -> BadImage:
    if isinstance(error, MemoryError):
        return BadImage("image-no-memory", path=name)
    reason = " ".join(str(error).split()) or type(error).__name__
    # Reading past the end shows as an index error that Pillow wraps while in the header.
    truncated = isinstance(error.__cause__ or error, (EOFError, IndexError, struct.error))
    if truncated or "truncated" in reason.lower():
        return BadImage("image-truncated", path=name)
    return BadImage("image-damaged", path=name, reason=reason)
