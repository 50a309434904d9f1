"""Notes beside whole pixels cost the note, not the picture; memory stays bounded."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from soutu import Gallery
from soutu.errors import BadImage
from soutu.images.decode import decode, read_header
from soutu.images.repair import clean_png
from tests.pictures import encoded, scene

HEAD = b"\x89PNG\r\n\x1a\n"
PIXELS = np.asarray(scene())


def chunk(kind, body, checksum=None, length=None):
    right = zlib.crc32(kind + body)
    length = len(body) if length is None else length
    return (
        struct.pack(">I", length)
        + kind
        + body
        + struct.pack(">I", right if checksum is None else checksum)
    )


def with_chunks(*chunks, behind=False, picture=None):
    """The scene with these chunks between header and pixels, or behind the pixels."""
    data = encoded(picture or scene())
    place = len(data) - 12 if behind else 33
    return data[:place] + b"".join(chunks) + data[place:]


def ztxt(text, method=0, keyword=b"workflow"):
    return chunk(b"zTXt", keyword + b"\0" + bytes([method]) + zlib.compress(text))


def itxt(text, packed=1, method=0, keyword=b"workflow"):
    body = zlib.compress(text) if packed else text
    return chunk(b"iTXt", keyword + b"\0" + bytes([packed, method]) + b"\0\0" + body)


def iccp(profile, method=0):
    return chunk(b"iCCP", b"profile\0" + bytes([method]) + zlib.compress(profile))


TWO_MB = bytes(range(256)) * 8000
BROKEN = {
    "profile of 1.5 MB": iccp(TWO_MB[:1_500_000]),
    "profile of 30 MB": iccp(bytes(30_000_000)),
    "profile of an unknown method": iccp(b"x" * 500, 1),
    "profile that is no zlib": chunk(b"iCCP", b"profile\0\0nothing packed"),
    "profile that ends early": chunk(b"iCCP", iccp(TWO_MB)[8:60]),
    "profile without a name": chunk(b"iCCP", b"profile"),
    "empty profile": chunk(b"iCCP", b""),
    "zTXt of 2 MB": ztxt(TWO_MB),
    "zTXt of 200 MB": ztxt(bytes(200_000_000)),
    "zTXt of an unknown method": ztxt(b"note", 9),
    "zTXt without a text": chunk(b"zTXt", b"workflow"),
    "empty zTXt": chunk(b"zTXt", b""),
    "iTXt of 2 MB, packed": itxt(TWO_MB),
    "iTXt of 2 MB": itxt(TWO_MB, 0),
    "iTXt of an unknown method": itxt(b"note", 1, 7),
    "iTXt without language": chunk(b"iTXt", b"workflow\0\0\0"),
    "iTXt that is no zlib": chunk(b"iTXt", b"workflow\0\1\0\0\0nothing"),
    "XMP of 3 MB": itxt(TWO_MB + TWO_MB, 1, keyword=b"XML:com.adobe.xmp"),
    "tEXt without a keyword": chunk(b"tEXt", b"\0note"),
    "tEXt of 72 MB in all": b"".join(chunk(b"tEXt", b"k\0" + b"x" * 900_000) for _ in range(80)),
    "many small texts": b"".join(chunk(b"tEXt", b"k\0" + b"x" * 60_000) for _ in range(90)),
    "tEXt of 4 MB": chunk(b"tEXt", b"key\0" + b"y" * 4_000_000),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "long tRNS": chunk(b"tRNS", bytes(300)),
    "short gAMA": chunk(b"gAMA", b"\0\0"),
    "short cHRM": chunk(b"cHRM", b"\0" * 7),
    "short pHYs": chunk(b"pHYs", b"\0" * 7),
    "empty pHYs": chunk(b"pHYs", b""),
    "short sRGB": chunk(b"sRGB", b""),
    "short tIME": chunk(b"tIME", b"1"),
    "empty eXIf": chunk(b"eXIf", b""),
    "eXIf of rubbish": chunk(b"eXIf", bytes(range(200))),
    "short acTL": chunk(b"acTL", b"\0"),
    "acTL of no frames": chunk(b"acTL", bytes(8)),
    "fcTL of another size": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9, 9, 9, 9, 1, 1, 0, 0)),
    "fdAT before all": chunk(b"fdAT", b"\0"),
    "unknown chunk": chunk(b"teSt", b"x" * 100),
    "unknown chunk of 20 MB": chunk(b"teSt", bytes(20_000_000)),
    **{
        f"{kind.decode()} with a wrong checksum": chunk(kind, body, 12345)
        for kind, body in {
            b"tEXt": b"key\0note", b"pHYs": bytes(9), b"gAMA": bytes(4), b"cHRM": bytes(32),
            b"sRGB": b"\0", b"tIME": bytes(7), b"tRNS": bytes(6), b"eXIf": b"II*\0",
            b"sBIT": b"123", b"bKGD": bytes(6), b"hIST": b"12", b"vpAg": bytes(9),
            b"iCCP": b"p\0\0" + zlib.compress(b"x"),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("note", BROKEN)
def test_a_broken_note_costs_the_note(note, behind):
    data = with_chunks(BROKEN[note], behind=behind)
    decoded = decode(data)
    assert (decoded.rgb == PIXELS).all()
    header = read_header(data, "a.png")
    assert (header.width, header.height) == (32, 16)


def test_all_of_them_at_once_cost_all_of_them(tmp_path):
    (tmp_path / "a.png").write_bytes(with_chunks(*BROKEN.values()))
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as gallery:
        assert gallery.index().encoded == 1


def test_what_is_kept_is_bounded():
    data, profile = clean_png(with_chunks(*BROKEN.values()))
    assert len(data) < 2_500_000
    assert len(profile) <= 4_000_000


@pytest.mark.parametrize("behind", [False, True])
def test_notes_that_are_read_stay(behind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    note = chunk(b"eXIf", exif.tobytes()[6:])
    decoded = decode(with_chunks(BROKEN["zTXt of 2 MB"], note, behind=behind))
    assert (decoded.width, decoded.height) == (16, 32)
    assert decoded.taken == "2024-05-06T07:08:09"
    assert read_header(with_chunks(note, behind=behind), "a.png").width == 16


def test_whole_transparency_stays():
    key = chunk(b"tRNS", struct.pack(">3H", *PIXELS[0, 0].tolist()))
    rgb = decode(with_chunks(key, BROKEN["short pHYs"])).rgb
    assert rgb[0, 0].tolist() == [255, 255, 255]
    palette = scene().quantize(8)
    data = encoded(palette, "PNG", transparency=bytes([0] * 8))
    assert (decode(data[:33] + BROKEN["tEXt of 4 MB"] + data[33:]).rgb == 255).all()


def test_an_animation_is_its_still_picture():
    second = Image.new("RGB", (32, 16), "red")
    data = encoded(scene(), "PNG", save_all=True, append_images=[second, second])
    assert b"acTL" in data
    assert (decode(data).rgb == PIXELS).all()
    other = encoded(scene(), "PNG", save_all=True, append_images=[second], default_image=True)
    assert (decode(other).rgb == PIXELS).all()


def test_an_ordinary_picture_is_not_copied():
    data = encoded(scene(), "PNG", dpi=(72, 72))
    assert clean_png(data)[0] is data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + bytes(20),
        encoded(scene())[:-60],
        with_chunks(chunk(b"tEXt", b"a\0b", length=2**31)),
        with_chunks(chunk(b"tEXt", b"a\0b", length=2**32 - 1)),
    ],
)
def test_what_is_no_whole_picture_stays_refused(data):
    clean_png(data)
    with pytest.raises(BadImage):
        decode(data)


def test_pixels_with_a_wrong_checksum_stay_refused():
    data = bytearray(encoded(scene()))
    data[data.index(b"IDAT") + 10] ^= 255
    with pytest.raises(BadImage):
        decode(bytes(data))


def test_flipped_bytes_raise_nothing_else():
    data = with_chunks(iccp(b"x" * 300), itxt(b"note"), ztxt(b"note"), chunk(b"pHYs", bytes(9)))
    chance = random.Random(3)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 4))):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        clean_png(bytes(damaged))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("rubbish", [b"", b"x", b"no profile at all", bytes(200_000)])
def test_rubbish_for_a_profile_costs_the_profile(form, rubbish):
    data = encoded(
        scene(), form, icc_profile=rubbish, **{"lossless": True} if form == "WEBP" else {}
    )
    assert decode(data).rgb.shape == (16, 32, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["TIFF", "WEBP"])
def test_rubbish_for_xmp_and_exif_costs_the_note(form):
    options = {"xmp": b"<x:xmpmeta" + bytes(99)} if form == "WEBP" else {}
    if form == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = b"<x:xmpmeta" + bytes(99)
        tags.tagtype[700] = 1
        options = {"tiffinfo": tags}
    else:
        options["exif"] = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    assert decode(encoded(scene(), form, **options)).rgb.shape == (16, 32, 3)
