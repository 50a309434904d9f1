"""Undo what readers refuse though every pixel is there: a missing end, broken notes beside."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from os import urandom
from struct import error as StructError
from struct import unpack_from

from PIL import JpegImagePlugin

# JPEG: without its end marker

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan, where others are data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables, among the numbers of frames
_FILLERS = (b"\x00", b"\xaa", b"\x35")
_MAX_TWICE = 40_000_000  # pixels of what is decoded in full to be compared


def end_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG with the end marker that it lacks; None where it lacks more, or no marker.

    Decoders fill what is missing. So one that is whole is one whose pixels do not depend on what
    comes behind: several fillers are tried.
    """
    with suppress(Exception):  # the same hostile bytes that a decoder has refused already
        scan = _last_scan(data)
        if scan is None:
            return None
        start, end, progressive = scan
        body = data[:end]
        if body.endswith(bytes(16)):  # room on a disk that nothing has been written to
            body = body.rstrip(b"\0")
        body = body.rstrip(b"\xff")
        restart = len(_RESTART.findall(body, start))
        ends = [_filling(filler, restart) + _END for filler in _FILLERS]
        # At an eighth, which is quick, most show already that they lack something.
        if all(_agree(body, ends, progressive, reduced=reduced) for reduced in (True, False)):
            return body + _END
    return None


def _last_scan(data: bytes) -> tuple[int, int, bool] | None:
    """Return where the data of the last scan begin and end, and whether the JPEG is progressive.

    None where a scan is missing, or the end marker is there.
    """
    position, progressive = 2, False
    open_parts: set[tuple[int, int]] = set()  # (component, coefficient) that no scan has ended yet
    scan = None
    while True:
        marker = _MARKER.search(data, position)
        if marker is None or marker.start() + 4 > len(data):
            break
        position, kind = marker.start(), data[marker.start() + 1]
        if kind == _END[1]:
            return None
        length = unpack_from(">H", data, position + 2)[0]
        body = data[position + 4 : position + 2 + length]
        if len(body) < length - 2:
            break
        if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME:
            progressive = kind in _PROGRESSIVE
            components = body[6 : 6 + 3 * body[5] : 3]
            open_parts = {(c, k) for c in components for k in range(64)}
        elif kind == 0xDA:
            count = body[0]
            low, high, bits = body[1 + 2 * count : 4 + 2 * count]
            if not progressive:
                low, high, bits = 0, 63, 0
            if bits & 15 == 0:
                components = body[1 : 1 + 2 * count : 2]
                open_parts -= {(c, k) for c in components for k in range(low, high + 1)}
            scan = position + 2 + length
        position += 2 + length
    if scan is None or open_parts:
        return None
    following = _MARKER.search(data, scan)
    return scan, following.start() if following else len(data), progressive


def is_sequential(data: bytes) -> bool:
    """Whether a JPEG has one scan of all its colours, which is decoded as it is read."""
    position, components = 2, 0
    with suppress(StructError, IndexError):
        while data[position] == 0xFF:
            kind = data[position + 1]
            if kind == 0xDA:
                return data[position + 4] == components
            if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME:
                if kind in _PROGRESSIVE:
                    return False
                components = data[position + 9]
            filler = kind == 0xFF
            position += 1 if filler else 2 + unpack_from(">H", data, position + 2)[0]
    return False


def _filling(filler: bytes, restart: int) -> bytes:
    """Return data for a scan, with the restart markers that come next in it."""
    filling = filler * 64
    for number in range(4):
        filling += bytes((0xFF, 0xD0 + (restart + number) % 8)) + filler * 64
    return filling


def _agree(body: bytes, ends: list[bytes], progressive: bool, *, reduced: bool) -> bool:
    first = _digest(body + ends[0], progressive, reduced)
    return all(_digest(body + end, progressive, reduced) == first for end in ends[1:])


