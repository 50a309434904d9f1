"""Read TIFFs whose samples Pillow has no mode for: floats, 32 bits, greys with alpha, spot colours.

Pillow's decoder unpacks them as bytes, by a directory of our own behind the file; what they mean is
worked out here.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from soutu.errors import BadImage

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_STRIPS, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_BIG = (b"+\0", b"\0+")  # of files beyond 4 GB, or that could have been
_ORIENTATION, _PROFILE = 274, 34675
_PACKINGS = (1, 5, 8, 32946, 32773, 34925, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
_KINDS = {
    (8, 1): "u1", (16, 1): "u2", (32, 1): "u4", (64, 1): "u8", (16, 2): "i2", (32, 2): "i4",
    (16, 3): "f2", (32, 3): "f4", (64, 3): "f8",
}  # fmt: skip
"""Sample types by bits and sample format."""
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4, 8: 3}
"""Samples of a colour by photometric interpretation: greys, RGB, inks, Lab."""
_MAX_SAMPLES = 64
Values = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How the samples of a TIFF lie in it; ``width`` and ``height`` as stored."""

    width: int
    height: int
    samples: int
    dtype: np.dtype[Any]
    photometric: int
    predictor: int
    compression: int
    is_planar: bool
    alpha: int  # 0: none, 1: the colours are multiplied by it, 2: they are not
    pieces: tuple[tuple[int, int], ...]  # offsets and lengths of strips or tiles
    piece_size: tuple[int, int]  # width and rows of each
    is_tiled: bool
    orientation: int
    profile: bytes

    @property
    def cost(self) -> int:
        """Return how many pixels of Pillow take as much memory."""
        return self.width * self.height * max(1, self.samples * self.dtype.itemsize // 4)


def read_layout(data: bytes, name: str) -> Layout:
    """Read a TIFF's first directory; BadImage for a layout that ``read_pixels`` does not know."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:4] in _BIG else 8])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    bits, formats = _numbers(tags, _BITS, 1), _numbers(tags, _FORMAT, 1)
    samples, photometric = _number(tags, _SAMPLES, 1), _number(tags, _PHOTOMETRIC, 1)
    width, height = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0)
    if not (width and height):  # as in a directory that is not there
        raise EOFError
    kind = _KINDS.get((bits[0], formats[0])) if len({*bits}) == len({*formats}) == 1 else None
    compression, predictor = _number(tags, _COMPRESSION, 1), _number(tags, _PREDICTOR, 1)
    colours = _COLOURS.get(photometric, _MAX_SAMPLES + 1)
    is_tiled = _TILES in tags
    offsets, lengths = (_numbers(tags, tag, 0) for tag in (
        (_TILES, _TILE_BYTES) if is_tiled else (_STRIPS, _STRIP_BYTES)
    ))  # fmt: skip
    known = kind and compression in _PACKINGS and predictor in (1, 2, 3) and offsets
    if not (known and colours <= samples <= _MAX_SAMPLES and len(offsets) == len(lengths)):
        form = {1: "uint", 2: "int", 3: "float"}.get(formats[0], "?")
        what = (
            f"{samples} × {bits[0]} bits {form}, photometric {photometric}, packing {compression}"
        )
        raise BadImage("image-rare", path=name, kind=f"TIFF ({what})")
    extra, profile = _number(tags, _EXTRA, 0), tags.get(_PROFILE)
    return Layout(
        width,
        height,
        samples,
        np.dtype(("<" if data[:1] == b"I" else ">") + str(kind)),
        photometric,
        predictor,
        compression,
        _number(tags, _PLANAR, 1) == 2 and samples > 1,
        extra if extra in (1, 2) and samples > colours else 0,
        tuple(zip(offsets, lengths, strict=True)),
        (_number(tags, _TILE_WIDTH, 0), _number(tags, _TILE_HEIGHT, 0))
        if is_tiled
        else (width, min(height, _number(tags, _STRIP_ROWS, height))),
        is_tiled,
        _number(tags, _ORIENTATION, 1),
        profile if isinstance(profile, bytes) else b"",
    )


def read_pixels(data: bytes, layout: Layout) -> Image.Image:
    """Decode the pixels of a TIFF to an image of 8 bits: L, RGB, CMYK or LAB."""
    planes = layout.samples if layout.is_planar else 1
    count = len(layout.pieces) // planes
    parts = [
        _unpack(data, layout, layout.pieces[plane * count : (plane + 1) * count])
        for plane in range(planes)
    ]
    values = np.concatenate(parts, axis=2) if planes > 1 else parts[0]
    colours = _COLOURS[layout.photometric]
    eight = _to_eight_bits(values[..., :colours], layout.photometric)
    if layout.photometric == 0:
        eight = 255 - eight
    if layout.alpha and layout.photometric in (0, 1, 2):
        eight = _lay_on_white(eight, values[..., colours : colours + 1], layout.alpha)
    size = layout.width, layout.height
    if layout.photometric == 8:
        return Image.frombytes("LAB", size, eight.tobytes())
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours]
    return Image.frombytes(mode, size, eight.tobytes())


def _number(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    return _numbers(tags, tag, default)[0]


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> list[int]:
    value = tags.get(tag, default)
    return [int(v) for v in value] or [default] if isinstance(value, tuple) else [int(value)]


def _unpack(data: bytes, layout: Layout, pieces: tuple[tuple[int, int], ...]) -> Values:
    """Return the values (height, width, samples) in these strips or tiles."""
    samples = 1 if layout.is_planar else layout.samples
    step = samples * layout.dtype.itemsize
    piece_width, piece_rows = layout.piece_size
    across = -(-layout.width // piece_width)
    row = across * piece_width * step
    image = _open_as_bytes(data, layout, pieces, row, piece_width * step, piece_rows)
    rows = np.frombuffer(image.tobytes(), np.uint8)
    rows = rows.reshape(layout.height, across, piece_width, samples, layout.dtype.itemsize)
    if layout.predictor == 3:
        rows = _undo_float_prediction(rows, layout.dtype)
    values: Values = np.ascontiguousarray(rows).view(layout.dtype)[..., 0]
    if layout.predictor == 2:
        integers = f"u{layout.dtype.itemsize}"
        order = layout.dtype.str[0]
        whole = values.view(f"{order}{integers}") if layout.dtype.kind == "f" else values
        dtype = np.dtype(integers) if layout.dtype.kind != "i" else layout.dtype.newbyteorder("=")
        summed = np.cumsum(whole, axis=2, dtype=dtype)
        values = summed.view(layout.dtype.newbyteorder("=")) if layout.dtype.kind == "f" else summed
    return values.reshape(layout.height, -1, samples)[:, : layout.width]


def _undo_float_prediction(rows: Values, dtype: np.dtype[Any]) -> Values:
    """Put the bytes of floats together again: differences, the highest bytes of a row first."""
    height, across, width, samples, size = rows.shape
    deltas = rows.reshape(height, across, width * size, samples)
    planes = np.cumsum(deltas, axis=2, dtype=np.uint8).reshape(height, across, size, width, samples)
    joined: Values = planes.transpose(0, 1, 3, 4, 2)
    return joined if dtype.str[0] == ">" else joined[..., ::-1]


def _open_as_bytes(
    data: bytes,
    layout: Layout,
    pieces: tuple[tuple[int, int], ...],
    row: int,
    piece_row: int,
    piece_rows: int,
) -> Image.Image:
    """Let Pillow unpack strips or tiles as greys of 8 bits, ``row`` of them in a row."""
    order = "<" if data[:1] == b"I" else ">"
    start = len(data) + len(data) % 2
    arrays = [
        struct.pack(f"{order}{len(pieces)}I", *column) for column in zip(*pieces, strict=True)
    ]
    offsets, lengths = (_TILES, _TILE_BYTES) if layout.is_tiled else (_STRIPS, _STRIP_BYTES)
    tags = {
        _WIDTH: row, _HEIGHT: layout.height, _BITS: 8, _COMPRESSION: layout.compression,
        _PHOTOMETRIC: 1, _SAMPLES: 1, _PLANAR: 1,
    }  # fmt: skip
    if layout.is_tiled:
        tags |= {_TILE_WIDTH: piece_row, _TILE_HEIGHT: piece_rows}
    else:
        tags[_STRIP_ROWS] = piece_rows
    behind = start + 2 + 12 * (len(tags) + 2) + 4
    entries = {tag: struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items()}
    for tag, array in zip((offsets, lengths), arrays, strict=True):
        place = struct.pack(order + "I", behind) if len(pieces) > 1 else array
        entries[tag] = struct.pack(order + "HHI", tag, 4, len(pieces)) + place
        behind += len(array)
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    head = data[:2] + struct.pack(order + "H", 42) + struct.pack(order + "I", start)
    whole = b"".join([head, data[8:], bytes(len(data) % 2), directory, *arrays])
    with TiffImagePlugin.TiffImageFile(io.BytesIO(whole)) as image:
        image.load()
        unpacked: Image.Image = image.copy()
    return unpacked


_WHITES = {"f": (1.0, 255.0, 65535.0), "u": (65535.0,), "i": (65535.0,)}


def _to_eight_bits(values: Values, photometric: int) -> NDArray[np.uint8]:
    if values.dtype.kind == "u" and values.dtype.itemsize == 1:
        return np.ascontiguousarray(values).astype(np.uint8)
    if photometric == 8:  # lightness to 255, colours about 0: Pillow takes these bytes
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        eight: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return eight
    return scale_to_eight_bits(values, _WHITES[values.dtype.kind])


def scale_to_eight_bits(values: Values, whites: tuple[float, ...]) -> NDArray[np.uint8]:
    """Scale values without an agreed white to uint8.

    The smallest of ``whites`` that holds nearly all values is used (highlights may be beyond it),
    and else the range from the darkest to the brightest.
    """
    numbers = values.astype(np.float32)
    numbers[~np.isfinite(numbers)] = 0
    low, high = float(numbers.min()), float(numbers.max())
    bright = float(np.percentile(numbers, 99)) if high > whites[0] else high
    for white in whites:
        if low >= 0 and bright <= white:
            low, high = 0.0, white
            break
    span = (high - low) or 1.0
    numbers -= low
    numbers *= 255.0 / span
    scaled: NDArray[np.uint8] = np.clip(np.rint(numbers), 0, 255).astype(np.uint8)
    return scaled


def _lay_on_white(colours: NDArray[np.uint8], alpha: Values, kind: int) -> NDArray[np.uint8]:
    share = _to_eight_bits(alpha, 1).astype(np.uint16)
    product = colours * share // 255 if kind == 2 else colours.astype(np.uint16)
    laid: NDArray[np.uint8] = np.minimum(product + 255 - share, 255).astype(np.uint8)
    return laid
