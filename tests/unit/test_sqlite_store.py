"""The store on this machine: spaces side by side, what is remembered, what each run did."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from soutu.errors import MissingIndex, ModelMismatch
from soutu.i18n import format_message
from soutu.store.base import NewCaption, StoredFile
from soutu.store.sqlite import writer as writer_module
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare
from tests.store_samples import DIM, card, make, picture, pictures, unit


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "gallery" / ".soutu"


def test_spaces_stand_side_by_side(home):
    make(home, 3)
    with LocalStore.create_or_open(home, card("other", 4)) as other:
        assert other.state().images == 0
        with other.writer() as writer:
            ids = writer.images_without_vector()
            assert ids == [1, 2, 3]
            writer.set_image_vectors(ids[:2], unit(2, 4))
            assert writer.images_without_vector() == [3]
            writer.replace_captions([NewCaption(1, "猫")])
            assert [row.text for row in writer.captions_without_vector()] == ["猫"]
        assert other.state().images == 2
        assert sorted(other.search_images(unit(4), 9).ids.tolist()) == [1, 2]
    with LocalStore.open(home, "tiny@1") as tiny:
        assert tiny.state().images == 3
        assert [c.name for c in tiny.spaces()] == ["tiny", "other"]
        with pytest.raises(ValueError, match="query vector"):
            tiny.search_images(unit(4), 1)
    assert check_index(home)[0] == []


def test_a_known_picture_gains_the_vector_that_its_new_space_lacks(home):
    make(home, 1)
    with LocalStore.create_or_open(home, card("other")) as other:
        with other.writer() as writer:
            assert writer.add_images(pictures(1), unit(1, DIM, seed=5)) == [1]
        np.testing.assert_array_equal(other.image_vectors([1]), unit(1, DIM, seed=5))
    with LocalStore.open(home, "tiny@1") as tiny:
        np.testing.assert_array_equal(tiny.image_vectors([1]), unit(1, DIM))


def test_what_one_space_detaches_is_gone_from_the_others(home):
    make(home, 3)
    make(home, 3, "other")
    with LocalStore.open(home, "other@1") as other, LocalStore.open(home, "tiny@1") as tiny:
        assert tiny.state().images == other.state().images == 3
        with other.writer() as writer:
            writer.detach(["图/0001.jpg"])
        assert tiny.search_images(unit(DIM), 9).ids.tolist().count(2) == 0
        assert tiny.state().images == other.state().images == 2


def test_without_a_name_the_space_last_indexed_with_opens(home):
    make(home, 1)
    LocalStore.create_or_open(home, card("other")).close()
    with LocalStore.open(home) as store:
        assert store.info == card("tiny")  # "other" was made, but no run has filled it
    make(home, 1, "other")
    with LocalStore.open(home) as store:
        assert store.info == card("other")


def test_the_first_space_opens_where_no_run_has_ended(home):
    LocalStore.create_or_open(home, card()).close()
    with LocalStore.open(home) as store:
        assert store.info == card()
        assert store.state().images == 0


def test_an_absent_space_names_those_there_are_and_the_cure(home):
    make(home, 1)
    with pytest.raises(ModelMismatch) as caught:
        LocalStore.open(home, "ViT-B-32@2")
    for lang in ("en", "zh"):
        said = caught.value.message(lang)
        assert "ViT-B-32@2" in said
        assert "tiny (tiny@1)" in said
        assert f"soutu index {home.parent} --model NAME" in said


def test_a_space_of_another_length_is_refused(home):
    make(home, 1)
    with pytest.raises(ModelMismatch) as caught:
        LocalStore.create_or_open(home, card("tiny", DIM + 1))
    assert caught.value.code == "space-dim"


def test_the_card_last_used_is_kept(home):
    make(home, 1)
    newer = card()
    object.__setattr__(newer, "fingerprint", "1" * 64)
    LocalStore.create_or_open(home, newer).close()
    with LocalStore.open(home) as store:
        assert store.info.fingerprint == "1" * 64
        assert store.state().images == 1
    assert check_index(home)[0] == []


def test_no_index_is_missing(home):
    with pytest.raises(MissingIndex) as caught:
        LocalStore.open(home)
    assert f"soutu index {home.parent}" in str(caught.value)
    assert not home.exists()
    assert LocalStore.read_meta(home, "root") is None


def test_settings_are_remembered_also_paths_that_are_no_unicode(home):
    make(home, 0)
    odd = os.fsdecode(b"/caf\xe9/captions.csv")
    with LocalStore.open(home) as store:
        assert store.get_meta("captions_file") is None
        store.set_meta("captions_file", odd)
        store.set_meta("captions_file", odd + "2")
        assert store.get_meta("captions_file") == odd + "2"
        assert store.state().generation == 0
    assert LocalStore.read_meta(home, "captions_file") == odd + "2"
    assert LocalStore.read_meta(home, "root") is None


def test_changes_say_what_each_run_did(home):
    with LocalStore.create_or_open(home, card()) as store:
        with store.writer() as writer:
            a, b = writer.add_images([picture("a"), picture("b")], unit(2, DIM))
            writer.replace_captions([NewCaption(a, "猫")])
        with store.writer() as writer:
            writer.rename([("a", StoredFile("c", 1, 1, a))])
            writer.add_images([picture("b", "new content")], unit(1, DIM))
            writer.detach(["c"])
            writer.set_image_vectors([b], unit(1, DIM))
        changes = store.changes()
        assert [(c.generation, c.kind, c.path, c.other) for c in changes] == [
            (1, "added", "a", ""),
            (1, "added", "b", ""),
            (1, "captions", "", "+1 -0"),
            (2, "renamed", "a", "c"),
            (2, "changed", "b", ""),
            (2, "removed", "c", ""),
            (2, "vectors", "", "tiny@1"),
        ]
        assert all(c.time.endswith("+00:00") for c in changes)
        assert [c.generation for c in store.changes(after=1)] == [2, 2, 2, 2]


def test_slots_and_ids_are_never_given_twice(home):
    with LocalStore.create_or_open(home, card()) as store:
        for run in range(3):
            with store.writer() as writer:
                writer.add_images([picture("a.jpg", f"content {run}")], unit(1, DIM, seed=run))
                writer.set_image_vectors([run + 1], unit(1, DIM, seed=run))
        [slab] = home.glob("spaces/*/images.f32")
        assert slab.stat().st_size == 6 * DIM * 4
        assert store.search_images(unit(DIM), 9).ids.tolist() == [3]


def test_the_packed_answer_and_the_tables_agree(home):
    make(home, 20)
    with LocalStore.open(home) as store:
        packed = store.search_images(unit(DIM), 99)
        with store.writer() as writer:
            writer.detach(["图/0003.jpg", "图/0007.jpg"])
            asked = store.search_images(unit(DIM), 99)
            counted = store.state().images
        again = store.search_images(unit(DIM), 99)
    with LocalStore.open(home) as fresh:
        assert fresh.state().images == counted == 18
        np.testing.assert_array_equal(fresh.search_images(unit(DIM), 99).ids, asked.ids)
    np.testing.assert_array_equal(asked.scores, again.scores)
    assert set(packed.ids.tolist()) - set(asked.ids.tolist()) == {4, 8}


def test_every_wording_takes_the_same_fields_in_both_languages():
    import json
    import string
    from importlib import resources

    text = resources.files("soutu").joinpath("messages/store.json").read_text(encoding="utf-8")
    for code, wordings in json.loads(text).items():
        english, chinese = (
            {name for _, name, _, _ in string.Formatter().parse(wordings[lang]) if name}
            for lang in ("en", "zh")
        )
        assert english == chinese, code
        assert format_message(code, "zh", **dict.fromkeys(english, "x"))


@pytest.fixture
def events(monkeypatch):
    """What reaches the disk, in order: ``fsync`` of files, and SQLite's statements."""
    events = []
    fsync, connect = os.fsync, writer_module.connect

    def traced(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: events.append(statement.split()[0]))
        return connection

    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
    monkeypatch.setattr(writer_module, "connect", traced)
    return events


