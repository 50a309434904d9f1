"""What every store must do when it is searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from soutu.store.base import Searchable
from soutu.types import Floats
from tests.store_factories import READERS, paths_of
from tests.store_samples import DIM, unit


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Searchable]]:
    made: list[Searchable] = []

    def make(images: Floats, texts: Floats | None = None) -> Searchable:
        folder = tmp_path / str(len(made))
        texts = images if texts is None else texts
        made.append(READERS[request.param](folder, images, texts))
        return made[-1]

    yield make
    for store in made:
        getattr(store, "close", lambda: None)()


def test_images_come_back_by_inner_product(reader):
    images, query = unit(50, DIM), unit(DIM, seed=9)
    store = reader(images)
    found = store.search_images(query, 7)
    order = np.argsort(-(images @ query))[:7]
    assert paths_of(store, found) == [f"图/{i:04d}.jpg" for i in order]
    np.testing.assert_allclose(found.scores, (images @ query)[order], atol=1e-6)
    assert found.ids.dtype == np.int64
    assert found.scores.dtype == np.float32


def test_captions_come_back_by_inner_product(reader):
    texts, query = unit(30, DIM, seed=3), unit(DIM, seed=9)
    store = reader(unit(30, DIM), texts)
    found = store.search_captions(query, 4)
    rows = store.captions(found.ids.tolist())
    order = np.argsort(-(texts @ query))[:4]
    assert [row.text for row in rows] == [f"说明 {i}" for i in order]
    owners = store.images([row.image_id for row in rows])
    assert [owner.captions for owner in owners] == [(row.text,) for row in rows]


@pytest.mark.parametrize(("k", "expected"), [(-1, 0), (0, 0), (1, 1), (5, 5), (6, 5), (10**9, 5)])
def test_k_beyond_the_rows_gives_them_all(reader, k, expected):
    store = reader(unit(5, DIM))
    assert len(store.search_images(unit(DIM), k).ids) == expected
    assert len(store.search_captions(unit(DIM), k).scores) == expected


def test_equal_rows_score_equal_and_rank_by_id(reader):
    images = np.tile(unit(DIM, seed=4), (41, 1))
    images[20] = unit(DIM, seed=5)
    store = reader(images)
    for seed in range(5):
        found = store.search_images(unit(DIM, seed=seed), 41)
        same = [i for i, path in enumerate(paths_of(store, found)) if path != "图/0020.jpg"]
        assert len({float(found.scores[i]) for i in same}) == 1
        assert found.ids[same].tolist() == sorted(found.ids[same].tolist())


def test_images_come_back_by_what_their_captions_say(reader):
    store = reader(unit(30, DIM))
    [exact] = store.search_text("说明 7", 5, exact=True).ids.tolist()
    assert store.images([exact])[0].captions == ("说明 7",)
    every = store.search_text("说明 7", 30)
    assert every.ids[0] == exact
    assert len(every.ids) == 30, "the others say 说明 at least"
    assert every.ids[1:].tolist() == sorted(every.ids[1:].tolist()), "ties by id"
    assert 2 / 3 < every.scores[0] < 1
    assert all(0 <= score < 1 / 3 for score in every.scores[1:])
    assert (every.ids.dtype, every.scores.dtype) == (np.int64, np.float32)
    assert store.search_text("明说", 3).scores[0] < 2 / 3
    assert store.search_text("明说", 3, exact=True).ids.tolist() == []
    assert len(store.search_text("说明", 4).ids) == 4


@pytest.mark.parametrize("text", ["", " ", "猫", "\0", '"', "NEAR(", "*", "-", "((", "a" * 10**5])
def test_what_no_caption_says_finds_nothing(reader, text):
    store = reader(unit(3, DIM))
    assert store.search_text(text, 5).ids.tolist() == []
    assert store.search_text("说明", 0).ids.tolist() == []


def test_an_empty_store_answers_with_nothing(reader):
    store = reader(np.empty((0, DIM), np.float32))
    assert len(store.search_images(unit(DIM), 5).ids) == 0
    assert len(store.search_captions(unit(DIM), 5).ids) == 0
    assert len(store.search_text("说明", 5).ids) == 0
    assert (store.state().images, store.state().captions) == (0, 0)
    assert store.image_vectors([]).shape == (0, DIM)
    assert store.images([]) == []


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(DIM + 1, np.float32),
        np.ones((1, DIM), np.float32),
        np.full(DIM, np.nan, np.float32),
        np.full(DIM, np.inf, np.float32),
    ],
)
def test_what_is_no_query_vector_is_a_value_error(reader, vector):
    store = reader(unit(3, DIM))
    with pytest.raises(ValueError, match="a query vector"):
        store.search_images(vector, 1)
    with pytest.raises(ValueError, match="a query vector"):
        store.search_captions(vector, 1)


def test_rows_and_vectors_keep_the_order_asked_for(reader):
    images = unit(6, DIM)
    store = reader(images)
    every = [int(store.search_images(image, 1).ids[0]) for image in images]
    ids = [every[4], every[0], every[4], every[2]]
    assert [r.paths for r in store.images(ids)] == [(f"图/{i:04d}.jpg",) for i in (4, 0, 4, 2)]
    np.testing.assert_array_equal(store.image_vectors(ids), images[[4, 0, 4, 2]])
    assert [row.id for row in store.images(np.array(ids))] == ids


def test_an_unknown_id_is_a_key_error(reader):
    store = reader(unit(3, DIM))
    for ask in (store.images, store.captions, store.image_vectors):
        for id_ in (-1, 999):
            with pytest.raises(KeyError):
                ask([id_])


def test_state_counts_and_names_the_space(reader):
    state = reader(unit(4, DIM)).state()
    assert (state.space, state.images, state.captions) == ("tiny@1", 4, 4)


def test_the_same_search_twice_is_the_same_to_the_bit(reader):
    images = unit(300, DIM)
    first, second = reader(images), reader(images[:200])
    query = unit(DIM, seed=2)
    again = first.search_images(query, 300)
    np.testing.assert_array_equal(first.search_images(query, 300).scores, again.scores)
    fewer = dict(
        zip(paths_of(second, f := second.search_images(query, 200)), f.scores, strict=True)
    )
    more = dict(zip(paths_of(first, again), again.scores, strict=True))
    assert all(more[path] == score for path, score in fewer.items())


def test_a_snapshot_nests(reader):
    store = reader(unit(3, DIM))
    with store.snapshot(), store.snapshot():
        ids = store.search_images(unit(DIM), 2).ids.tolist()
        assert len(store.images(ids)) == 2
    assert store.state().images == 3
