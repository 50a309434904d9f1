"""An encoding is remembered for the file it was given with, and yields to UTF-8."""

import threading

import pytest

from soutu.errors import BadCaptions
from soutu.gallery import Gallery
from tests.cases.commands import pictures

TEXTS = {"gbk": "灰猫", "gb18030": "红色汽车", "big5": "紅色汽車", "euc-jp": "灰色の猫",
         "cp949": "회색 고양이",
         "latin-1": "un été à l'île", "cp1252": "l’œuvre d’été", "koi8-r": "серый кот",
         "utf-16": "灰猫", "utf-16-le": "plain", "hz": "灰猫", "iso2022_jp": "灰色"}  # fmt: skip


@pytest.fixture
def gallery(tmp_path):
    with Gallery.open(pictures(tmp_path / "g", "a.png"), settings={"model": "tiny"}) as opened:
        yield opened


def write(gallery, name, text, encoding):
    file = gallery.root / name
    file.write_bytes(f"image_path,caption\na.png,{text}\n".encode(encoding))
    return file


def caption(gallery):
    return gallery.search("cat").hits[0].caption


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_same_file_needs_its_encoding_only_once(gallery, encoding):
    report = gallery.index(write(gallery, "c.csv", TEXTS[encoding], encoding), encoding=encoding)
    assert report.notes == ()
    for report in (gallery.index(), gallery.index(gallery.root / "c.csv")):
        assert (caption(gallery), report.notes) == (TEXTS[encoding], ())


@pytest.mark.parametrize("encoding", TEXTS)
def test_another_file_is_utf8_unless_somebody_says_otherwise(gallery, encoding):
    gallery.index(write(gallery, "c.csv", TEXTS[encoding], encoding), encoding=encoding)
    for text in ("灰猫", "été", "кот", "odd 红", "plain"):
        report = gallery.index(write(gallery, "new.csv", text, "utf-8"))
        assert caption(gallery) == text
        assert [note.code for note in report.notes] in (["captions-replaced"], [])
        gallery.index()
        assert caption(gallery) == text
    if encoding not in ("hz", "iso2022_jp", "utf-16-le"):  # whose bytes are ASCII
        with pytest.raises(BadCaptions):
            gallery.index(write(gallery, "third.csv", TEXTS[encoding], encoding))
    gallery.index(gallery.root / "c.csv", encoding=encoding)
    assert caption(gallery) == TEXTS[encoding]


@pytest.mark.parametrize("encoding", [e for e in TEXTS if e not in ("utf-16-le",)])
@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_is_saved_as_utf8_is_read_as_that(gallery, encoding, named):
    file = write(gallery, "c.csv", TEXTS[encoding], encoding)
    gallery.index(file, encoding=encoding)
    text = "灰猫在雪地" if max(TEXTS[encoding]) > "\u2e80" else TEXTS[encoding]
    write(gallery, "c.csv", text, "utf-8")
    report = gallery.index(file if named else None)
    assert (caption(gallery), [note.code for note in report.notes]) == (text, ["captions-utf8"])
    assert encoding in str(report.notes[0])
    report = gallery.index()
    assert (caption(gallery), report.notes) == (text, ()), "said once"


def test_a_rebuild_reads_as_a_run_does(gallery):
    gallery.index(write(gallery, "c.csv", "灰猫", "gbk"), encoding="gbk")
    gallery.rebuild()
    assert caption(gallery) == "灰猫"
    write(gallery, "c.csv", "红色的猫", "utf-8")
    report = gallery.rebuild()
    assert [note.code for note in report.index.notes] == ["captions-utf8"]
    assert caption(gallery) == "红色的猫"
    assert gallery.index().notes == ()


def test_a_watched_file_may_become_utf8(gallery):
    pytest.importorskip("watchfiles", reason="needs the extra watch")
    file = write(gallery, "c.csv", "灰猫", "gb18030")
    stop = threading.Event()
    reports = gallery.watch(file, encoding="gb18030", stop=stop)
    assert next(reports).captions == 1
    write(gallery, "c.csv", "红色的猫", "utf-8")
    report = next(reports)
    assert [note.code for note in report.notes] == ["captions-utf8"]
    stop.set()
    assert caption(gallery) == "红色的猫"
