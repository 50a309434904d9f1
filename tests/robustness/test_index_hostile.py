"""A folder full of trouble: indexing names each thing, counts it, goes on and exits 0."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from tests.conftest import picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and links as POSIX has them")


def _huge_png() -> bytes:
    """20,000 × 20,000 px in a few hundred kilobytes: one zero row after the other."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    squeeze = zlib.compressobj(9)
    row = bytes(20_000 // 8 + 1)
    body = b"".join(squeeze.compress(row) for _ in range(20_000)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def trouble(photos):
    """``photos`` with one of everything that goes wrong in real folders."""
    whole = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("not a picture")
    (photos / "huge.png").write_bytes(_huge_png())
    os.mkfifo(photos / "pipe.jpg")
    (photos / "dangling.jpg").symlink_to("nowhere.jpg")
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "around").symlink_to(photos, target_is_directory=True)
    (photos / "folder.jpg").mkdir()
    Image.fromarray(picture(50)).save(photos / "folder.jpg" / "inside.png")
    return photos


TROUBLE = (
    "cut.jpg", "empty.jpg", "text.jpg", "huge.png", "pipe.jpg", "dangling.jpg", "loop.jpg",
    "folder.jpg", "around",
)  # fmt: skip


def _soutu(*arguments):
    command = [sys.executable, "-c", "from soutu.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, env=environment, timeout=100, text=True)


def test_each_is_named_and_counted_and_the_rest_is_indexed(trouble):
    done = _soutu("index", trouble, "--model", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failed"] == len(TROUBLE)
    assert (report["found"], report["encoded"]) == (7, 4)  # three are files, but no pictures
    for name in TROUBLE:
        named = [line for line in done.stderr.splitlines() if line.startswith(f"skipped: {name}")]
        assert len(named) == 1, f"{name}: {named}"
    assert "9 unreadable" in done.stderr
    assert "Warning" not in done.stderr
    found = _soutu("search", "cat", "-g", trouble, "-k", 99, "--paths-only").stdout.splitlines()
    assert sorted(os.path.relpath(p, trouble) for p in found) == [
        "a.jpg", "b.png", "folder.jpg/inside.png", "sub/c.webp"
    ]  # fmt: skip


def test_a_second_run_names_them_again_and_encodes_nothing(trouble):
    _soutu("index", trouble, "--model", "tiny")
    report = json.loads(_soutu("index", trouble, "--json").stdout)
    assert (report["encoded"], report["failed"], report["unchanged"]) == (0, len(TROUBLE), 4)


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (b"image_path, caption\na.jpg,x\n", "space"),
        ("image_path，caption\na.jpg，x\n".encode(), "，"),
        ("image_path,caption\na.jpg，灰猫\n".encode(), "，"),
        ("image_path,caption\na.jpg,灰猫\n".encode("gbk"), "--encoding gb18030"),
        ("image_path,caption\na.jpg,灰猫\n".encode("utf-16"), "--encoding utf-16"),
        (b"image_path,caption\na.jpg\n", "2"),
        (b"image_path,caption\na.jpg,x,y\n", "2"),
        (b"image_path,caption\n../../out.jpg,x\n", "out.jpg"),
    ],
)
def test_captions_in_doubt_are_exit_2_and_nothing_is_written(photos, content, cure):
    file = photos / "captions.csv"
    file.write_bytes(content)
    done = _soutu("index", photos, "--model", "tiny", "--captions", file)
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert cure in done.stderr
    assert not (photos / ".soutu").exists()


def test_the_named_encoding_cures_it(photos):
    file = photos / "captions.csv"
    file.write_bytes("image_path,caption\na.jpg,灰猫\n".encode("gbk"))
    options = ("--model", "tiny", "--captions", file, "--encoding", "gb18030")
    assert _soutu("index", photos, *options).returncode == 0
    assert "灰猫" in _soutu("caption", photos / "a.jpg", "-g", photos).stdout
    assert _soutu("index", photos).returncode == 0, "the encoding is remembered"


def test_soft_faults_are_named_with_their_line_and_skipped(photos):
    rows = "image_path,caption\na.jpg,x\nnone.jpg,y\nb.png,\na.jpg,x\n"
    (photos / "captions.csv").write_text(rows, "utf-8")
    done = _soutu(
        "index", photos, "--model", "tiny", "--captions", photos / "captions.csv", "--json"
    )
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["captions"], report["caption_problems"]) == (1, 3)
    for line in (3, 4, 5):
        assert f":{line}" in done.stderr or f"line {line}" in done.stderr


def test_a_killed_run_leaves_an_index_that_works(photos, tmp_path):
    for number in range(60):
        Image.fromarray(picture(200 + number, 900, 700)).save(photos / f"{number:02d}.png")
    command = [sys.executable, "-c", "from soutu.cli import main; main()", "index", str(photos)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SOUTU_MODEL": "tiny"}
    run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    journal = photos / ".soutu" / "spaces"
    while run.poll() is None and not any(journal.glob("*/images.f32")):
        pass
    run.kill()
    run.wait()
    report = json.loads(_soutu("index", photos, "--model", "tiny", "--json").stdout)
    assert report["found"] == 63
    assert _soutu("search", "cat", "-g", photos, "-k", 99, "--paths-only").stdout.count("\n") == 63
    shutil.rmtree(photos / ".soutu")
