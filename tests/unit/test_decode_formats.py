"""HEIC and cameras' raw files, with their extras and without."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from soutu.errors import BadImage
from soutu.images.decode import decode
from soutu.images.scan import has_image_suffix
from tests.conftest import picture

QUARTERS = np.zeros((120, 160, 3), np.uint16)
QUARTERS[:60, :80, 0] = QUARTERS[:60, 80:, 1] = QUARTERS[60:, :80, 2] = 50_000
QUARTERS[60:, 80:] = 40_000


def dng(pixels, orientation=1):
    """A raw file as the DNG specification describes it: one uncompressed RGGB mosaic."""
    height, width, _ = pixels.shape
    mosaic = pixels[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = pixels[0::2, 0::2, 0], pixels[1::2, 1::2, 2]
    strip, one = mosaic.tobytes(), (1_000_000, 1_000_000)
    to_xyz = [3240970, -1537383, -498611, -969243, 1875967, 41555, 55630, -203976, 1056971]
    tags = [
        (254, "I", [0]), (256, "I", [width]), (257, "I", [height]), (258, "H", [16]),
        (259, "H", [1]), (262, "H", [32803]), (271, "s", b"Soutu\0"), (272, "s", b"Test\0"),
        (273, "I", [0]), (274, "H", [orientation]), (277, "H", [1]), (278, "I", [height]),
        (279, "I", [len(strip)]), (284, "H", [1]), (33421, "H", [2, 2]),
        (33422, "B", [0, 1, 1, 2]), (50706, "B", [1, 4, 0, 0]), (50708, "s", b"Soutu Test\0"),
        (50714, "H", [0]), (50717, "H", [65535]), (50721, "ii", [(n, 1_000_000) for n in to_xyz]),
        (50728, "II", [one] * 3), (50778, "H", [21]),
    ]  # fmt: skip
    kinds = {"B": 1, "s": 2, "H": 3, "I": 4, "II": 5, "ii": 10}
    directory, further = struct.pack("<H", len(tags)), b""
    begin = 8 + 2 + 12 * len(tags) + 4
    packed = []
    for tag, kind, values in tags:
        if kind == "s":
            data, count = values, len(values)
        else:
            rows = [v if isinstance(v, tuple) else (v,) for v in values]
            data, count = b"".join(struct.pack(f"<{kind}", *row) for row in rows), len(values)
        packed.append((tag, kinds[kind], count, data))
    total = sum(len(d) + len(d) % 2 for *_, d in packed if len(d) > 4)
    for tag, kind, count, data in packed:
        if tag == 273:
            data = struct.pack("<I", begin + total)
        if len(data) > 4:
            place, further = begin + len(further), further + data + b"\0" * (len(data) % 2)
            data = struct.pack("<I", place)
        directory += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + further + strip


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(stream, quality=95, **options)
    return stream.getvalue()


def test_heic_is_read():
    image = picture(3, 300, 200)
    found = decode(heic(image), name="x.heic")
    assert (found.width, found.height) == (300, 200)
    assert np.abs(found.rgb.astype(int) - image.astype(int)).mean() < 4


def test_heic_is_known_by_its_content_and_turned_upright():
    exif = Image.Exif()
    exif[274] = 6
    found = decode(heic(picture(3, 300, 200), exif=exif.tobytes()), name="x.jpg")
    assert (found.width, found.height) == (200, 300)


@pytest.mark.parametrize("cut", [20, 200, 3000])
def test_a_broken_heic_is_named(cut):
    with pytest.raises(BadImage, match=r"x\.heic"):
        decode(heic(picture(3, 300, 200))[:cut], name="x.heic")


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (160, 120)), (6, (120, 160)), (3, (160, 120))]
)
def test_raw_files_are_developed_upright(orientation, size):
    pytest.importorskip("rawpy", reason="needs the extra raw")
    found = decode(dng(QUARTERS, orientation), name="x.DNG")
    assert (found.width, found.height) == size
    corners = [found.rgb[r, c] for r in (10, -10) for c in (10, -10)]
    brightest = [int(np.argmax(corner)) for corner in corners]
    upright = {1: [0, 1, 2], 6: [2, 0, None, 1], 3: [None, 2, 1, 0]}[orientation]
    assert all(b == e for b, e in zip(brightest, upright, strict=False) if e is not None)


def test_a_raw_file_that_is_too_large_or_broken_is_named():
    pytest.importorskip("rawpy", reason="needs the extra raw")
    with pytest.raises(BadImage, match="160"):
        decode(dng(QUARTERS), name="x.dng", max_pixels=10_000)
    with pytest.raises(BadImage, match=r"x\.dng"):
        decode(dng(QUARTERS)[:100], name="x.dng")


@pytest.mark.parametrize(
    ("module", "extra", "name", "data"),
    [("rawpy", "raw", "x.nef", b"II*\0"),
     ("pillow_heif", "heic", "x.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")],
)  # fmt: skip
def test_without_its_extra_a_format_names_it(monkeypatch, module, extra, name, data):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadImage, match=rf"soutu\[{extra}\]"):
        decode(data, name=name)
    assert has_image_suffix(name)
