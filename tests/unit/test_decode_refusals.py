"""Decoding: caps, damage and names: each refusal names the cure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from soutu.errors import BadImage
from soutu.images.decode import content_hash, decode, read_file
from tests.pictures import encoded, scene


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(scene(), "PNG"))
    assert decode(file).width == 32


def test_the_cap_is_on_pixels_and_inclusive() -> None:
    data = encoded(scene())
    assert decode(data, max_pixels=512).width == 32
    with pytest.raises(BadImage) as caught:
        decode(data, max_pixels=511, name="pics/a.png")
    assert caught.value.code == "image-too-large"
    assert caught.value.fields == {"path": "pics/a.png", "width": 32, "height": 16, "limit": 511}


def test_the_cap_is_checked_before_any_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def decoding(self: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    with pytest.raises(BadImage, match="32 × 16"):
        decode(encoded(scene(), "JPEG"), max_pixels=10)


def test_running_out_of_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def starving(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", starving)
    with pytest.raises(BadImage) as caught:
        decode(encoded(scene(), "JPEG"))
    assert caught.value.code == "image-no-memory"


def test_one_reading_serves_hash_and_pixels(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(scene()))
    data = read_file(file)
    assert data == file.read_bytes()
    assert len(content_hash(data)) == 32
    assert content_hash(data) != content_hash(data + b"\0")
    assert (decode(data).rgb == decode(file).rgb).all()


def test_messages_use_the_name_shown(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"^pics/a\.jpg: "):
        read_file(tmp_path / "gone.jpg", name="pics/a.jpg")
    with pytest.raises(BadImage, match=r"gone\.jpg: "):
        decode(tmp_path / "gone.jpg")


def test_a_file_longer_than_allowed_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"12345")
    assert read_file(file, max_bytes=5) == b"12345"
    with pytest.raises(BadImage) as caught:
        read_file(file, max_bytes=4)
    assert caught.value.code == "image-file-too-large"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_file_that_claims_to_be_shorter_than_it_is() -> None:
    with pytest.raises(BadImage) as caught:
        read_file(Path("/proc/self/maps"), max_bytes=4)
    assert caught.value.code == "image-file-too-large"


def test_a_codec_that_pillow_was_built_without(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene(), "PNG")
    factory, _ = Image.OPEN["PNG"]
    monkeypatch.setitem(Image.OPEN, "PNG", (factory, lambda prefix: "PNG support not installed"))
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert caught.value.code == "image-unknown"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(scene()))
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything (root)")
    with pytest.raises(BadImage, match="Permission denied"):
        read_file(file)