def test_vectors_are_on_disk_before_their_rows_are_committed(home, events):
    make(home)
    with LocalStore.open(home) as store, store.writer() as writer:
        calls = (
            lambda: writer.add_images(pictures(2, 100), unit(2, DIM)),
            lambda: writer.set_image_vectors([1], unit(1, DIM)),
            lambda: writer.replace_captions([NewCaption(1, "灰猫")]),
            lambda: writer.set_caption_vectors([1], unit(1, DIM)),
        )
        for number, call in enumerate(calls):
            events.clear()
            call()
            written = [event for event in events if event in ("BEGIN", "fsync", "COMMIT")]
            synced = [] if number == 2 else ["fsync"]  # a caption has no vector yet
            assert written == ["BEGIN", *synced, "COMMIT"]


@pytest.mark.parametrize("field", ["path", "name", "folder", "caption", "tag.地点", "tag.\udcff"])
@pytest.mark.parametrize("operator", ["=", "!=", "~", "contains"])
def test_filters_take_what_is_no_unicode(home, field, operator):
    """File names need not be UTF-8, so neither are the values that are compared with them."""
    make(home, 3)
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.add_images([picture("图/\udcff.jpg")], unit(1, DIM, seed=5))
        ids = store.search_images(unit(DIM), 9, Compare(field, operator, "\udcff")).ids
        contained = 1 if field in ("path", "name") else 0
        assert len(ids) == {"=": 0, "!=": 4, "~": 0, "contains": contained}[operator]
        found = store.search_images(unit(DIM), 9, Compare("name", "=", "\udcff.jpg")).ids.tolist()
        assert [row.paths for row in store.images(found)] == [("图/\udcff.jpg",)]
