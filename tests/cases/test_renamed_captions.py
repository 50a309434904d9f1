"""Captions follow their picture by its content, though their file still has the old name."""

import json
import shutil

import pytest

from soutu import Gallery
from soutu.indexing.indexer import current_names
from soutu.store.base import Change
from tests.cases.commands import pictures

CAPTIONS = {"a.png": "grey one", "b.png": "a picture", "sub/c.png": "a picture", "sub/é.png": "é"}


@pytest.fixture
def root(tmp_path):
    root = pictures(tmp_path / "g", *CAPTIONS)
    write(root, CAPTIONS)
    index(root, root / "captions.csv")
    return root


def write(root, captions):
    rows = "".join(f"{path},{text}\n" for path, text in captions.items())
    (root / "captions.csv").write_text("image_path,caption\n" + rows, "utf-8")


def index(root, captions=None):
    with Gallery.open(root, settings={"model": "tiny"}) as gallery:
        return gallery.index(captions)


def captions(root):
    """The captions of each path."""
    with Gallery.open(root) as gallery:
        store = gallery.store
        rows = store.images(sorted({file.image_id for file in store.files().values()}))
    return {path: list(row.captions) for row in rows for path in row.paths}


def everything(**changes):
    """What the paths have; None: the path is not there."""
    expected = {path: [text] for path, text in CAPTIONS.items()}
    for path, texts in changes.items():
        expected[path] = texts
    return {path: texts for path, texts in expected.items() if texts is not None}


def test_a_renamed_picture_keeps_its_caption(root):
    (root / "a.png").rename(root / "x.png")
    for _ in range(3):
        report = index(root)
        assert (report.captions, report.caption_problems) == (4, ())
        [note] = report.notes
        assert (note.code, note.fields["before"], note.fields["now"]) == (
            "captions-renamed", "a.png", "x.png"
        )  # fmt: skip
        assert captions(root) == everything(**{"a.png": None, "x.png": ["grey one"]})
    with Gallery.open(root) as gallery:
        assert gallery.search("grey one", k=1)[0].path == "x.png"


def test_through_several_runs_and_folders(root):
    (root / "a.png").rename(root / "x.png")
    index(root)
    (root / "x.png").rename(root / "sub" / "y.png")
    index(root)
    (root / "sub").rename(root / "其他")
    report = index(root)
    assert (report.captions, report.caption_problems) == (4, ())
    assert captions(root) == {
        "b.png": ["a picture"], "其他/y.png": ["grey one"], "其他/c.png": ["a picture"],
        "其他/é.png": ["é"],
    }  # fmt: skip


def test_a_corrected_file_is_believed(root):
    (root / "a.png").rename(root / "x.png")
    index(root)
    write(root, {**CAPTIONS, "x.png": "new words"})
    index(root)
    assert captions(root)["x.png"] == ["grey one", "new words"]
    write(root, {path: text for path, text in CAPTIONS.items() if path != "a.png"})
    report = index(root)
    assert (report.captions, report.notes) == (3, ())
    assert captions(root)["x.png"] == []


def test_a_new_picture_under_the_old_name_has_the_row(root, tmp_path):
    (root / "a.png").rename(root / "x.png")
    index(root)
    new = pictures(tmp_path / "new", *(f"{n}.png" for n in range(9))) / "8.png"
    shutil.copy(new, root / "a.png")
    index(root)
    assert captions(root) == everything(**{"x.png": []})


def test_a_copy_keeps_the_caption_when_the_original_goes(root):
    shutil.copy(root / "a.png", root / "copy.png")
    index(root)
    (root / "a.png").unlink()
    assert index(root).captions == 4
    assert captions(root) == everything(**{"a.png": None, "copy.png": ["grey one"]})


def test_one_that_was_away_and_returns_under_another_name(root, tmp_path):
    (root / "a.png").rename(tmp_path / "a.png")
    for _ in range(2):
        report = index(root)
        assert (report.captions, len(report.caption_problems)) == (3, 1)
    (tmp_path / "a.png").rename(root / "back.png")
    report = index(root)
    assert (report.returned, report.captions, report.caption_problems) == (1, 4, ())
    assert captions(root) == everything(**{"a.png": None, "back.png": ["grey one"]})


def test_equal_texts_stay_with_their_own_pictures(root):
    (root / "b.png").unlink()
    for _ in range(2):
        assert index(root).captions == 3
        assert captions(root) == everything(**{"b.png": None})
    write(root, {path: text for path, text in CAPTIONS.items() if path != "sub/c.png"})
    index(root)
    assert captions(root) == everything(**{"b.png": None, "sub/c.png": []})


def test_a_renamed_picture_that_is_edited_keeps_it(root):
    (root / "a.png").rename(root / "x.png")
    index(root)
    with open(root / "x.png", "ab") as file:
        file.write(b"edited")
    index(root)
    assert captions(root)["x.png"] == ["grey one"]


def test_a_rebuilt_index_knows_it_too(root, soutu):
    (root / "a.png").rename(root / "x.png")
    index(root)
    code, out, _ = soutu("index", root, "--rebuild", "--json")
    assert (code, json.loads(out)["captions"]) == (0, 4)
    assert captions(root) == everything(**{"a.png": None, "x.png": ["grey one"]})


def test_tags_and_paths_from_elsewhere_follow(root, tmp_path):
    file = tmp_path / "elsewhere.csv"
    file.write_text(f"image_path,caption,place\n{root}/a.png,grey one,home\n./b.png,two,away\n")
    index(root, file)
    (root / "a.png").rename(root / "x.png")
    (root / "b.png").rename(root / "y.png")
    assert index(root).captions == 2
    with Gallery.open(root) as gallery:
        [hit] = gallery.search("x", where="tag.place = home")
        assert hit.path == "x.png"


def test_what_a_person_sees(root, soutu):
    (root / "a.png").rename(root / "x.png")
    code, _, err = soutu("index", root)
    assert code == 0
    assert "a.png is now x.png" in err
    assert "no picture" not in err


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([("renamed", "a", "b")], {"a": "b"}),
        ([("renamed", "a", "b"), ("renamed", "b", "c")], {"a": "c", "b": "c"}),
        ([("renamed", "a", "b"), ("renamed", "b", "a")], {"a": "a", "b": "a"}),
        ([("renamed", "a", "b"), ("removed", "b", "")], {}),
        ([("renamed", "a", "b"), ("removed", "b", ""), ("added", "b", "")], {}),
        ([("renamed", "a", "b"), ("changed", "b", "")], {"a": "b"}),
        ([("renamed", "a", "b"), ("captions", "", "+1 -0"), ("vectors", "", "s")], {"a": "b"}),
        ([("renamed", "e\u0301", "b")], {"é": "b"}),
    ],
)
def test_names_through_a_history(changes, names):
    assert current_names(Change(1, *change, "now") for change in changes) == names
