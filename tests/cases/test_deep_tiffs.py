"""TIFFs of floats, 32 bits, greys with alpha, spot colours: read where the layout is plain."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from soutu import Gallery
from soutu.errors import BadImage
from soutu.images.decode import decode, read_header
from tests.pictures import encoded

HEIGHT, WIDTH = 37, 52
NONE, LZW, DEFLATE = 1, 5, 8
FORMATS = {"u": 1, "i": 2, "f": 3}


def colours(samples=3):
    """Bytes (height, width, samples) of gentle ramps."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ramps = [rows * 6, columns * 4, 255 - rows * 3, 40 + columns * 2, rows + columns]
    return np.stack(ramps[:samples], axis=-1).astype(np.uint8)


def pack(rows, packing):
    """Compress the rows (n, bytes) of a strip."""
    if packing == NONE:
        return rows.tobytes()
    if packing == DEFLATE:
        return zlib.compress(rows.tobytes())
    stream = io.BytesIO()
    Image.fromarray(rows).save(stream, "TIFF", compression="tiff_lzw", strip_size=1 << 30)
    with Image.open(stream) as image:
        (offset,), (length,) = image.tag_v2[273], image.tag_v2[279]
    return stream.getvalue()[offset : offset + length]


def predict(values, predictor, order):
    """Bytes of rows (n, width, samples) as a writer with this predictor has them."""
    size = values.dtype.itemsize
    if predictor == 2:
        whole = values.view(f"u{size}")
        values = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    ordered = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(order)))
    raw = ordered.view(np.uint8).reshape(len(values), -1)
    if predictor == 3:
        big = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">")))
        planes = big.view(np.uint8).reshape(len(values), -1, size).transpose(0, 2, 1)
        deltas = planes.reshape(len(values), -1, values.shape[2])
        raw = np.diff(deltas, axis=1, prepend=np.zeros_like(deltas[:, :1])).reshape(len(values), -1)
    return np.ascontiguousarray(raw)


def tiff(values, photometric=2, *, packing=NONE, predictor=1, order="<", planar=False, rows=10,
         tile=0, extra=(), big=False, more=()):  # fmt: skip
    """A TIFF of values (height, width, samples) of any type."""
    height, width, samples = values.shape
    planes = [values[..., n : n + 1] for n in range(samples)] if planar else [values]
    pieces = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)), "edge")
            for top, left in itertools.product(
                range(0, len(padded), tile), range(0, padded.shape[1], tile)
            ):
                part = padded[top : top + tile, left : left + tile]
                pieces.append(pack(predict(np.ascontiguousarray(part), predictor, order), packing))
        else:
            for top in range(0, height, rows):
                part = np.ascontiguousarray(plane[top : top + rows])
                pieces.append(pack(predict(part, predictor, order), packing))
    bits = values.dtype.itemsize * 8
    place, number = 16 if big else 8, "Q" if big else "I"
    lengths = [len(piece) for piece in pieces]
    offsets = [place + sum(lengths[:n]) for n in range(len(pieces))]
    body = b"".join(pieces)
    body += bytes(len(body) % 2)
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [packing]),
        262: (3, [photometric]), 277: (3, [samples]), 284: (3, [2 if planar else 1]),
        317: (3, [predictor]), 339: (3, [FORMATS[values.dtype.kind]] * samples), **dict(more),
    }  # fmt: skip
    if tile:
        tags |= {
            322: (4, [tile]),
            323: (4, [tile]),
            324: (4, offsets),
            325: (4, [*map(len, pieces)]),
        }
    else:
        tags |= {273: (4, offsets), 278: (4, [rows]), 279: (4, [*map(len, pieces)])}
    if extra:
        tags[338] = (3, list(extra))
    directory = struct.pack(order + ("Q" if big else "H"), len(tags))
    behind = (
        place + len(body) + len(directory) + len(tags) * (20 if big else 12) + (8 if big else 4)
    )
    further, room = b"", 8 if big else 4
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(data) > room:
            data, further = struct.pack(order + number, behind + len(further)), further + data
            further += bytes(len(further) % 2)
        directory += struct.pack(order + "HH" + number, tag, kind, len(numbers)) + data.ljust(
            room, b"\0"
        )
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, place + len(body))
    else:
        head = mark + struct.pack(order + "HI", 42, place + len(body))
    return head + body + directory + bytes(room) + further


