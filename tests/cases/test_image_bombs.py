"""Files in which few bytes would cost a decoder much time are refused before a pixel is decoded;
what cameras and editors write, however odd, is not."""

import io
import struct
import zlib
from contextlib import suppress

import pytest
from PIL import Image

from soutu.errors import BadImage
from soutu.images import bombs
from soutu.images.decode import decode, read_header


def encoded(form, size=(64, 64), mode="RGB", **options):
    out = io.BytesIO()
    Image.new(mode, size).save(out, form, **options)
    return out.getvalue()


def frames(mode, count):
    return [Image.new(mode, (64, 64), f"rgb({n % 256}, 0, 0)") for n in range(count)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_scans(count, size=(64, 64), **options):
    """A JPEG whose last scan is repeated; each costs as many bytes whatever the picture's size."""
    data = encoded("JPEG", size, **{"progressive": True, **options})
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def jpeg_with(*segments):
    data = encoded("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker, data=b""):
    return bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data


def png_with(*chunks):
    data = encoded("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def gif_with(data):
    gif = encoded("GIF", mode="P")
    start = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 128 else 0)
    return gif[:start] + data + gif[start:]


def tiff(strips, big=False):
    """A grey TIFF of so many strips of one row, all of them the same."""
    tags = [(256, 4, 1, 8), (257, 4, 1, strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, strips, 0), (277, 3, 1, 1), (278, 4, 1, 1)]  # fmt: skip
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    entry, count, last = ("<HHQQ", "<Q", "<Q") if big else ("<HHII", "<H", "<I")
    place = len(head) + struct.calcsize(count) + len(tags) * struct.calcsize(entry)
    place += struct.calcsize(last)
    tags[5] = (273, 4, strips, place)
    body = b"".join(struct.pack(entry, *tag) for tag in tags)
    offsets = struct.pack("<I", 8) * strips
    return head + struct.pack(count, len(tags)) + body + struct.pack(last, 0) + offsets


def jpeg_tiff(jpeg, width, height, rows):
    """A TIFF whose strips are JPEGs; all of them the same one."""
    count = height // rows
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 0), (259, 3, 1, 7), (262, 3, 1, 6),
            (273, 4, count, 0), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, count, 0)]  # fmt: skip
    base = 8 + 2 + 12 * len(tags) + 4
    start = base + 8 + 8 * count
    places = {258: base, 273: base + 8, 279: base + 8 + 4 * count}
    if count == 1:
        places |= {273: start, 279: len(jpeg)}
    body = b"".join(struct.pack("<HHII", t, k, n, places.get(t, v)) for t, k, n, v in tags)
    arrays = struct.pack("<4H", 8, 8, 8, 0) + struct.pack("<I", start) * count
    arrays += struct.pack("<I", len(jpeg)) * count
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + body + struct.pack("<I", 0) + arrays + jpeg


def bmp(width, height):
    """A run-length encoded BMP: a pixel in each row, then its end."""
    rows = b"\x01\x05\0\0" * height + b"\0\x01"
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 256
    )  # fmt: skip
    file = b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078)
    return file + info + b"\1\2\3\0" * 256 + rows


def jpeg2000(side=2000, precinct=None, layers=1, boxed=False):
    """With the coding style changed, as no encoder here writes it."""
    data = bytearray(encoded("JPEG2000", (side, side), no_jp2=not boxed))
    style = data.index(b"\xff\x52")
    data[style + 6 : style + 8] = struct.pack(">H", layers)
    if precinct is not None:
        resolutions = data[style + 9] + 1
        data[style + 4] |= 1
        data[style + 14 : style + 14] = bytes([precinct]) * resolutions
        data[style + 2 : style + 4] = struct.pack(">H", 12 + resolutions)
    return bytes(data)


