"""Files whose time alone has changed are unchanged, and pictures that return are back again."""

import json
import os
import shutil

import pytest

from soutu import Gallery
from tests.cases.commands import pictures

NAMES = ("a.png", "b.png", "2024/c.png", "2024/d.png")
KINDS = ("encoded", "unchanged", "renamed", "returned", "removed", "duplicates")


@pytest.fixture
def root(tmp_path):
    return pictures(tmp_path / "g", *NAMES)


@pytest.fixture
def gallery(root):
    with Gallery.open(root, model="tiny") as opened:
        opened.index()
        yield opened


def touch(*files, seconds=1):
    for file in files:
        time = file.stat().st_mtime_ns + seconds * 10**9
        os.utime(file, ns=(time, time))


def expect(gallery, **counts):
    """The plan and the run count this, and nothing else."""
    expected = dict.fromkeys(KINDS, 0) | counts
    plan, report = gallery.plan(), gallery.index()
    names = {"encoded": "encode"}
    planned = {kind: getattr(plan, names.get(kind, kind)) for kind in KINDS}
    planned = {k: v if isinstance(v, int) else len(v) for k, v in planned.items()}
    assert planned == expected
    assert {kind: getattr(report, kind) for kind in KINDS} == expected
    return plan


@pytest.mark.parametrize("seconds", [1, 3600, -7200])
def test_a_new_time_alone_changes_nothing(gallery, root, seconds):
    generation = gallery.store.state().generation
    for _ in range(2):
        touch(*(root / name for name in NAMES), seconds=seconds)
        expect(gallery, unchanged=4)
    assert gallery.store.state().generation == generation
    stored = gallery.store.files()
    assert all(stored[n].mtime_ns == (root / n).stat().st_mtime_ns for n in NAMES)


def test_a_touched_file_is_read_once(gallery, root, monkeypatch):
    touch(root / "a.png")
    expect(gallery, unchanged=4)
    monkeypatch.setattr("soutu.indexing.diff.read_file", None)
    expect(gallery, unchanged=4)


def test_touched_copies_are_unchanged_and_a_further_one_is_a_duplicate(gallery, root):
    shutil.copy(root / "a.png", root / "copy.png")
    assert expect(gallery, unchanged=4, duplicates=1).duplicates == ["copy.png"]
    touch(root / "a.png", root / "copy.png")
    shutil.copy(root / "a.png", root / "A copy.png")
    assert expect(gallery, unchanged=5, duplicates=1).duplicates == ["A copy.png"]


def test_pictures_come_back_with_their_folder(gallery, root, tmp_path):
    (root / "2024").rename(tmp_path / "away")
    expect(gallery, unchanged=2, removed=2)
    (tmp_path / "away").rename(root / "2024")
    plan = expect(gallery, unchanged=2, returned=2)
    assert plan.returned == ["2024/c.png", "2024/d.png"]
    expect(gallery, unchanged=4)


def test_pictures_come_back_elsewhere_and_twice(gallery, root, tmp_path):
    (root / "a.png").rename(tmp_path / "a.png")
    expect(gallery, unchanged=3, removed=1)
    shutil.copy(tmp_path / "a.png", root / "x.png")
    shutil.copy(tmp_path / "a.png", root / "y.png")
    plan = expect(gallery, unchanged=3, returned=1, duplicates=1)
    assert (plan.returned, plan.duplicates) == (["x.png"], ["y.png"])


def test_exchanged_names_are_renamed(gallery, root):
    (root / "a.png").rename(root / "t")
    (root / "b.png").rename(root / "a.png")
    (root / "t").rename(root / "b.png")
    touch(root / "a.png", root / "b.png")
    before = gallery.store.files()
    plan = expect(gallery, unchanged=2, renamed=2)
    assert plan.renamed == [("b.png", "a.png"), ("a.png", "b.png")]
    after = gallery.store.files()
    assert before["a.png"].image_id == after["b.png"].image_id
    assert before["b.png"].image_id == after["a.png"].image_id


def test_a_name_that_is_handed_on_keeps_both_pictures(gallery, root, tmp_path):
    """a.png moves to e.png, and a new picture takes its name."""
    (root / "a.png").rename(root / "e.png")
    new = pictures(tmp_path / "new", *(f"{n}.png" for n in range(9))) / "8.png"
    shutil.copy(new, root / "a.png")
    touch(root / "a.png")
    before = gallery.store.files()["a.png"].image_id
    assert expect(gallery, unchanged=3, encoded=1, renamed=1).renamed == [("a.png", "e.png")]
    after = gallery.store.files()
    assert after["e.png"].image_id == before != after["a.png"].image_id
    [hit] = gallery.search(image=new, k=1)
    assert hit.path == "a.png"


def test_one_that_overwrites_another_is_its_duplicate(gallery, root):
    shutil.copy(root / "a.png", root / "b.png")
    touch(root / "b.png")
    assert expect(gallery, unchanged=3, duplicates=1).duplicates == ["b.png"]


def test_a_touched_gallery_seen_by_another_model_is_encoded_once(root, tmp_path):
    with Gallery.open(root, model="tiny") as gallery:
        gallery.index()
    touch(root / "a.png")
    with Gallery.open(root, model="photo") as gallery:
        expect(gallery, encoded=4)


def test_what_a_person_sees(root, soutu, tmp_path):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    (root / "2024").rename(tmp_path / "away")
    assert soutu("index", root)[0] == 0
    (tmp_path / "away").rename(root / "2024")
    touch(root / "a.png")
    _, out, err = soutu("index", root, "--dry-run")
    assert out.splitlines() == ["← 2024/c.png", "← 2024/d.png"]
    assert "2 unchanged" in err
    assert "2 back again" in err
    plan = json.loads(soutu("index", root, "--dry-run", "--json")[1])
    assert (plan["returned"], plan["unchanged"]) == (["2024/c.png", "2024/d.png"], 2)
    _, out, err = soutu("index", root, "--json")
    assert "2 back again" in err
    assert json.loads(out) | {"returned": 2, "unchanged": 2, "duplicates": 0} == json.loads(out)