def typed(eight, kind):
    """The same picture in another type, at its usual white."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return (eight / 255).astype(dtype)
    return eight.astype(dtype) if dtype.itemsize == 1 else eight.astype(dtype) * 257


def close(rgb, expected, limit=1):
    return np.abs(rgb.astype(int) - expected).max() <= limit


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [NONE, LZW, DEFLATE])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u4", "i4", "u8"])
def test_colours_of_any_type(kind, packing, order):
    data = tiff(typed(colours(), kind), packing=packing, order=order)
    assert close(decode(data).rgb, colours())
    assert read_header(data, "a.tif").width == WIDTH


@pytest.mark.parametrize("kind", ["f8", "u2", "i2", "f2"])
def test_greys_of_any_type(kind):
    grey = colours(1)
    values = typed(grey, kind) if kind != "i2" else grey.astype("i2")
    rgb = decode(tiff(values, photometric=1)).rgb
    whole = grey * 1.0 if kind != "i2" else grey / 257
    assert close(rgb, whole.repeat(3, axis=2), 2)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "predictor"), [("f4", 3), ("f2", 3), ("f8", 3), ("u4", 2), ("f4", 2)]
)
@pytest.mark.parametrize("tile", [0, 16, 32])
@pytest.mark.parametrize("packing", [LZW, DEFLATE])
def test_predictors(kind, predictor, tile, packing, order):
    values = typed(colours(), kind)
    data = tiff(values, packing=packing, predictor=predictor, tile=tile, order=order)
    assert close(decode(data).rgb, colours())


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("packing", [NONE, DEFLATE])
@pytest.mark.parametrize("rows", [1, 7, 37, 100])
def test_planes_one_after_the_other(rows, packing, tile):
    data = tiff(typed(colours(), "f4"), planar=True, rows=rows, packing=packing, tile=tile)
    assert close(decode(data).rgb, colours())


@pytest.mark.parametrize("big", [False, True])
def test_files_with_room_for_more_than_four_gigabytes(big):
    assert close(decode(tiff(typed(colours(), "f4"), big=big)).rgb, colours())


@pytest.mark.parametrize("kind", ["u2", "f4", "u4"])
@pytest.mark.parametrize("photometric", [1, 2])
def test_transparency_lies_on_white(photometric, kind):
    samples = 2 if photometric == 1 else 4
    values = colours(samples)
    values[..., -1] = 255
    values[:, : WIDTH // 2, -1] = 0
    rgb = decode(tiff(typed(values, kind), photometric, extra=(2,))).rgb
    assert (rgb[:, : WIDTH // 2] == 255).all()
    assert close(rgb[:, WIDTH // 2 :], values[:, WIDTH // 2 :, : samples - 1])


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_spot_colours_are_left_out(kind):
    assert close(decode(tiff(typed(colours(5), kind), extra=(0, 0))).rgb, colours())
    inks = colours(5)
    expected = np.asarray(Image.fromarray(inks[..., :4], "CMYK").convert("RGB"))
    assert close(decode(tiff(typed(inks, kind), 5, extra=(0,))).rgb, expected, 2)


@pytest.mark.parametrize("order", ["<", ">"])
def test_lab_of_16_bits(order):
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    values[..., 0] = 60 * 65535 // 100
    values[:, :20, 1] = 70 * 256  # red
    values[:, 30:, 1] = np.array(-70 * 256).astype(np.int16).view(np.uint16)  # green
    rgb = decode(tiff(values, 8, order=order)).rgb
    assert rgb[5, 5, 0] > rgb[5, 5, 1] + 80
    assert rgb[5, 45, 1] > rgb[5, 45, 0] + 80


def test_black_is_255_where_the_file_says_so():
    grey = colours(1)
    assert close(decode(tiff(typed(grey, "f8"), 0)).rgb, 255 - grey.repeat(3, axis=2).astype(int))


def test_highlights_beyond_white_do_not_darken_the_picture():
    values = typed(colours(), "f4")
    values[0, 0], values[1, 1] = 40.0, np.inf
    values[2, 2] = np.nan
    rgb = decode(tiff(values)).rgb
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert close(rgb[10:], colours()[10:])


@pytest.mark.parametrize(("orientation", "size"), [(1, (52, 37)), (6, (37, 52)), (3, (52, 37))])
def test_it_is_turned_upright(orientation, size):
    data = tiff(typed(colours(), "f4"), more=[(274, (3, [orientation]))])
    decoded = decode(data)
    assert (decoded.width, decoded.height) == size
    turns = {1: 0, 6: 3, 3: 2}[orientation]
    assert close(decoded.rgb, np.rot90(colours(), turns))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.zeros((9, 9, 3), "f4"), {"photometric": 32844}),
        (np.zeros((9, 9, 2), "c8").view("f4"), {"photometric": 9}),
        (np.zeros((9, 9, 7), "f4"), {"photometric": 4}),
    ],
)
def test_what_is_not_read_is_named_as_such_and_not_as_damage(values, options):
    for lang in ("en", "zh"):
        with pytest.raises(BadImage) as caught:
            decode(tiff(values, **options), name="a.tif")
        assert caught.value.code == "image-rare"
        assert "TIFF" in caught.value.message(lang)


def test_the_limit_counts_its_bytes():
    data = tiff(typed(colours(), "f8"))
    with pytest.raises(BadImage) as caught:
        decode(data, max_pixels=HEIGHT * WIDTH * 6 - 1)
    assert caught.value.code == "image-too-large"
    assert decode(data, max_pixels=HEIGHT * WIDTH * 6).width == WIDTH
    lying = data.replace(
        struct.pack("<HHII", 256, 4, 1, WIDTH), struct.pack("<HHII", 256, 4, 1, 2**31)
    )
    with pytest.raises(BadImage):
        decode(lying)


def test_hostile_bytes_raise_nothing_else():
    chance = random.Random(4)
    sources = [tiff(typed(colours(), "f4"), packing=p, predictor=q, tile=t)
               for p, q, t in ((1, 1, 0), (8, 3, 16), (5, 2, 0))]  # fmt: skip
    for _ in range(300):
        data = bytearray(chance.choice(sources))
        for _ in range(chance.choice((1, 2, 6))):
            place = len(data) - chance.randrange(300) - 1 if chance.random() < 0.8 else 0
            data[place or chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode(bytes(data), max_pixels=1_000_000)
        except BadImage:
            continue


def test_index_reads_them(tmp_path):
    for kind in ("f4", "u4", "f2"):
        (tmp_path / f"{kind}.tif").write_bytes(tiff(typed(colours(), kind)))
    (tmp_path / "plain.png").write_bytes(encoded(Image.fromarray(colours())))
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as gallery:
        assert gallery.index().encoded == 4
        hits = gallery.search(tmp_path / "plain.png", k=4)
    assert min(hit.score for hit in hits) > 0.99
