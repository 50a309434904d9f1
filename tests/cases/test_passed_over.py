"""What is no person's picture is passed over; what might be, behind a link, is named."""

import os

import pytest

from soutu.images.scan import ImageFile, walk
from tests.cases.commands import pictures

BINS = [
    "#recycle", "$RECYCLE.BIN/S-1", "$Recycle.Bin", "@Recycle", "@__thumb", "@eaDir", "#snapshot/x",
    "@Recently-Snapshot/y", "__MACOSX", "lost+found", "System Volume Information", "RECYCLER",
    "Photos Library.photoslibrary/resources/derivatives", "Lightroom Previews.lrdata",
    "A.photoslibrary/database", "deep/er/#recycle/2024",
]  # fmt: skip
PEOPLE = [
    "recycle", "#recycled", "Recycling 2024", "snapshot", "lost",
    "Photos Library.photoslibrary/originals/A",
    "Old.photolibrary/Masters/2010", "resources", "database", "Previews", "lrdata", "@family",
]  # fmt: skip


@pytest.mark.parametrize("folder", BINS)
def test_bins_snapshots_and_thumbnails_are_passed_over(tmp_path, soutu, folder):
    pictures(tmp_path, f"{folder}/a.png", "b.png")
    assert [entry.path for entry in walk(tmp_path)] == ["b.png"]


@pytest.mark.parametrize("folder", PEOPLE)
def test_peoples_folders_are_not(tmp_path, folder):
    pictures(tmp_path, f"{folder}/a.png")
    assert [entry.path for entry in walk(tmp_path)] == [f"{folder}/a.png"]


def test_what_is_indexed_already_goes(tmp_path, soutu, monkeypatch):
    pictures(tmp_path, "#recycle/a.png", "b.png")
    with monkeypatch.context() as patch:
        patch.setattr("soutu.images.scan.SKIPPED_FOLDERS", frozenset())
        assert soutu("index", tmp_path, "--model", "tiny")[0] == 0
    _, _, err = soutu("index", tmp_path)
    assert "1 removed" in err
    assert len(soutu("search", "cat", "-g", tmp_path, "--paths-only")[1].splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own")
def test_links_to_folders_are_named_once_and_loops_are_harmless(tmp_path, soutu):
    outside = pictures(tmp_path / "data", "x.png", "y.png")
    root = pictures(tmp_path / "g", "a.png")
    (root / "photos").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / ".hidden").symlink_to(outside)
    entries = list(walk(root))
    assert [e.path for e in entries if isinstance(e, ImageFile)] == ["a.png"]
    links = [e for e in entries if not isinstance(e, ImageFile)]
    assert [(e.code, e.fields["path"]) for e in links] == [
        ("folder-is-link", "loop"), ("folder-is-link", "photos")
    ]  # fmt: skip
    code, _, err = soutu("index", root, "--model", "tiny")
    assert (code, err.count(str(outside))) == (0, 1)
    assert "mount" in err
    assert soutu("index", root)[2].count(str(outside)) == 1
