"""Searching for several vectors at once, and for what is not to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.search.fusion import QueryScorer
from soutu.types import Penalty, Ranking
from tests.store_samples import unit

DIM = 6


class Gallery:
    def __init__(self, count: int, seed: int) -> None:
        self.images = unit(count, DIM, seed=seed)
        self.asked: list[int] = []

    def search_images(self, vector, k, where=None):
        self.asked.append(k)
        scores = self.images @ vector
        order = np.lexsort((np.arange(len(scores)), -scores))[:k]
        return Ranking(order.astype(np.int64), scores[order])

    def image_vectors(self, ids):
        return self.images[ids]

    def scorer(self, vectors, penalties=()):
        return QueryScorer(self, vectors, penalties)


def penalty(seed: int, weight: float = 2.0, threshold: float = 0.1) -> Penalty:
    return Penalty(unit(1, DIM, seed=seed)[0], weight, threshold)


def test_one_vector_is_the_plain_search():
    gallery, vector = Gallery(50, 1), unit(1, DIM, seed=2)
    found, plain = gallery.scorer(vector).top_k(7), gallery.search_images(vector[0], 7)
    assert np.array_equal(found.ids, plain.ids)
    assert np.array_equal(found.scores, plain.scores)


def test_a_score_is_the_formula():
    gallery, vectors, taken = Gallery(9, 3), unit(2, DIM, seed=4), penalty(5)
    images = gallery.images
    expected = np.maximum(images @ vectors[0], images @ vectors[1])
    expected -= 2 * np.maximum(0, images @ taken.vector - 0.1)
    assert np.allclose(gallery.scorer(vectors, [taken]).score(np.arange(9)), expected, atol=1e-6)


@settings(deadline=None, max_examples=150)
@given(
    count=st.integers(1, 700),
    seed=st.integers(0, 10_000),
    senses=st.integers(1, 3),
    unwanted=st.integers(0, 2),
    k=st.integers(1, 12),
)
def test_the_best_are_those_of_the_whole_gallery(count, seed, senses, unwanted, k):
    gallery = Gallery(count, seed)
    taken = [penalty(seed + n + 1, weight=1.5 + n, threshold=-0.3) for n in range(unwanted)]
    sought = gallery.scorer(unit(senses, DIM, seed=seed + 50), taken)
    found = sought.top_k(k)
    every = np.sort(sought.score(np.arange(count)))[::-1][:k]
    assert np.allclose(found.scores, every, atol=1e-6)
    assert len(set(found.ids.tolist())) == min(k, count)
    assert np.allclose(sought.score(np.arange(count))[found.ids], found.scores, atol=1e-6)


def test_more_candidates_are_asked_for_only_where_the_penalty_moves_more():
    gallery = Gallery(2000, 7)
    vector = unit(1, DIM, seed=8)
    gallery.scorer(vector, [Penalty(-vector[0], 1.0, 0.0)]).top_k(5)  # nothing of it is in front
    assert gallery.asked == [64]
    gallery.asked.clear()
    gallery.scorer(vector, [Penalty(vector[0], 5.0, -1.0)]).top_k(5)  # the best lose most
    assert gallery.asked == [64, 256, 1024, 4096]


def test_an_empty_gallery_has_no_best():
    gallery = Gallery(0, 1)
    assert len(gallery.scorer(unit(2, DIM), [penalty(1)]).top_k(5).ids) == 0


@pytest.mark.parametrize("k", [1, 3])
def test_what_shows_the_unwanted_goes_down(k):
    """Two pictures show the wanted equally well, one of them the unwanted too."""
    images = np.eye(3, dtype=np.float32)
    images[0] = [0.8, 0.6, 0]
    images[1] = [0.8, 0, 0.6]
    gallery = Gallery(3, 0)
    gallery.images = images
    sought = gallery.scorer(
        images[2:] * 0 + np.float32([[1, 0, 0]]), [Penalty(np.eye(3)[1], 2.0, 0.2)]
    )
    assert sought.top_k(k).ids[0] == 1