BOMBS = {
    "a JPEG of 101 scans": lambda: with_scans(101),
    "a JPEG of 5,000 scans": lambda: with_scans(5000),
    "a grey JPEG of many scans": lambda: with_scans(200, mode="L"),
    "scans behind a segment that hides them": lambda: with_scans(200).replace(
        b"\xff\xdb", segment(0xFE, b"\xff\xd9" * 9) + b"\xff\xdb", 1
    ),
    "scans behind padding": lambda: with_scans(200).replace(b"\xff\xda", b"\xff\xff\xff\xda"),
    "few scans of very many pixels": lambda: with_scans(60, (9000, 9000)),
    "a JPEG of a million comments": lambda: jpeg_with(segment(0xFE) * 1_000_000),
    "a JPEG of 100 EXIF blocks": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + b"x" * 60_000) * 99),
    "a JPEG with junk before its pixels": lambda: jpeg_with(segment(0xFE) + b"\0" * 5_000_000),
    "a PNG of a million empty IDATs": lambda: png_with(chunk(b"IDAT", b"") * 1_000_000),
    "a PNG of a million notes": lambda: png_with(chunk(b"tEXt", b"a\0b") * 1_000_000),
    "a PNG of packed notes": lambda: png_with(
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6))) * 2000
    ),
    "a GIF of a million comments": lambda: gif_with(b"!\xfe\1x\0" * 1_000_000),
    "a GIF with a comment in pieces": lambda: gif_with(b"!\xfe" + b"\1x" * 1_000_000 + b"\0"),
    "a GIF of a million extensions": lambda: gif_with(b"!\xff\0" * 1_000_000),
    "a TIFF of a million strips": lambda: tiff(1_000_000),
    "a BigTIFF of a million strips": lambda: tiff(1_000_000, big=True),
    "a TIFF with a JPEG of many scans": lambda: jpeg_tiff(with_scans(101), 64, 64, 64),
    "one of many strips": lambda: jpeg_tiff(with_scans(60, (9000, 90)), 9000, 9000, 90),
    "a run-length encoded BMP": lambda: bmp(30_000, 1000),
    "a JPEG 2000 of tiny precincts": lambda: jpeg2000(precinct=0x11),
    "a boxed one": lambda: jpeg2000(precinct=0x00, boxed=True),
    "one behind another": lambda: jpeg2000(16, boxed=True) + jpeg2000(precinct=0),
    "a JPEG 2000 of many layers": lambda: jpeg2000(4000, precinct=0x66, layers=65_535),
    "a PPM of a million comments": lambda: b"P3\n4 4 255\n" + b"#\n" * 1_000_000 + b"1 " * 48,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name):
    data = BOMBS[name]()
    with pytest.raises(BadImage) as caught:
        decode(data, name="pics/a.jpg", min_side=32)
    assert caught.value.code == "image-bomb"
    assert caught.value.fields["count"] > caught.value.fields["limit"]
    assert "pics/a.jpg" in str(caught.value)
    for language in ("en", "zh"):
        assert str(caught.value.fields["count"]) in caught.value.message(language)
    assert read_header(data, "a.jpg").width == 0


def test_further_scans_of_a_baseline_jpeg_are_not_read():
    """Its decoder stops behind the first, so that they cost nothing, however many there are."""
    for count in (2, 5000):
        with pytest.raises(BadImage) as caught:
            decode(with_scans(count, progressive=False), min_side=32)
        assert caught.value.code == "image-damaged"


def camera_jpeg():
    """A preview in its EXIF, another behind the end, and a film behind that."""
    preview = encoded("JPEG", (320, 240))
    exif = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + preview)
    film = b"\xff\xda\0\x0c\1\2\3" * 100_000
    return jpeg_with(exif, *[segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))] * 50) + preview + film


FINE = {
    "a JPEG of 100 scans": lambda: with_scans(100),
    "a JPEG of a camera": camera_jpeg,
    "a JPEG with restart markers": lambda: encoded("JPEG", restart_marker_blocks=1),
    "a JPEG with comments": lambda: jpeg_with(segment(0xFE, b"note") * 500),
    "a progressive CMYK JPEG": lambda: encoded("JPEG", mode="CMYK", progressive=True),
    "a PNG of many small IDATs": lambda: png_with(chunk(b"IDAT", b"") * 5000),
    "a PNG with notes": lambda: png_with(chunk(b"tEXt", b"a\0b") * 5000),
    "a GIF of 500 frames": lambda: encoded(
        "GIF", mode="P", save_all=True, append_images=frames("P", 500)
    ),
    "a GIF with a long comment": lambda: gif_with(b"!\xfe" + (b"\xff" + b"x" * 255) * 900 + b"\0"),
    "a GIF with XMP": lambda: gif_with(b"!\xff\x0bXMP DataXMP" + b"\x20" + b"x" * 32 + b"\0"),
    "a TIFF of 5,000 strips": lambda: tiff(5000),
    "a TIFF of JPEGs": lambda: jpeg_tiff(encoded("JPEG", (640, 8)), 640, 4000, 8),
    "a TIFF of one progressive JPEG": lambda: jpeg_tiff(with_scans(20), 64, 64, 64),
    "a BigTIFF": lambda: tiff(50, big=True),
    "a run-length encoded BMP": lambda: bmp(200, 200),
    "a WebP of 50 frames": lambda: encoded(
        "WEBP", save_all=True, append_images=frames("RGB", 50)
    ),
    "a JPEG 2000 of tiles": lambda: encoded("JPEG2000", (512, 512), tile_size=(64, 64)),
    "a JPEG 2000 of precincts": lambda: encoded("JPEG2000", (512, 512), precinct_size=(64, 64)),
    "a JPEG 2000 of layers": lambda: encoded("JPEG2000", quality_layers=[40, 20, 10, 5]),
    "a PPM with comments": lambda: b"P3\n# a\n# b\n1 1 255\n1 2 3\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_is_only_odd_is_decoded(name):
    assert decode(FINE[name]()).width >= 1


@pytest.mark.parametrize("name", [*BOMBS, *FINE])
def test_a_part_of_a_file_raises_nothing_else(name):
    """Wherever it ends: the reader says what is wrong, the check does not."""
    data = {**BOMBS, **FINE}[name]()[:3000]
    for end in range(2, len(data), 97):
        with suppress(BadImage):
            bombs.check_cost(data[:end], "a")
