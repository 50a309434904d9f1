"""Cameras' raw files: know them, develop them, or take the largest preview inside.

Most are TIFFs and would open as their thumbnail, so there the name decides; a JPEG of that name is
a JPEG.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from struct import error as StructError
from struct import unpack_from

from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin

from soutu.errors import BadImage
from soutu.images.bombs import check_cost
from soutu.images.metadata import exposure_time
from soutu.images.scan import RAW_SUFFIXES, suffix_of

FULL_SIZE, TAKEN, PREVIEW = "full size", "taken", "preview"
"""Keys in ``info`` of an image that ``develop`` returns: size of the raw file, upright; time of
exposure; whether it is a preview."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OWN_HEADS = (
    b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"IIII", b"MMMM",
)  # fmt: skip
_CR2, _CR3, _CRW = (8, b"CR"), (4, b"ftypcrx "), (6, b"HEAPCCDR")
_DNG_VERSION, _SUBFILE, _ORIENTATION, _XMP = 50706, 254, 274, 700
_PLAIN = (0, 1, 2, 6)  # photometric interpretations that show a picture: grey, RGB, YCbCr
_MIN_PREVIEW = 200  # pixels along its shorter side, where nobody says how many are needed
_JPEG = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")
_MAX_JPEGS = 200  # are looked at


def is_raw(data: bytes, name: str) -> bool:
    """Whether a file is a camera's raw file: by its head, where that is a TIFF's by its name."""
    if data.startswith(b"\xff\xd8"):  # a JPEG, as most are
        return False
    if data.startswith(_OWN_HEADS):
        return True
    if any(data[place : place + len(head)] == head for place, head in (_CR2, _CR3, _CRW)):
        return data.startswith(_TIFF) or data[_CR2[0] : _CR2[0] + 2] != _CR2[1]
    if not data.startswith(_TIFF):
        return False
    return suffix_of(name) in RAW_SUFFIXES or _DNG_VERSION in _first_tags(data)


def develop(data: bytes, name: str, max_pixels: int, min_side: int | None) -> Image.Image:
    """Develop a raw file at half its size (one pixel for each 2 × 2 of the sensor), upright.

    What cannot be developed is taken from its largest preview, if that has about ``min_side``
    pixels along its shorter side. Raises BadImage, or what LibRaw raises.
    """
    try:
        import rawpy
    except ImportError:
        raise BadImage("image-needs-extra", path=name, kind="raw", extra="raw") from None
    size, turn = (0, 0), 0
    try:
        with rawpy.imread(BytesIO(data)) as raw:
            size, turn = (raw.sizes.width, raw.sizes.height), raw.sizes.flip
            if size[0] * size[1] > max_pixels:
                raise _too_large(name, *size, max_pixels)
            pixels = raw.postprocess(use_camera_wb=True, half_size=True)
        image = Image.fromarray(pixels)
        turned = (pixels.shape[0] > pixels.shape[1]) != (size[1] > size[0])
    except BadImage:
        raise
    except Exception as error:  # LibRaw's own, and MemoryError of sizes that it misread
        least = int(0.7 * min_side) if min_side else _MIN_PREVIEW
        preview = _largest_preview(data, turn, max_pixels, least)
        if preview is None:
            reason = error.args[0] if error.args else ""
            if isinstance(reason, bytes):
                raise OSError(reason.decode("utf-8", "replace")) from error
            raise
        image, turned, size = preview, False, preview.size
        image.info[PREVIEW] = True
    image.info[FULL_SIZE] = size[::-1] if turned else size
    image.info[TAKEN] = time_taken(data)
    return image


def _too_large(name: str, width: int, height: int, limit: int) -> BadImage:
    return BadImage("image-too-large", path=name, width=width, height=height, limit=limit)


def _first_tags(data: bytes) -> dict[int, int]:
    """Return the tags of a TIFF's first directory, with what stands in place of the value."""
    tags: dict[int, int] = {}
    with suppress(StructError):
        order = "<" if data[:1] == b"I" else ">"
        (start,) = unpack_from(order + "I", data, 4)
        (count,) = unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 500), 12):
            tag, kind = unpack_from(order + "HH", data, entry)
            (tags[tag],) = unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags


def time_taken(data: bytes) -> str:
    """Return when a picture was taken, by the directories of a TIFF or what is like one."""
    if not data.startswith(_TIFF):
        return ""
    with suppress(Exception):
        exif = Image.Exif()
        exif.load_from_fp(BytesIO(data))
        return exposure_time(exif.get_ifd(ExifTags.IFD.Exif), exif.get(_XMP, b""))
    return ""


_TURNS = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.ROTATE_90,
    6: Image.Transpose.ROTATE_270,
}
"""What undoes LibRaw's ``flip``."""
_FLIPS = {3: 3, 6: 6, 8: 5}  # LibRaw's flip by EXIF orientation


def _largest_preview(data: bytes, turn: int, max_pixels: int, least: int) -> Image.Image | None:
    """Return the largest picture of at least ``least`` pixels that can be decoded, upright."""
    tags = _first_tags(data) if data.startswith(_TIFF) else {}
    turn = turn or _FLIPS.get(tags.get(_ORIENTATION, 1), 0)
    candidates = [(w * h, w, h, start) for start, w, h in _jpegs(data)]
    if tags and not tags.get(_SUBFILE, 0) & 1 and tags.get(262) in _PLAIN:
        candidates.append(
            (tags.get(256, 0) * tags.get(257, 0), tags.get(256, 0), tags.get(257, 0), -1)
        )
    for pixels, width, height, start in sorted(candidates, reverse=True)[:8]:
        if min(width, height) < least or pixels > max_pixels:
            continue
        with suppress(Exception):
            check_cost(data[max(0, start) :], "")
            preview: Image.Image
            if start < 0:
                with TiffImagePlugin.TiffImageFile(BytesIO(data)) as plain:
                    plain.load()  # which turns it upright
                    preview = plain.copy()
                return preview
            with JpegImagePlugin.JpegImageFile(BytesIO(data[start:])) as image:
                image.load()
                preview = image.convert("RGB")
            preview.info.clear()  # an orientation of its own is the raw file's
            # A preview of the other format has been turned already.
            lying, sensor = width >= height, tags.get(256, 0) >= tags.get(257, 0)
            if turn in (5, 6) and lying != sensor and tags:
                return preview
            if turn in _TURNS:
                preview = preview.transpose(_TURNS[turn])
            return preview
    return None


def _jpegs(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield where in ``data`` a JPEG begins that Pillow decodes, with its width and height."""
    for number, match in enumerate(_JPEG.finditer(data)):
        if number == _MAX_JPEGS:
            return
        with suppress(StructError, IndexError):
            position = match.start() + 2
            while data[position] == 0xFF:
                kind = data[position + 1]
                if kind in (0xC0, 0xC1, 0xC2):
                    depth, height, width = unpack_from(">BHH", data, position + 4)
                    if depth == 8:
                        yield match.start(), width, height
                    break
                if kind in (0xC3, 0xD8, 0xD9, 0xDA):  # C3 is without loss: the sensor's values
                    break
                position += 2 + unpack_from(">H", data, position + 2)[0]
