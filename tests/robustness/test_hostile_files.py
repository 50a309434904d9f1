"""Files that people really have, or that someone sends on purpose: each is named, the
rest goes on, nothing hangs and nothing but BadImage comes out."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, features

from soutu.errors import BadImage
from soutu.images.decode import DecodedImage, decode, read_file
from soutu.images.scan import ImageFile, walk

posix = pytest.mark.skipif(os.name == "nt", reason="pipes, links and raw names as POSIX has them")
FORMS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF"]


def picture(form: str = "JPEG") -> bytes:
    if form in {"WEBP", "AVIF"} and not features.check(form.lower()):
        pytest.skip(f"this Pillow has no {form}")
    noise = random.Random(7).randbytes(40 * 30 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (40, 30), noise).save(out, form)
    return out.getvalue()


def huge_png(width: int = 20_000, height: int = 20_000) -> bytes:
    """The header of a 400-megapixel picture with hardly any pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


# A HEIC of which only the head is there: read where its extra is installed.
HEIC_HEAD = "image-damaged" if find_spec("pillow_heif") else "image-needs-extra"
CONTENT: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.jpg": (lambda: picture()[:-300], "image-truncated"),
    "head-only.jpg": (lambda: picture()[:60], "image-truncated"),
    "cut.png": (lambda: picture("PNG")[:-300], "image-truncated"),
    "empty.jpg": (lambda: b"", "image-empty"),
    "text.jpg": (lambda: "这不是图片 this is no picture\n".encode(), "image-unknown"),
    "page.png": (lambda: b"<!DOCTYPE html><html>404</html>", "image-unknown"),
    "script.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image-unknown"),
    "heic.jpg": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", HEIC_HEAD),
    "huge.png": (huge_png, "image-too-large"),
    "wide.png": (lambda: huge_png(2**31 - 1, 2**31 - 1), "image-too-large"),
    "zeros.jpg": (lambda: bytes(4096), "image-unknown"),
    "magic.jpg": (lambda: b"\xff\xd8\xff", "image-damaged"),
    "wrong-sum.png": (lambda: picture("PNG").replace(b"IDAT", b"IDAX", 1), "image-damaged"),
}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with one whole picture among everything that is none."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "whole.jpg").write_bytes(picture())
    for name, (make, _) in CONTENT.items():
        (root / name).write_bytes(make())
    (root / "a.jpg").mkdir()
    (root / "a.jpg" / "inner.jpg").write_bytes(picture())
    if os.name != "nt":
        os.mkfifo(root / "pipe.jpg")
        (root / "dangling.jpg").symlink_to("nowhere.jpg")
        (root / "loop1.jpg").symlink_to("loop2.jpg")
        (root / "loop2.jpg").symlink_to("loop1.jpg")
        (tmp_path / "secret.jpg").write_bytes(picture())
        (root / "leak.jpg").symlink_to("../secret.jpg")
    return root


def attempt(data: bytes, max_pixels: int = 1_000_000) -> DecodedImage | BadImage:
    try:
        return decode(data, max_pixels=max_pixels)
    except BadImage as error:
        return error


def survey(root: Path) -> dict[str, str]:
    """What an index run would say of each path: "ok" or the code."""
    outcome: dict[str, str] = {}
    for found in walk(root):
        if isinstance(found, BadImage):
            assert str(found)
            outcome[str(found.fields["path"])] = found.code
            continue
        try:
            decode(root / found.path, name=found.path)
            outcome[found.path] = "ok"
        except BadImage as error:
            outcome[found.path] = error.code
    return outcome


def test_each_is_named_and_the_whole_ones_are_decoded(hostile: Path) -> None:
    expected = {name: code for name, (_, code) in CONTENT.items()}
    expected |= {"whole.jpg": "ok", "a.jpg": "image-is-folder", "a.jpg/inner.jpg": "ok"}
    if os.name != "nt":
        expected |= {
            "pipe.jpg": "image-not-file",
            "dangling.jpg": "image-link-dangling",
            "loop1.jpg": "image-link-loop",
            "loop2.jpg": "image-link-loop",
            "leak.jpg": "image-link-outside",
        }
    assert survey(hostile) == expected


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_message_names_the_file(hostile: Path, lang: str) -> None:
    for name, (_, code) in CONTENT.items():
        with pytest.raises(BadImage) as caught:
            decode(hostile / name, name=name)
        assert caught.value.code == code
        message = caught.value.message(lang)
        assert message.startswith(name)
        assert "{" not in message


@posix
def test_a_file_name_that_is_no_text_survives(tmp_path: Path) -> None:
    raw = b"\xb9\xb7\xff.jpg"
    file = tmp_path / os.fsdecode(raw)
    try:
        file.write_bytes(picture())
    except OSError:
        pytest.skip("this file system takes only text as names")
    (found,) = walk(tmp_path)
    assert isinstance(found, ImageFile)
    assert os.fsencode(found.path) == raw
    assert decode(tmp_path / found.path).width == 40
    file.write_bytes(b"")
    (wrong,) = walk(tmp_path)
    assert isinstance(wrong, BadImage)
    assert str(wrong).encode("utf-8", "surrogateescape").startswith(raw)


@posix
@pytest.mark.parametrize("read", [read_file, decode])
def test_a_pipe_does_not_block(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    codes: list[str] = []

    def reading() -> None:
        with pytest.raises(BadImage) as caught:
            read(tmp_path / "pipe.jpg")
        codes.append(caught.value.code)

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert codes == ["image-not-file"]


@posix
def test_a_socket_and_a_folder_are_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the system allows only short names for sockets
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        (found,) = walk(tmp_path)
        assert isinstance(found, BadImage)
        assert found.code == "image-not-file"
        for path in (tmp_path / "s.jpg", tmp_path):
            with pytest.raises(BadImage) as caught:
                read_file(path)
            assert caught.value.code == "image-not-file"


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_cut_anywhere_is_refused_or_whole(form: str) -> None:
    data = picture(form)
    refused = 0
    for size in range(1, len(data), max(1, len(data) // 60)):
        outcome = attempt(data[:size])
        if isinstance(outcome, BadImage):
            refused += 1
            assert outcome.code in {"image-truncated", "image-damaged", "image-unknown"}
        else:
            assert outcome.rgb.shape == (30, 40, 3)
    assert refused > 50


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes_never_raise_anything_else(form: str) -> None:
    data = picture(form)
    chance = random.Random(11)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 3, 20))):
            # Headers are where decoders go wrong, so half of the hits go there.
            reach = len(data) if chance.random() < 0.5 else min(len(data), 64)
            damaged[chance.randrange(reach)] = chance.randrange(256)
        outcome = attempt(bytes(damaged))
        if isinstance(outcome, BadImage):
            assert str(outcome)
        else:
            assert outcome.rgb.shape == (outcome.height, outcome.width, 3)
