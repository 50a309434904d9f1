"""What every store must do when it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore, listing_key
from soutu.types import Compare
from tests.store_factories import WRITERS, params, paths_of
from tests.store_samples import DIM, picture, pictures, unit


@pytest.fixture(params=params(WRITERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made = WRITERS[request.param](tmp_path)
    yield made
    made.close()


def add(store: VectorStore, images: Sequence[NewImage], seed: int = 0) -> list[int]:
    with store.writer() as writer:
        return writer.add_images(images, unit(len(images), DIM, seed=seed))


def everything(store: VectorStore) -> list[str]:
    """One path of each image that a search finds, sorted."""
    return sorted(paths_of(store, store.search_images(unit(DIM), 1000)))


def test_added_images_are_found_with_their_size_and_time(store):
    first, second = add(store, [picture("a.jpg"), picture("b.jpg")])
    assert first != second
    row = store.images([first])[0]
    assert (row.paths, row.width, row.height) == (("a.jpg",), 640, 480)
    assert row.taken == "2024-05-01T12:00:00"
    assert store.files()["b.jpg"] == StoredFile("b.jpg", 1000, 1_700_000_000_123_456_789, second)
    np.testing.assert_array_equal(store.image_vectors([second, first]), unit(2, DIM)[::-1])


def test_equal_content_is_one_image_with_several_paths(store):
    batch = [picture("b.jpg", "x"), picture("a.jpg", "x"), picture("c.jpg", "y")]
    b, a, c = add(store, batch)
    assert a == b != c
    [again] = add(store, [picture("d.jpg", "x")], seed=7)
    assert again == a
    assert store.images([a])[0].paths == ("a.jpg", "b.jpg", "d.jpg")
    np.testing.assert_array_equal(store.image_vectors([a])[0], unit(3, DIM)[0])
    assert store.state().images == 2


def test_a_path_with_new_content_leaves_its_old_image(store):
    [old] = add(store, [picture("a.jpg", "before")])
    [new] = add(store, [picture("a.jpg", "after")], seed=1)
    assert old != new
    assert store.search_images(unit(DIM), 9).ids.tolist() == [new]
    assert store.images([old])[0].paths == ()
    assert store.state().images == 1


def test_detached_images_vanish_with_their_captions_and_come_back(store):
    a, b = add(store, [picture("a.jpg"), picture("b.jpg")])
    with store.writer() as writer:
        writer.replace_captions([NewCaption(a, "猫"), NewCaption(b, "狗")])
        ids = [row.id for row in writer.captions_without_vector()]
        writer.set_caption_vectors(ids, unit(2, DIM))
        writer.detach(["a.jpg", "never-there.jpg"])
        assert everything(store) == ["b.jpg"]
        assert store.search_captions(unit(DIM), 9).ids.tolist() == [ids[1]]
        assert (store.state().images, store.state().captions) == (1, 1)
        assert writer.known_content([picture("a.jpg").content, b"?"]) == {
            picture("a.jpg").content: a
        }
        writer.attach([StoredFile("c.jpg", 1, 2, a)])
    assert everything(store) == ["b.jpg", "c.jpg"]
    assert len(store.search_captions(unit(DIM), 9).ids) == 2


def test_attach_moves_a_path_to_another_image(store):
    a, b = add(store, [picture("a.jpg"), picture("b.jpg")])
    with store.writer() as writer:
        writer.attach([StoredFile("a.jpg", 5, 6, b), StoredFile("copy.jpg", 7, 8, b)])
    assert store.images([b])[0].paths == ("a.jpg", "b.jpg", "copy.jpg")
    assert store.search_images(unit(DIM), 9).ids.tolist() == [b]
    assert store.files()["a.jpg"] == StoredFile("a.jpg", 5, 6, b)
    assert a != b


def test_times_and_inodes_are_kept_and_follow_a_touched_file(store):
    ends = {"ctime_ns": -(2**63), "inode": 2**63 - 1}
    [a] = add(store, [replace(picture("a.jpg"), **ends)])
    size, mtime_ns = picture("a.jpg").size, picture("a.jpg").mtime_ns
    assert store.files() == {"a.jpg": StoredFile("a.jpg", size, mtime_ns, a, **ends)}
    generation = store.state().generation
    for file in (StoredFile("a.jpg", size, mtime_ns, a, 5, 6), StoredFile("a.jpg", 1, 2, a, 7, 0)):
        with store.writer() as writer:
            writer.attach([file])
        assert store.files() == {"a.jpg": file}
    moved = StoredFile("b.jpg", 1, 2, a, 8, 9)
    with store.writer() as writer:
        writer.rename([("a.jpg", moved)])
    assert store.files() == {"b.jpg": moved}
    with store.writer() as writer:
        writer.detach(["b.jpg"])
        writer.attach([moved])
    assert store.files() == {"b.jpg": moved}
    assert store.state().generation > generation


def test_names_may_be_swapped_and_handed_on_in_one_rename(store):
    a, b, c = add(store, [picture("a"), picture("b"), picture("c")])
    with store.writer() as writer:
        writer.rename(
            [
                ("a", StoredFile("b", 1, 1, a)),
                ("b", StoredFile("a", 1, 1, b)),
                ("c", StoredFile("d", 1, 1, c)),
            ]
        )
    assert {path: file.image_id for path, file in store.files().items()} == {"a": b, "b": a, "d": c}


def test_paths_that_are_no_unicode_survive(store):
    odd = b"\xff\xfe/caf\xe9.jpg".decode("utf-8", "surrogateescape")
    [id_] = add(store, [picture(odd)])
    assert store.images([id_])[0].paths == (odd,)
    assert list(store.files()) == [odd]


def test_captions_keep_their_ids_and_vectors(store):
    a, b = add(store, [picture("a.jpg"), picture("b.jpg")])
    with store.writer() as writer:
        writer.replace_captions(
            [NewCaption(b, "狗"), NewCaption(a, "猫", {"地点": "家"}), NewCaption(a, "a cat")]
        )
        before = writer.captions_without_vector()
        assert [row.text for row in before] == ["狗", "猫", "a cat"]
        assert before[1].tags == {"地点": "家"}
        writer.set_caption_vectors([row.id for row in before], unit(3, DIM))
    assert store.images([a])[0].captions == ("猫", "a cat")
    with store.writer() as writer:
        writer.replace_captions(
            [NewCaption(a, "a cat"), NewCaption(a, "猫"), NewCaption(a, "猫"), NewCaption(b, "犬")]
        )
        assert [row.text for row in writer.captions_without_vector()] == ["犬"]
    after = {row.text: row for row in store.all_captions()}
    assert list(after) == ["a cat", "猫", "犬"]
    assert after["猫"].id == before[1].id
    assert after["猫"].tags == {}
    assert after["犬"].id not in {row.id for row in before}
    np.testing.assert_array_equal(store.caption_vectors([after["a cat"].id])[0], unit(3, DIM)[2])
    assert store.images([a])[0].captions == ("a cat", "猫")
    with pytest.raises(KeyError):
        store.captions([before[0].id])
    with pytest.raises(KeyError):
        store.caption_vectors([after["犬"].id])


def test_images_without_vector_are_those_with_a_path(store):
    with store.writer() as writer:
        assert writer.images_without_vector() == []
    add(store, pictures(3))
    with store.writer() as writer:
        assert writer.images_without_vector() == []


def test_a_vector_can_be_replaced(store):
    [a] = add(store, [picture("a.jpg")])
    with store.writer() as writer:
        writer.set_image_vectors([a], unit(1, DIM, seed=5))
    np.testing.assert_array_equal(store.image_vectors([a]), unit(1, DIM, seed=5))
    assert store.search_images(unit(DIM), 9).ids.tolist() == [a]


def test_generation_grows_once_a_run_and_only_if_it_changed_something(store):
    assert store.state().generation == 0
    with store.writer() as writer:
        writer.add_images(pictures(2), unit(2, DIM))
        writer.add_images(pictures(2, 2), unit(2, DIM))
    assert store.state().generation == 1
    with store.writer() as writer:
        writer.attach(list(store.files().values()))
        writer.replace_captions([])
        writer.detach(["never-there.jpg"])
    assert store.state().generation == 1
    with store.writer() as writer:
        writer.detach(["图/0000.jpg"])
    assert store.state().generation == 2


@pytest.mark.parametrize(
    "vectors",
    [unit(1, DIM), unit(2, DIM + 1), np.full((2, DIM), np.nan, np.float32), unit(2, DIM)[:, None]],
)
def test_vectors_that_do_not_fit_change_nothing(store, vectors):
    with store.writer() as writer:
        with pytest.raises(ValueError, match="vectors"):
            writer.add_images([picture("a.jpg"), picture("b.jpg")], vectors)
        assert store.files() == {}
    assert store.state().generation == 0


def test_a_call_that_fails_leaves_nothing_behind(store):
    [a] = add(store, [picture("a.jpg")])
    known = store.files()
    with store.writer() as writer:
        for attempt in (
            lambda: writer.attach([StoredFile("x", 1, 1, a), StoredFile("y", 1, 1, 999)]),
            lambda: writer.rename([("a.jpg", StoredFile("b", 1, 1, 999))]),
            lambda: writer.rename([("zzz", StoredFile("b", 1, 1, a))]),
            lambda: writer.replace_captions([NewCaption(a, "猫"), NewCaption(999, "狗")]),
            lambda: writer.set_image_vectors([a, 999], unit(2, DIM)),
            lambda: writer.set_caption_vectors([999], unit(1, DIM)),
        ):
            with pytest.raises(KeyError):
                attempt()
        assert store.files() == known
        assert store.all_captions() == []
        assert writer.add_images([picture("b.jpg")], unit(1, DIM)) != [a]
    assert store.state().generation == 2


def test_empty_calls_are_allowed(store):
    with store.writer() as writer:
        assert writer.add_images([], np.empty((0, DIM), np.float32)) == []
        writer.set_image_vectors([], np.empty((0, DIM), np.float32))
        writer.attach([])
        writer.detach([])
        writer.rename([])
        assert writer.known_content([]) == {}
    assert store.state().generation == 0


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store):
    [a] = add(store, [picture("a.jpg")])
    with store.snapshot():
        found = store.search_images(unit(DIM), 9)
        with store.writer() as writer:
            writer.add_images([picture("b.jpg")], unit(1, DIM, seed=1))
            writer.detach(["a.jpg"])
        assert store.search_images(unit(DIM), 9).ids.tolist() == found.ids.tolist() == [a]
        assert store.images([a])[0].paths == ("a.jpg",)
        assert store.state().images == 1
    assert everything(store) == ["b.jpg"]


def test_readers_know_which_captions_lack_a_vector(store):
    a, b = add(store, [picture("a.jpg"), picture("b.jpg")])
    with store.writer() as writer:
        writer.replace_captions([NewCaption(a, "猫"), NewCaption(b, "狗"), NewCaption(a, "a cat")])
        waiting = writer.captions_without_vector()
        assert store.captions_without_vector() == waiting
        writer.set_caption_vectors([waiting[1].id], unit(1, DIM))
        assert [row.text for row in store.captions_without_vector()] == ["猫", "a cat"]
        writer.detach(["a.jpg"])
    assert store.captions_without_vector() == []


def test_a_sample_is_of_what_a_search_can_return(store):
    ids = add(store, pictures(30), seed=4)
    with store.writer() as writer:
        writer.detach([image.path for image in pictures(10)])
    rows = {row.tobytes() for row in store.image_vectors(ids[10:])}
    everyone = store.sample_images(100)
    assert everyone.shape == (20, DIM)
    assert {row.tobytes() for row in everyone} == rows
    some = store.sample_images(7)
    assert some.tobytes() == everyone[:7].tobytes()  # at random, but always the same
    assert some.tobytes() != store.image_vectors(ids[10:17]).tobytes()


def test_what_a_filter_admits_is_counted(store):
    add(store, pictures(6))
    with store.writer() as writer:
        writer.detach([pictures(1)[0].path])
    assert store.count_images(Compare("size", ">=", 1000)) == 5
    assert store.count_images(Compare("name", "=", "0003.jpg")) == 1
    assert store.count_images(Compare("size", ">", 1000)) == 0


def test_images_are_listed_latest_first_and_page_by_page(store):
    times = ["2023-01-01T00:00:00", "", "2024-05-01T12:00:00", "", "2024-05-01T12:00:00"]
    batch = [
        replace(picture(f"{name}.jpg", name), taken=taken)
        for name, taken in zip("dbcae", times, strict=True)
    ]
    add(store, [*batch, replace(picture("0.jpg", "e"), taken=times[-1])])
    everyone = [row.paths[0] for row in store.list_images(9)]
    assert everyone == ["0.jpg", "c.jpg", "d.jpg", "a.jpg", "b.jpg"]
    assert store.list_images(1)[0].paths == ("0.jpg", "e.jpg")
    pages, after = [], None
    while rows := store.list_images(2, None, after):
        pages += [row.paths[0] for row in rows]
        after = listing_key(rows[-1])
        if len(pages) == 2:  # what comes and goes meanwhile is no reason to repeat or to skip
            with store.writer() as writer:
                writer.detach(["c.jpg"])
                new = replace(picture("f.jpg", "f"), taken="2025")
                writer.add_images([new], unit(1, DIM, seed=5))
    assert pages == everyone
    known = Compare("taken", ">=", "2024")
    assert [row.paths[0] for row in store.list_images(9, known)] == ["f.jpg", "0.jpg"]
    second = store.list_images(9, known, ("2025", b"f.jpg"))
    assert [row.paths[0] for row in second] == ["0.jpg"]
    assert store.list_images(9, Compare("taken", "=", "1999")) == []


def test_texts_are_remembered(store):
    assert store.get_meta("what") is None
    store.set_meta("what", "图")
    assert store.get_meta("what") == "图"
    store.set_meta("what", "")
    assert store.get_meta("what") == ""


def test_an_images_captions_are_its_own(store):
    a, b = add(store, pictures(2))
    told = [NewCaption(b, "狗", {"place": "park"}), NewCaption(a, "猫"), NewCaption(b, "a dog")]
    with store.writer() as writer:
        writer.replace_captions(told)
    own = [(one.image_id, one.text, dict(one.tags)) for one in store.captions_of(b)]
    assert own == [(b, "狗", {"place": "park"}), (b, "a dog", {})]
    assert store.captions_of(b + 1000) == []
