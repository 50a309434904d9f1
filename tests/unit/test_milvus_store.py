"""What the store in Milvus does beyond the contract."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from soutu.errors import (
    BadCaptions,
    IndexCorrupt,
    Missing,
    MissingIndex,
    ModelMismatch,
    RemoteUnavailable,
)
from soutu.store.base import NewCaption
from soutu.store.milvus import epoch, schema
from soutu.store.milvus.store import MilvusStore
from soutu.types import Compare
from tests.store_factories import filled, local_store, milvus_store, paths_of
from tests.store_samples import DIM, card, picture, pictures, unit

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.skipif(
        not (find_spec("pymilvus") and find_spec("milvus_lite")), reason="needs the extra milvus"
    ),
]


@pytest.fixture
def store(tmp_path):
    with milvus_store(tmp_path) as made:
        yield made


@pytest.fixture
def address(tmp_path):
    return str(tmp_path / "gallery.db")


def add(store, images, seed=0):
    with store.writer() as writer:
        return writer.add_images(images, unit(len(images), DIM, seed=seed))


def test_a_file_that_was_closed_is_opened_again(store, address):
    ids = add(store, pictures(4))
    store.close()
    with MilvusStore.open(address) as again:
        assert sorted(again.search_images(unit(DIM), 9).ids.tolist()) == sorted(ids)
        assert again.info == card()
        np.testing.assert_array_equal(again.image_vectors(ids), unit(4, DIM))


def test_where_there_is_no_gallery(address, tmp_path):
    with pytest.raises(MissingIndex, match="soutu index"):
        MilvusStore.open(address)
    assert MilvusStore.read_meta(str(tmp_path / "other.db"), "root") is None


def test_ids_follow_from_the_content_wherever_it_is_added(store, tmp_path):
    (tmp_path / "other").mkdir()
    ids = add(store, pictures(5))
    with milvus_store(tmp_path / "other") as other:
        assert add(other, pictures(5)[::-1]) == ids[::-1]
    assert max(ids) < 2**53  # which JSON's numbers can say


def test_two_contents_of_one_hash_are_two_images(store, monkeypatch):
    monkeypatch.setattr(schema, "hash_id", lambda content: 7)
    ids = add(store, [picture("a"), picture("b")])
    ids += add(store, [picture("c"), picture("d", "a")], seed=1)
    assert ids == [7, 8, 9, 7]
    with store.writer() as writer:
        assert set(writer.known_content([picture("c").content, b"?"]).values()) == {9}
    assert store.state().images == 3


def test_long_texts_are_remembered_whole(store):
    for text in ("图" * 100_000, "x" * 60_001, "\udcff\0\n", "short"):
        store.set_meta("what", text)
        assert store.get_meta("what") == text
    assert store.get_meta("wha") is None
    left = [row["key"] for row in store._tables.meta.table.rows('key != ""') if "." in row["key"]]
    assert left == [], "parts of what was there before are gone"


def test_a_turn_that_another_took_is_noticed_before_anything_is_shown(store, monkeypatch):
    monkeypatch.setattr(epoch, "LEASE_SECONDS", -1.0)  # it runs out at once
    with pytest.raises(IndexCorrupt, match="is writing"), store.writer() as first:
        first.add_images(pictures(1), unit(1, DIM))
        with store.writer() as second:
            second.add_images(pictures(1, 1), unit(1, DIM, seed=1))
            first.add_images(pictures(1, 2), unit(1, DIM, seed=2))
    assert sorted(store.files()) == ["图/0000.jpg", "图/0001.jpg"]
    assert len(store.search_images(unit(DIM), 9).ids) == 2


def test_a_run_that_was_killed_is_gone_on_with(store, address):
    store.close()
    code = f"""
import os
from tests.unit.test_milvus_store import *
from soutu.store.milvus import writer as milvus_writer
with MilvusStore.open({address!r}) as store, store.writer() as writer:
    ids = writer.add_images(pictures(3), unit(3, DIM))
    writer.replace_captions([NewCaption(ids[0], "猫")])
    milvus_writer.publish = lambda meta, state: os._exit(9)  # all else is written
    try:
        writer.detach(["图/0001.jpg"])
    finally:
        os._exit(1)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 9
    with MilvusStore.open(address) as again:
        assert again.state().images == len(again.search_images(unit(DIM), 9).ids) == 3
        assert len(again.files()) == 3
        with again.writer() as writer:  # the turn of a process that is no more is taken
            assert writer.images_without_vector() == []
            writer.detach(["图/0002.jpg"])
        assert sorted(again.files()) == ["图/0000.jpg", "图/0001.jpg"]
        assert again.state().images == len(again.search_images(unit(DIM), 9).ids) == 2


