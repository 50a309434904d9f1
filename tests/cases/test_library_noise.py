"""What decoders write to the screen by themselves names no file: none of it is shown."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings

import pytest
from PIL import Image, TiffImagePlugin

from soutu.images.noise import silence_libraries
from tests.pictures import encoded, scene
from tests.serving import MAIN, ROOT, served

DEBUG = {"SOUTU_DEBUG": "1"}


def odd_tiff():
    """Deflate packing, so that libtiff reads it, and tags that it complains of."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282], tags.tagtype[282] = 7, 3  # a resolution that is no fraction
    tags[33723], tags.tagtype[33723] = b"\0" * 9, 7
    tags[36867], tags.tagtype[36867] = b"2024", 7
    data = encoded(scene(), "TIFF", compression="tiff_lzw", tiffinfo=tags)
    return data.replace(struct.pack("<HHI", 282, 3, 1), struct.pack("<HHI", 282, 7, 40_000))


FILES = {
    "exif.jpg": encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "odd.tif": odd_tiff(),
    "short.tif": encoded(scene(), "TIFF", compression="tiff_deflate")[:-150],
    "cut.tif": encoded(scene(), "TIFF", compression="tiff_lzw")[:400],
    "broken.dng": b"II*\0\x08\0\0\0" + encoded(scene(), "TIFF")[8:600],
    "whole.png": encoded(scene()),
    "palette.png": encoded(scene().quantize(8), "PNG", transparency=bytes([9] * 8)),
}


@pytest.fixture
def gallery(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "raw.dng").write_bytes(_cut_raw())
    return tmp_path


def _cut_raw():
    from tests.unit.test_decode_formats import QUARTERS, dng

    return dng(QUARTERS)[:-9000]


def run(*command, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8", **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=env, capture_output=True, text=True
    )


def test_the_report_is_all_that_index_says(gallery):
    done = run("-c", MAIN, "index", gallery, "--model", "tiny")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    names = [file.name for file in gallery.iterdir()]
    strange = [line for line in lines if not any(name in line for name in names)]
    assert [line for line in strange if line.startswith("skipped")] == []
    assert len(strange) <= 3, strange  # what was found, and how it is searched
    assert "TIFF" not in done.stderr
    assert "Warning" not in done.stderr
    assert "PIL" not in done.stderr


def test_there_was_something_to_be_silent_about(gallery):
    done = run("-c", MAIN, "index", gallery, "--model", "tiny", **DEBUG)
    assert "PIL" in done.stderr or "TIFF" in done.stderr


def test_a_search_by_a_noisy_picture_says_nothing_of_it(gallery):
    run("-c", MAIN, "index", gallery, "--model", "tiny")
    done = run("-c", MAIN, "search", "--image", gallery / "exif.jpg", "-g", gallery, "-k", 1)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_says_nothing_of_it(gallery):
    run("-c", MAIN, "index", gallery, "--model", "tiny")
    with served(gallery):
        pass
    log = (gallery / "serve.log").read_text("utf-8")
    assert "http://" in log, "its own words are there"
    assert "PIL" not in log


def test_errors_go_on():
    done = run("-c", MAIN, "index", "/nowhere/at/all", "--model", "tiny")
    assert done.returncode == 2
    assert "/nowhere/at/all" in done.stderr
    crash = "import soutu.images.noise as n; n.silence_libraries(); raise ValueError('own words')"
    assert "own words" in run("-c", crash).stderr
    import_logging = "import logging; logging.error('a log line')"
    code = f"import soutu.images.noise as n; n.silence_libraries(); {import_logging}"
    assert "a log line" in run("-c", code).stderr


@pytest.mark.parametrize("closing", ["sys.stderr.close()", "sys.stderr = None", "os.close(2)"])
def test_a_closed_stream_is_no_crash(closing):
    code = f"import os, sys; {closing}; import soutu.images.noise as n; n.silence_libraries()"
    done = run("-c", code + "; n.silence_libraries(); print('fine')")
    assert done.stdout == "fine\n"


def test_names_that_are_no_text_are_still_written(tmp_path):
    name = os.fsdecode(b"\xff\xfe.jpg")
    try:
        (tmp_path / name).write_bytes(b"nothing")
    except OSError:
        pytest.skip("this file system takes only text as names")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", MAIN, "index", str(tmp_path), "--model", "tiny"]
    done = subprocess.run(command, env=env, capture_output=True)
    assert b"\xff\xfe.jpg" in done.stderr


def test_in_a_process_of_tests_only_the_warnings_change():
    before = sys.stderr
    with warnings.catch_warnings():
        silence_libraries()
        assert any(entry[0] == "ignore" for entry in warnings.filters)
    assert sys.stderr is before or sys.stderr.fileno() == before.fileno()
    assert Image.new("RGB", (1, 1))