def _digest(data: bytes, progressive: bool, reduced: bool) -> bytes:
    with JpegImagePlugin.JpegImageFile(BytesIO(data)) as image:
        if image.width * image.height > _MAX_TWICE and not reduced:
            if progressive:
                return urandom(16)
            reduced = True  # a block that is missing lacks its mean too
        if reduced:
            image.draft(image.mode, (1, 1))
        image.load()
        digest = blake2b(digest_size=16)
        for top in range(0, image.height, 64):
            rows = image.crop((0, top, image.width, min(image.height, top + 64)))
            digest.update(rows.tobytes())
        return digest.digest()


# PNG: notes beside the pixels

_FIXED = {b"gAMA": 4, b"cHRM": 32, b"pHYs": 9, b"sRGB": 1, b"tIME": 7}
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")  # the pixels of a still picture are elsewhere
_KEYWORDS = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")
_MAX_NOTE = 1 << 16  # bytes of a note that nothing here reads
_MAX_TEXT = 1_000_000  # bytes, unpacked, of one that is read
_MAX_PROFILE = 4_000_000


def clean_png(data: bytes) -> tuple[bytes, bytes]:
    """Return a PNG without notes that are broken or huge, and the colour profile if it is large.

    As libpng and browsers do, which show the pixels whatever lies beside them.
    """
    parts: list[bytes] = []
    position = start = 8
    profile, room = b"", 2 * _MAX_TEXT
    colours = data[25] if len(data) > 25 else 0
    while position + 12 <= len(data):
        length, kind = unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if kind[0] & 0x20:
            note = data[position + 8 : end - 4] if length <= _MAX_PROFILE else b""
            intact = bool(note) and _has_checksum(data, position + 4, end)
            if intact and kind == b"iCCP":
                unpacked = _unpack_profile(note)
                if len(unpacked) > _MAX_TEXT:
                    profile = unpacked
                good = 0 < len(unpacked) <= _MAX_TEXT
            else:
                good = intact and length <= room and _is_good(kind, note, colours)
                room -= length if good else 0
            if not good:
                parts.append(data[start:position])
                start = end
        position = end
        if kind == b"IEND":
            break
    if start == 8:
        return data, profile
    return b"".join([data[:8], *parts, data[start:]]), profile


def _has_checksum(data: bytes, start: int, end: int) -> bool:
    (checksum,) = unpack_from(">I", data, end - 4)
    return bool(zlib.crc32(memoryview(data)[start : end - 4]) == checksum)


def _is_good(kind: bytes, note: bytes, colours: int) -> bool:
    """Whether a reader can use the content of a chunk that has the right checksum."""
    if kind in _FIXED:
        return len(note) == _FIXED[kind]
    if kind == b"tRNS":
        sizes = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
        return len(note) in sizes.get(colours, ())
    if kind == b"eXIf":
        return len(note) <= _MAX_TEXT
    if kind not in _TEXT_CHUNKS:
        return len(note) <= _MAX_NOTE and kind not in _ANIMATION
    keyword, separator, rest = note.partition(b"\0")
    if not separator or not 0 < len(keyword) < 80:
        return False
    if kind == b"tEXt":
        return len(note) <= (_MAX_TEXT if keyword in _KEYWORDS else _MAX_NOTE)
    if keyword not in _KEYWORDS:
        return False
    if kind == b"iTXt":
        if len(rest) < 2 or rest.count(b"\0", 2) < 2:
            return False
        packed, method, (_, _, text) = rest[0], rest[1], rest[2:].split(b"\0", 2)
        if not packed:
            return len(text) <= _MAX_TEXT
    else:
        method, text = (rest[0], rest[1:]) if rest else (1, b"")
    return not method and 0 < len(_unpack(text, _MAX_TEXT)) < _MAX_TEXT


def _unpack_profile(note: bytes) -> bytes:
    _, separator, packed = note.partition(b"\0")
    return _unpack(packed[1:], _MAX_PROFILE) if separator and packed[:1] == b"\0" else b""


def _unpack(data: bytes, limit: int) -> bytes:
    """Return what a zlib stream unpacks to; nothing if it is broken or longer than ``limit``."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, limit + 1)
    except zlib.error:
        return b""
    return unpacked if len(unpacked) <= limit and stream.eof else b""