def test_pictures_written_but_never_shown_are_not_encoded_in_vain(store, monkeypatch):
    """Their vectors are kept, unseen, until their path is attached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("soutu.store.milvus.writer.publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), store.writer() as writer:
            writer.add_images(pictures(2), unit(2, DIM))
    assert store.state().images == len(store.search_images(unit(DIM), 9).ids) == 0
    ids = add(store, pictures(2))
    assert len(store.search_images(unit(DIM), 9).ids) == 2
    np.testing.assert_array_equal(store.image_vectors(ids), unit(2, DIM))


def test_a_collection_of_somebody_else_is_left_alone(store):
    from soutu.store.milvus.schema import IMAGES, create_collection

    create_collection(store._connection, "soutu", IMAGES)
    with pytest.raises(RemoteUnavailable, match="name another one in the address") as fault:
        add(store, pictures(1))
    assert fault.value.code == "milvus-failed"
    assert store._tables.alias_target("soutu") is None


def test_readers_in_many_threads_see_one_state_each(store):
    add(store, pictures(20))
    query = unit(DIM, seed=3)
    wanted = store.search_images(query, 5)

    def ask(_):
        with store.snapshot():
            found = store.search_images(query, 5, Compare("width", ">", 1))
            rows = store.images(found.ids.tolist())
        return found.ids.tolist(), [row.paths[0] for row in rows]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(24)))
    assert answers == [(wanted.ids.tolist(), paths_of(store, wanted))] * 24


def test_several_models_stand_side_by_side(store, address):
    ids = add(store, pictures(3))
    other = card("other", 4)
    with MilvusStore.create_or_open(address, other) as second:
        assert second.images_without_vector() == sorted(ids)
        with second.writer() as writer:
            writer.set_image_vectors(ids[:2], unit(2, 4))
            writer.detach(["图/0000.jpg"])
        assert second.state().images == 1
        assert second.images_without_vector() == [ids[2]]
        assert [c.space for c in second.spaces()] == ["tiny@1", "other@1"]
        tables = second._tables
        assert tables.alias_target("soutu") == tables.alias_target(tables.alias(other, "image"))
    assert store.state().images == 2, "hidden in the other model's vectors too"
    assert set(store.search_images(unit(DIM), 9).ids.tolist()) == set(ids[1:])
    with MilvusStore.open(address) as latest:
        assert latest.info == other
    with MilvusStore.open(address, "tiny@1") as first:
        assert first.info == card()
    with pytest.raises(ModelMismatch, match=r"tiny@1"):
        MilvusStore.open(address, "none@1")
    with pytest.raises(ModelMismatch):
        MilvusStore.create_or_open(address, card("tiny", 5))


def test_equal_scores_beyond_what_was_asked_for_are_settled(store, monkeypatch):
    images = np.tile(unit(DIM, seed=4), (60, 1))
    with store.writer() as writer:
        ids = sorted(writer.add_images(pictures(60), images))
    for k in (1, 5, 59):
        assert store.search_images(unit(DIM), k).ids.tolist() == ids[:k]
    monkeypatch.setattr(schema, "WINDOW", 20)
    assert store.search_images(unit(DIM), 5).ids.tolist() == ids[:5]
    assert store.search_images(unit(DIM), 30).ids.tolist() == ids[:30]


def test_the_same_captions_are_found_as_in_a_folder(store, tmp_path):
    said = ["一只灰猫坐在雪地里", "灰色的猫", "a grey cat in the snow", "雪地里的狗", "cats"]
    both = [store, local_store(tmp_path)]
    for one in both:
        with one.writer() as writer:
            ids = writer.add_images(pictures(5), unit(5, DIM))
            pairs = zip(ids, said, strict=True)
            writer.replace_captions([NewCaption(id_, text) for id_, text in pairs])
    for text in ("灰猫", "雪地 猫", "cat", "a cat in snow", "狗"):
        for exact in (False, True):
            left, right = (one.search_text(text, 5, exact=exact) for one in both)
            assert dict(zip(paths_of(both[0], left), left.scores.tolist(), strict=True)) == dict(
                zip(paths_of(both[1], right), right.scores.tolist(), strict=True)
            )
    with store.writer() as writer:
        writer.detach(["图/0000.jpg"])
    assert "图/0000.jpg" not in paths_of(store, store.search_text("灰猫", 5))
    both[1].close()


def test_too_many_captions_are_said_to_be_so(store, monkeypatch):
    [id_] = add(store, pictures(1))
    with store.writer() as writer:
        writer.replace_captions([NewCaption(id_, "猫"), NewCaption(id_, "狗")])
    monkeypatch.setattr("soutu.store.milvus.store.MAX_CAPTIONS", 1)
    with pytest.raises(Missing, match="2 captions"):
        store.search_text("猫", 1)


def test_a_caption_that_milvus_cannot_hold_is_refused_before_anything_is_written(store):
    [id_] = add(store, pictures(1))
    with store.writer() as writer:
        writer.replace_captions([NewCaption(id_, "图" * 21_845)])
        with pytest.raises(BadCaptions, match="65535"):
            writer.replace_captions([NewCaption(id_, "猫"), NewCaption(id_, "图" * 21_846)])
    assert [row.text for row in store.all_captions()] == ["图" * 21_845]


def test_what_ended_is_cleared_away_once_no_reader_can_look_at_it(store):
    add(store, pictures(3))
    with store.writer() as writer:
        writer.detach(["图/0000.jpg"])

    def rows():
        return sum(1 for _ in store._tables.files.rows('key != ""'))

    with store.snapshot():
        add(store, pictures(1, 5))
        assert len(store.files()) == 2
        assert rows() == 4
    add(store, pictures(1, 6))
    assert rows() == 4, "three, less one, and two more"


def test_a_folder_of_readers_and_a_writer_agree(tmp_path):
    images = unit(200, DIM)
    left, right = (
        filled(milvus_store)(tmp_path, images, images),
        filled(local_store)(tmp_path, images, images),
    )
    for seed in range(5):
        query = unit(DIM, seed=seed + 50)
        one, two = left.search_images(query, 20), right.search_images(query, 20)
        assert paths_of(left, one) == paths_of(right, two)
        np.testing.assert_array_equal(one.scores, two.scores)
    left.close()
    right.close()
