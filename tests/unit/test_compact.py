"""Compacting: what is gone gives its room back, and nothing else changes."""

import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from soutu.errors import IndexCorrupt
from soutu.store.base import NewCaption
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

COUNT = 40


@pytest.fixture
def home(tmp_path):
    """40 pictures with captions in two spaces; ten lost their files, five have newer vectors."""
    home = tmp_path / ".soutu"
    with LocalStore.create_or_open(home, card("other", 4)) as store, store.writer() as writer:
        writer.add_images(pictures(COUNT), unit(COUNT, 4, seed=7))
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        ids = writer.images_without_vector()
        writer.set_image_vectors(ids, unit(COUNT, DIM))
        writer.replace_captions([NewCaption(id_, f"说明 {id_}") for id_ in ids])
        rows = writer.captions_without_vector()
        writer.set_caption_vectors([row.id for row in rows], unit(COUNT, DIM, seed=1))
        writer.set_image_vectors(ids[20:25], unit(5, DIM, seed=2))
        writer.detach([image.path for image in pictures(10)])
    return home


def answers(store, k=100):
    """All that searching says, as one value."""
    query = unit(DIM, seed=3)
    images, captions = store.search_images(query, k), store.search_captions(query, k)
    return (
        [store.images([id_])[0] for id_ in images.ids.tolist()],
        images.scores.tolist(),
        [store.captions([id_])[0] for id_ in captions.ids.tolist()],
        captions.scores.tolist(),
    )


def folders(home):
    return sorted(path.name for path in (home / "spaces").iterdir())


def test_what_is_gone_goes_and_all_else_stays(home):
    with LocalStore.open(home) as store:
        before, state, files = answers(store), store.state(), store.files()
        done = store.compact()
        assert (done.images, done.captions) == (10, 10)
        assert done.vectors == 5
        assert done.after < done.before
        assert answers(store) == before, "an open store goes on in the new folder"
        assert store.state() == state
        assert store.files() == files
    with LocalStore.open(home) as store:
        assert answers(store) == before
        with pytest.raises(KeyError):
            store.images([1])
    slabs = {
        path.name: path.stat().st_size for path in next((home / "spaces").glob("3*")).iterdir()
    }
    assert slabs == {"images.f32": 30 * DIM * 4, "captions.f32": 30 * DIM * 4}
    with LocalStore.open(home, "other@1") as store:
        np.testing.assert_array_equal(store.image_vectors([11]), unit(COUNT, 4, seed=7)[10:11])
    assert check_index(home)[0] == []
    assert len(folders(home)) == 2
    assert all(name.endswith("-2") for name in folders(home))


def test_a_second_time_there_is_nothing_to_do(home):
    with LocalStore.open(home) as store:
        store.compact()
        names = folders(home)
        done = store.compact()
    assert (done.images, done.captions, done.vectors) == (0, 0, 0)
    assert folders(home) == names


def test_writing_goes_on_after_it(home):
    with LocalStore.open(home) as store:
        with store.writer() as writer:  # a store that has written before, in the old folder
            writer.add_images(pictures(1, 100), unit(1, DIM, seed=100))
        store.compact()
        with store.writer() as writer:
            [new] = writer.add_images(pictures(1, 200), unit(1, DIM, seed=200))
        found = store.search_images(unit(1, DIM, seed=200)[0], 1)
        assert found.ids.tolist() == [new]
        assert new > COUNT + 1, "ids are never given twice"
        store.compact()
        assert store.search_images(unit(1, DIM, seed=200)[0], 1).ids.tolist() == [new]
    assert check_index(home)[0] == []


def test_another_bundle_of_the_model_finds_its_vectors_where_they_lie_now(home):
    with LocalStore.open(home) as store:
        before = answers(store)
        store.compact()
    with LocalStore.create_or_open(home, replace(card(), fingerprint="1" * 64)) as store:
        assert answers(store) == before
    assert len(folders(home)) == 2


def test_a_doctor_finds_it_healthy_and_knows_its_folders(home):
    with LocalStore.open(home) as store:
        before = answers(store)
        store.compact()
    assert check_index(home)[0] == []
    with LocalStore.open(home) as store:
        assert answers(store) == before


def test_a_reader_in_an_older_state_keeps_its_vectors(home):
    with LocalStore.open(home) as reader, LocalStore.open(home) as other:
        with reader.snapshot():
            state = reader.state()  # its transaction begins here, the slab is not mapped yet
            other.compact()
            assert len(folders(home)) == 4, "the old folders wait for their reader"
            assert len(reader.search_images(unit(DIM, seed=3), 100).ids) == state.images
            assert reader.images([1])[0].paths == ()
        with other.writer():
            pass
        assert len(folders(home)) == 2
        assert len(reader.search_images(unit(DIM, seed=3), 100).ids) == 30


def test_readers_search_while_it_goes_on(home):
    stop, faults, searches = threading.Event(), [], [0]
    with LocalStore.open(home) as store:
        before = answers(store)

    def search():
        with LocalStore.open(home) as store:
            while not stop.is_set():
                with store.snapshot():
                    if answers(store) != before:
                        faults.append("another answer")
                searches[0] += 1

    thread = threading.Thread(target=search)
    thread.start()
    try:
        with LocalStore.open(home) as store:
            for _ in range(8):
                with store.writer() as writer:
                    writer.set_image_vectors([40], unit(COUNT, DIM)[39:40])
                store.compact()
    finally:
        stop.set()
        thread.join()
    assert not faults
    assert searches[0] > 5


def test_damage_is_not_sealed_over(home):
    slab = next((home / "spaces").glob("3*")) / "images.f32"
    data = bytearray(slab.read_bytes())
    data[30 * DIM * 4] ^= 1  # of picture 31
    slab.write_bytes(data)
    assert len(check_index(home)[0]) == 1
    with LocalStore.open(home) as store:
        store.compact()
    [issue] = check_index(home)[0]
    assert issue.where == "image_vectors"
    assert "31" in issue.key


def test_no_room_is_said_before_anything_is_done(home, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10))
    names = folders(home)
    with LocalStore.open(home) as store:
        with pytest.raises(IndexCorrupt) as told:
            store.compact()
        assert told.value.code == "compact-space"
        assert len(store.images([1])) == 1
    assert folders(home) == names


def test_not_while_an_index_run_goes_on(home):
    with LocalStore.open(home) as store, LocalStore.open(home) as other, other.writer():
        with pytest.raises(IndexCorrupt) as told:
            store.compact()
        assert told.value.code == "index-locked"


def test_what_nothing_explains_is_left_alone(home):
    (home / "spaces" / "mine").mkdir()
    with LocalStore.open(home) as store:
        store.compact()
    assert "mine" in folders(home)
