"""Files are chosen by the ending of their names; those passed over are counted."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from soutu import Gallery
from soutu.images.scan import has_image_suffix, suffix_of
from tests.pictures import encoded

JPEG = encoded(Image.new("RGB", (40, 30), "red"), "JPEG")
READ = ["a.jpg", "a.JPEG", "a.mpo", "a.jps", "a.apng", "a.dib", "a.jpf", "a.jpx", "a.j2c", "a.jpc",
        "a.avifs", "a.heics", "a.pef", "a.SRW", "a.nrw", "a.3fr", "a.iiq", "a.x3f", "a.rwl",
        "a.gpr", "a.jpg_large", "a.jif", "trail.jpg ", "dot.jpg.", "two.tar.jpg"]  # fmt: skip
OTHER = ["b.mov", "b.MOV", "c.mp4", "d.txt", "e.jxl", "f.psd", "g.svg", "noext", "h.jpg.1", "i.",
         "notes.csv"]  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_endings_that_are_read(name):
    assert has_image_suffix(name)


@pytest.mark.parametrize("name", [*OTHER, "jpg", ".", "..", "", "x.jpgx"])
def test_endings_that_are_not(name):
    assert not has_image_suffix(name)


def test_what_an_ending_is():
    names = {"a.JPG": "jpg", "a.tar.gz": "gz", "noext": "", "a.": "", "a.jpg ": "jpg", " . ": ""}
    assert {name: suffix_of(name) for name in names} == names


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(READ):
        try:
            (root / name).write_bytes(JPEG + bytes(number))
        except OSError:
            continue
    for name in OTHER:
        (root / "sub" / name).write_bytes(b"no picture")
    (root / ".hidden.mov").write_bytes(b"")
    return root


def test_all_of_them_are_indexed_and_the_others_counted(folder):
    with Gallery.open(folder, settings={"model": "tiny"}) as gallery:
        report = gallery.index()
    assert report.failed == ()
    assert report.files == len(list(folder.iterdir())) - 3  # sub, .hidden.mov and .soutu
    assert dict(report.other_files) == {
        "mov": 2, "mp4": 1, "txt": 1, "jxl": 1, "psd": 1, "svg": 1, "": 2, "1": 1, "csv": 1
    }  # fmt: skip


def test_the_command_says_so(folder, soutu):
    code, out, err = soutu("index", folder, "--model", "tiny", "--json")
    assert code == 0
    assert json.loads(out)["other_files"]["mov"] == 2
    assert "11 other files" in err
    assert ".mov 2" in err


def test_the_captions_file_is_no_other_file(folder, soutu):
    captions = folder / "captions.csv"
    captions.write_text("image_path,caption\na.jpg,红色\n", "utf-8")
    with Gallery.open(folder, settings={"model": "tiny"}) as gallery:
        assert gallery.index(captions).other_files["csv"] == 1
        captions.write_text("image_path,caption\na.jpg,red\n", "utf-8")
        assert gallery.index().other_files["csv"] == 1
        assert gallery.plan().omissions.other_files["csv"] == 1


def test_a_folder_of_pictures_alone_says_nothing(tmp_path, soutu):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    code, out, err = soutu("index", tmp_path, "--model", "tiny", "--json")
    assert (code, json.loads(out)["other_files"]) == (0, {})
    assert "other files" not in err
