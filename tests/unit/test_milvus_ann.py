"""The recall promise in Milvus: a graph is built beside, tuned, and only then searched."""

from importlib.util import find_spec

import numpy as np
import pytest

from soutu.errors import RemoteUnavailable
from soutu.store.base import NewCaption
from soutu.store.milvus import ann, schema
from soutu.store.scoring import top_k
from tests.store_factories import milvus_store
from tests.store_samples import card, pictures

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.skipif(
        not (find_spec("pymilvus") and find_spec("milvus_lite") and find_spec("faiss")),
        reason="needs the extra milvus, and Faiss for its graphs",
    ),
]
COUNT, TEXTS, DIM = 3000, 300, 8


def cone(count, seed, towards):
    """Unit rows around one direction, as CLIP's pictures and texts each lie."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    rows += 3 * np.eye(DIM, dtype=np.float32)[towards]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(ann, "EXACT_BELOW", 1000)
    with milvus_store(tmp_path) as made:
        with made.writer() as writer:
            ids = writer.add_images(pictures(COUNT), cone(COUNT, 0, 0))
            writer.replace_captions([NewCaption(id_, f"{id_}") for id_ in ids[:TEXTS]])
            rows = writer.captions_without_vector()
            writer.set_caption_vectors([row.id for row in rows], cone(TEXTS, 1, 1))
        yield made


def refreshed(store, **how):
    with store.writer() as writer:
        return writer.refresh_ann(lambda: cone(400, 2, 1), **how)


def test_a_graph_takes_the_place_of_comparing_all(store):
    alias = store._tables.alias(card(), "image")
    before = store._tables.alias_target(alias)
    exact = [store.search_images(query, 10) for query in cone(50, 3, 1)]
    assert store.promises() == {}
    assert refreshed(store) == ["image"], "there are few captions"
    after = store._tables.alias_target(alias)
    assert before != after
    assert store._tables.alias_target("soutu") == after, "what other programs search moves along"
    assert not store._connection.call("has_collection", before)
    assert schema.index_kind(store._connection, alias) == "HNSW"
    promise = store.promises()["image"]
    assert promise.recipe == "HNSW,M=32,efConstruction=200"
    assert {level.k for level in promise.levels} == {10, 100}
    assert all(level.reached["text"].recall >= 0.99 for level in promise.levels)
    found = [store.search_images(query, 10) for query in cone(50, 3, 1)]
    hits = [
        len(set(a.ids.tolist()) & set(b.ids.tolist())) for a, b in zip(exact, found, strict=True)
    ]
    assert np.mean(hits) >= 9.8
    np.testing.assert_array_equal(found[0].scores, exact[0].scores)


def test_nothing_is_built_where_it_is_not_due(store):
    assert refreshed(store) == ["image"]
    assert refreshed(store) == []
    assert refreshed(store, target=0.95) == ["image"]
    moved = np.full(DIM, 0.01, np.float32)
    assert refreshed(store, target=0.95, shift=moved) == ["image"]
    assert all("corrected" in level.reached for level in store.promises()["image"].levels)
    with pytest.raises(ValueError, match="between 0 and 1"):
        refreshed(store, target=1.0)


def test_a_graph_takes_in_what_is_added_and_goes_without_what_is_removed(store):
    refreshed(store)
    fresh = cone(5, 9, 1)
    with store.writer() as writer:
        ids = writer.add_images(pictures(5, COUNT), fresh)
        writer.detach([pictures(1, COUNT + 4)[0].path])
    for id_, vector in zip(ids[:4], fresh, strict=False):
        assert store.search_images(vector, 1).ids.tolist() == [id_]
    assert ids[4] not in store.search_images(fresh[4], 100).ids


def test_more_than_was_tuned_for_is_found_all_the_same(store):
    refreshed(store)
    query = cone(1, 11, 1)[0]
    every = store.search_images(query, COUNT)
    assert len(every.ids) == COUNT
    vectors = store.image_vectors(every.ids.tolist())
    wanted = top_k((vectors @ query).astype(np.float32), every.ids, COUNT)
    np.testing.assert_allclose(every.scores, wanted.scores, atol=1e-6)


def test_an_index_that_was_not_built_is_noticed(store, monkeypatch):
    """Some servers take the name of an index that they cannot build, and search everything."""
    monkeypatch.setattr(schema, "index_kind", lambda *_: "FLAT")
    with pytest.raises(RemoteUnavailable, match="HNSW"):
        refreshed(store)
    monkeypatch.undo()
    assert len(store.search_images(cone(1, 11, 1)[0], 10).ids) == 10, "searches go on as before"
