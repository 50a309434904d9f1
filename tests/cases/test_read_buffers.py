"""A file costs the memory that it needs, and what is no picture is not read to its end."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from soutu import fs
from soutu.errors import BadCaptions, BadImage
from soutu.fs import FileTooLarge, read_regular_file, read_stream
from soutu.images.captions import read_captions
from soutu.images.decode import read_file
from tests.pictures import encoded
from tests.serving import ROOT

LIMIT = 2_000_000_000


class Stream(io.BytesIO):
    """Notes the largest number of bytes that it was asked for."""

    most = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size >= 0, "all at once"
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize("length", [0, 1, 100, 70_000, 1_000_000])
@pytest.mark.parametrize("claim", [0, 1, 100, 1_000_000])
def test_as_much_is_asked_for_as_there_is(length, claim):
    data = os.urandom(length)
    stream = Stream(data)
    assert read_stream(stream, claim, LIMIT) == data
    assert stream.most <= max(claim + 1, 2 * length, 1 << 16)


@pytest.mark.parametrize("claim", [0, 5, 10, 11, 500])
def test_a_stream_beyond_the_limit_is_refused(claim):
    assert read_stream(Stream(bytes(10)), claim, 10) == bytes(10)
    with pytest.raises(FileTooLarge):
        read_stream(Stream(bytes(11)), claim, 10)


def test_a_file_that_grows_meanwhile_is_read_whole(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"1" * 10)
    status = os.stat_result((*os.stat(file)[:6], 4, *os.stat(file)[7:]))  # noqa: PTH116
    monkeypatch.setattr(os, "fstat", lambda _: status)
    assert read_regular_file(file, 100) == b"1" * 10


def test_short_memory_is_the_fault_of_the_one_file(tmp_path, monkeypatch):
    def refuse(*_: object) -> bytes:
        raise MemoryError

    file = tmp_path / "captions.csv"
    file.write_text("image_path,caption\n", "utf-8")
    monkeypatch.setattr(fs, "min", refuse, raising=False)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        read_regular_file(file, 100)
    assert caught.value.errno == errno.ENOMEM
    with pytest.raises(BadImage) as image:
        read_file(file, name="a.jpg")
    assert image.value.code == "image-no-memory"
    with pytest.raises(BadCaptions):
        read_captions(file, tmp_path)


LIMITED = """
import resource, sys
from soutu.cli import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("workers", ["1", "8"])
def test_pictures_are_indexed_where_addresses_are_limited(tmp_path, workers):
    """Half of what one buffer of two gigabytes took, and one a thread."""
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(
            encoded(Image.new("RGB", (64, 48), (number * 10, 0, 0)), "JPEG")
        )
    command = ["index", str(tmp_path), "--model", "tiny", "--workers", workers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(2_000_000_000), *command],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "20 pictures found" in done.stderr


@pytest.mark.parametrize("head", [b"\0\0\0\x20ftypisom", b"RIFF____AVI LIST", b"PK\3\4", bytes(16)])
def test_of_a_long_file_that_is_no_picture_only_the_head_is_read(tmp_path, monkeypatch, head):
    file = tmp_path / "video.jpg"
    with file.open("wb") as out:
        out.write(head)
        out.truncate(1_900_000_000)  # takes no room on the disk
    monkeypatch.setattr(fs, "read_stream", lambda *_: pytest.fail("read to the end"))
    with pytest.raises(BadImage) as caught:
        read_file(file, name="video.jpg")
    assert caught.value.code == "image-unknown"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"])
def test_long_pictures_are_read_whole(tmp_path, form):
    data = encoded(Image.new("RGB", (8, 8), "red"), form)
    (tmp_path / "long.jpg").write_bytes(data + bytes(1_000_000))
    assert len(read_file(tmp_path / "long.jpg")) == len(data) + 1_000_000


def test_any_content_can_be_asked_for(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(bytes(500_000))
    assert len(read_file(tmp_path / "a.jpg", any_content=True)) == 500_000
