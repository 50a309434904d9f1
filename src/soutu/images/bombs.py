"""Refuse decompression bombs: image files in which few bytes cost much time or memory.

How many pixels a header states is checked in ``decode``. The rest is what multiplies the work for
each pixel, or what a reader does before and after the pixels: scans of a JPEG, thousands of tiny
segments, tiles of a TIFF, packets of a JPEG 2000. Every limit is some ten times what
cameras and editors write.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from soutu.errors import BadImage

MAX_SCANS = 100  # of a JPEG; progressive ones usually have 10
MAX_SCAN_PIXELS = 2_000_000_000  # scans × pixels, about 2 s
MAX_SEGMENTS = 10_000  # of any file, and one more for each kB
MAX_EXIF_SEGMENTS = 64
MAX_PACKED_NOTES = 500  # of a PNG, each of which may unpack to 1 MB
MAX_COMMENTS = 4_000  # in GIF and plain PNM, which are read in quadratic time
MAX_TILES = 100_000  # or strips of a TIFF
MAX_PRECINCTS = 250_000  # of a JPEG 2000, 8 µs each
MAX_PACKETS = 10_000_000  # which are precincts × layers
MAX_RUN_LENGTH_PIXELS = 25_000_000  # of a BMP, which Pillow decodes in Python

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")  # one that ends the data of a scan
_HEADER = frozenset({*range(0xC0, 0xD0), *range(0xD8, 0xFF)})
_CODESTREAM = re.compile(rb"\xff\x4f\xff\x51")  # the beginning of a JPEG 2000
_TILE_OFFSETS = (273, 324)
_TIFF_TAGS = (256, 257, 259, 273, 279, 324, 325)  # sizes, compression, where strips or tiles lie
_TIFF_KINDS = {3: "H", 4: "I", 16: "Q"}
_SOT, _SOD, _COD, _COC = 0xFF90, 0xFF93, 0xFF52, 0xFF53


def check_cost(data: bytes, name: str) -> None:
    """Raise BadImage for a file that costs more than its size and its pixels justify."""
    for prefix, check in _CHECKS.items():
        if data.startswith(prefix):
            try:
                problem = check(data)
            except (struct.error, IndexError):  # it ends too early, as its reader will say
                return
            if problem:
                count, what, limit = problem
                raise BadImage("image-bomb", path=name, count=count, what=what, limit=limit)
            return


_Problem = tuple[int, str, int] | None
"""How many there are, of what, and how many there may be."""


def _segment_limit(data: bytes) -> int:
    return MAX_SEGMENTS + len(data) // 1024


def _check_jpeg(data: bytes) -> _Problem:
    scans = segments = exifs = pixels = 0
    position, is_progressive, components = 2, False, 0
    while True:
        if not scans and data[position] == 0xFF and data[position + 1] in _HEADER:
            start = position + 2  # as usual in a header: one behind another
        elif match := _MARKER.search(data, position):
            start = match.end()
        else:
            return None
        marker = data[start - 1]
        segments += 1
        if not scans:
            # Pillow's own parser, in Python, reads byte by byte what lies between.
            segments += start - 2 - position
        if segments > MAX_SEGMENTS:
            return segments, "segments", MAX_SEGMENTS
        if marker == 0xD9:
            return None
        if marker == 0xDA:
            scans += 1
            # Of a baseline JPEG whose first scan has all colours, decoders read no other: there is
            # no need to look for them in megabytes.
            if scans == 1 and not is_progressive and data[start + 2] == components:
                return None
            limit = max(10, min(MAX_SCANS, MAX_SCAN_PIXELS // max(1, pixels)))
            if scans > limit:
                return scans, "scans", limit
            # Few, even with those that only look like it: no need to find each.
            if scans == 1 and data.count(b"\xff\xda", start) < limit:
                return None
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 3)
            pixels = max(pixels, height * width)
            is_progressive |= marker not in (0xC0, 0xC1)
            components = data[start + 7]
        exifs += marker == 0xE1 and data.startswith(b"Exif", start + 2)
        if exifs > MAX_EXIF_SEGMENTS:
            return exifs, "EXIF segments", MAX_EXIF_SEGMENTS
        position = start
        if marker != 0xD8:
            position += max(2, data[start] << 8 | data[start + 1])


def _check_png(data: bytes) -> _Problem:
    limit, chunks, notes, position = _segment_limit(data), 0, 0, 8
    while (kind := data[position + 4 : position + 8]) not in (b"", b"IEND"):
        chunks += 1
        notes += kind in (b"zTXt", b"iTXt", b"iCCP")
        if chunks > limit:
            return chunks, "chunks", limit
        if notes > MAX_PACKED_NOTES:
            return notes, "packed notes", MAX_PACKED_NOTES
        position += 12 + int(struct.unpack_from(">I", data, position)[0])
    return None


def _check_gif(data: bytes) -> _Problem:
    limit, blocks, comments, flags = _segment_limit(data), 0, 0, data[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    while position < len(data) and data[position] not in b",;":
        is_extension = data[position] == 0x21
        is_comment = is_extension and data[position + 1] == 0xFE
        position += 2 if is_extension else 1
        blocks += 1
        while is_extension and (length := data[position]):
            position += 1 + length
            blocks += 1
            comments += is_comment
            if comments > MAX_COMMENTS:
                return comments, "comments", MAX_COMMENTS
        position += is_extension
        if blocks > limit:
            return blocks, "blocks", limit
    return None


def _check_tiff(data: bytes) -> _Problem:
    order, big = "<" if data[:1] == b"I" else ">", data[2:4] in (b"+\0", b"\0+")
    head, entry, room = ("Q", "HHQQ", 8) if big else ("H", "HHII", 4)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + head, data, start)
    start += struct.calcsize("=" + head)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(min(entries, 65_535)):
        place = start + index * struct.calcsize("=" + entry)
        tag, kind, count, value = struct.unpack_from(order + entry, data, place)
        if tag in _TILE_OFFSETS and count > MAX_TILES:
            return count, "tiles", MAX_TILES
        if tag in _TIFF_TAGS and kind in _TIFF_KINDS and count <= MAX_TILES:
            form = f"{order}{count}{_TIFF_KINDS[kind]}"
            is_inside = struct.calcsize(form) <= room
            tags[tag] = struct.unpack_from(
                form, data, place + (12 if big else 8) if is_inside else value
            )
    if tags.get(259, (1,))[0] not in (6, 7):  # compressed as JPEGs, each of which has scans
        return None
    offsets = tags.get(273) or tags.get(324, ())
    sizes = tags.get(279) or tags.get(325) or (len(data),) * len(offsets)
    pixels = tags.get(256, (0,))[0] * tags.get(257, (0,))[0]
    limit = max(10, min(MAX_SCANS, MAX_SCAN_PIXELS // max(1, pixels)))
    left = 4 * len(data)
    for offset, size in {*zip(offsets, sizes, strict=False)}:
        left -= min(size, len(data))
        scans = data.count(b"\xff\xda", offset, offset + size)
        if scans > limit:
            return scans, "scans", limit
        if left < 0:
            return len(offsets), "overlapping tiles", 4
    return None


def _check_bmp(data: bytes) -> _Problem:
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    pixels, limit = abs(width * height), MAX_RUN_LENGTH_PIXELS
    return (pixels, "pixels", limit) if compression in (1, 2) and pixels > limit else None


def _check_jpeg2000(data: bytes) -> _Problem:
    for match in _CODESTREAM.finditer(data):  # one in a box of text is none, but costs little
        if problem := _check_codestream(data, match.start()):
            return problem
    return None


def _check_codestream(data: bytes, start: int) -> _Problem:
    width, height, _, _, *tiling, components = struct.unpack_from(">8IH", data, start + 8)
    tiles = -(-width // max(1, tiling[0])) * -(-height // max(1, tiling[1]))
    limit, segments, position, part = _segment_limit(data), 0, start + 2, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        segments += 1
        if segments > limit:
            return segments, "segments", limit
        if marker == _SOT:
            part = position + struct.unpack_from(">I", data, position + 6)[0]
        elif marker == _SOD:  # what follows is a tile's data, up to the next part
            if part <= position:
                return None
            position = part
            continue
        elif marker in (_COD, _COC):  # how all components are coded, or one
            style = position + (4 if marker == _COD else 5 + (components > 256))
            layers = struct.unpack_from(">H", data, style + 2)[0] if marker == _COD else 1
            levels = style + (5 if marker == _COD else 1)
            count = data[levels] + 1
            sizes = data[levels + 5 : levels + 5 + count] if data[style] & 1 else b"\xff" * count
            precincts = 0
            for level, size in enumerate(reversed(sizes)):
                across, down = level + (size & 15), level + (size >> 4)
                precincts += max(tiles, ((width >> across) + 1) * ((height >> down) + 1))
            precincts *= components
            if precincts > MAX_PRECINCTS:
                return precincts, "precincts", MAX_PRECINCTS
            if precincts * layers > MAX_PACKETS:
                return precincts * layers, "packets", MAX_PACKETS
        position += 2 + length
    return None


def _check_pnm(data: bytes) -> _Problem:
    comments = data.count(b"#")
    return (comments, "comments", MAX_COMMENTS) if comments > MAX_COMMENTS else None


_CHECKS: dict[bytes, Callable[[bytes], _Problem]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG": _check_png,
    b"GIF8": _check_gif,
    b"II": _check_tiff,
    b"MM": _check_tiff,
    b"BM": _check_bmp,
    b"\xff\x4f\xff\x51": _check_jpeg2000,
    b"\0\0\0\x0cjP": _check_jpeg2000,
    b"P1": _check_pnm,
    b"P2": _check_pnm,
    b"P3": _check_pnm,
}
