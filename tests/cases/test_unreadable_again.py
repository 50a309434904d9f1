"""What could not be read is named at every run, and read again only when there is a reason."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from soutu import Gallery
from soutu.images import decode as decoding
from soutu.indexing import diff as differences
from tests.cases.commands import spy_on_reads
from tests.pictures import encoded

WHOLE = encoded(Image.radial_gradient("L").convert("RGB"), "JPEG")
BROKEN = {
    "cut.jpg": WHOLE[:-2000],
    "cut-copy.jpg": WHOLE[:-2000],
    "text.png": b"no picture at all",
    "damaged.png": encoded(Image.new("RGB", (9, 9))).replace(b"IDAT", b"IDAX"),
    "long.jpg": b"\0\0\0\x20ftypisom" + bytes(400_000),
}


@pytest.fixture
def gallery(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "whole.jpg").write_bytes(WHOLE)
    for name, data in BROKEN.items():
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def reads(monkeypatch):
    return spy_on_reads(monkeypatch)


def index(root, **options):
    with Gallery.open(root, settings={"model": "tiny"}) as opened:
        return opened.index(**options)


def failed(report):
    return {error.fields["path"]: error.code for error in report.failed}


def test_the_second_run_names_all_and_reads_none(gallery, reads):
    first = index(gallery)
    assert set(failed(first)) == set(BROKEN)
    assert sorted(reads) == sorted([*BROKEN, "whole.jpg"])
    reads.clear()
    for _ in range(2):
        again = index(gallery)
        assert failed(again) == failed(first)
        assert [str(e) for e in again.failed] != []
        assert (again.files, again.unchanged, again.encoded) == (6, 1, 0)
    assert reads == []


def test_the_messages_are_the_same_words(gallery):
    words = [{e.message(lang) for e in index(gallery).failed} for lang in ("zh", "zh")]
    assert words[0] == words[1]


def test_retry_reads_them_again(gallery, reads):
    index(gallery)
    reads.clear()
    assert set(failed(index(gallery, retry=True))) == set(BROKEN)
    assert sorted(reads) == sorted(BROKEN)
    reads.clear()
    index(gallery)
    assert reads == []


@pytest.mark.parametrize("keep_size", [True, False])
def test_a_file_that_changes_is_read_again(gallery, reads, keep_size):
    index(gallery)
    file = gallery / "text.png"
    data = encoded(Image.new("RGB", (5, 5), "blue"))
    size = file.stat().st_size
    file.write_bytes(b"another text here"[:size] if keep_size else data)
    os.utime(file, (2_000_000_000, 2_000_000_000))
    reads.clear()
    report = index(gallery)
    assert reads == ["text.png"]
    assert report.encoded == (0 if keep_size else 1)
    assert ("text.png" in failed(report)) == keep_size


def test_a_file_that_goes_is_forgotten_and_a_renamed_one_is_read(gallery, reads):
    index(gallery)
    (gallery / "cut.jpg").unlink()
    (gallery / "text.png").rename(gallery / "note.png")
    reads.clear()
    report = index(gallery)
    assert set(failed(report)) == {*BROKEN, "note.png"} - {"cut.jpg", "text.png"}
    assert reads == ["note.png"]


def test_another_limit_of_pixels_is_a_reason(gallery, reads):
    with Gallery.open(gallery, settings={"model": "tiny", "max_pixels": 100}) as opened:
        assert failed(opened.index())["whole.jpg"] == "image-too-large"
    reads.clear()
    assert "whole.jpg" not in failed(index(gallery))
    assert "whole.jpg" in reads


def test_another_version_is_a_reason(gallery, reads, monkeypatch):
    index(gallery)
    reads.clear()
    monkeypatch.setattr(differences, "VERSION", "99")
    index(gallery)
    assert sorted(reads) == sorted(BROKEN)


def test_what_may_pass_is_tried_every_time(gallery, reads, monkeypatch):
    """Permissions, memory and missing extras are no matter of the file's content."""
    for name in BROKEN:
        (gallery / name).unlink()

    def refuse(path, **options):
        raise decoding.BadImage("image-no-memory", path=path.name)

    with monkeypatch.context() as patch:
        patch.setattr(differences, "read_file", refuse)
        assert set(failed(index(gallery))) == {"whole.jpg"}
    assert index(gallery).encoded == 1


def test_a_dry_run_and_the_command_know_them_too(gallery, reads, soutu):
    assert soutu("index", gallery, "--model", "tiny")[0] == 0
    reads.clear()
    with Gallery.open(gallery) as opened:
        plan = opened.plan()
    assert (plan.encode, len(plan.unreadable)) == ([], len(BROKEN))
    code, _, err = soutu("index", gallery)
    assert (code, reads) == (0, [])
    assert all(name in err for name in BROKEN)
    code, _, err = soutu("index", gallery, "--retry")
    assert sorted(reads) == sorted(BROKEN)


def test_a_picture_that_was_read_and_breaks_keeps_its_last_good_state(gallery, reads):
    index(gallery)
    (gallery / "whole.jpg").write_bytes(WHOLE[:-3000])
    for _ in range(2):
        assert "whole.jpg" in failed(index(gallery))
    with Gallery.open(gallery) as opened:
        assert [hit.path for hit in opened.search("red", k=9)] == ["whole.jpg"]


def test_names_that_are_no_text_are_remembered(gallery, reads):
    file = gallery / os.fsdecode(b"\xff\xfe.jpg")
    try:
        file.write_bytes(b"nothing")
    except OSError:
        pytest.skip("this file system takes only text as names")
    first = index(gallery)
    reads.clear()
    assert failed(index(gallery)) == failed(first)
    assert reads == []
