"""Fusing rankings, against formulas written out."""

from collections import defaultdict

import numpy as np
import pytest

from soutu.search import fusion
from soutu.search.fusion import (
    caption_boost,
    comb_max,
    rank_by_score,
    reciprocal_rank,
    weighted_sum,
)
from soutu.types import Ranking


def ranking(scores: dict[int, float]) -> Ranking:
    return rank_by_score(np.array(list(scores), np.int64), np.array(list(scores.values())))


def random_rankings(seed: int) -> list[Ranking]:
    rng = np.random.default_rng(seed)
    return [
        rank_by_score(rng.permutation(60)[:size].astype(np.int64), rng.random(size).round(2))
        for size in rng.integers(1, 60, rng.integers(1, 6))
    ]


def as_dict(fused: Ranking) -> dict[int, float]:
    return dict(zip(fused.ids.tolist(), fused.scores.tolist(), strict=True))


def rrf(rankings: list[Ranking]) -> dict[int, float]:
    sums: defaultdict[int, float] = defaultdict(float)
    for one in rankings:
        for rank, id_ in enumerate(one.ids.tolist(), 1):
            sums[id_] += 1 / (60 + rank)
    return sums


def highest(rankings: list[Ranking]) -> dict[int, float]:
    return {i: max(as_dict(r)[i] for r in rankings if i in r.ids) for r in rankings for i in r.ids}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("fuse", "expected"), [(reciprocal_rank, rrf), (comb_max, highest)])
def test_as_the_formula_says(seed, fuse, expected):
    given = random_rankings(seed)
    assert as_dict(fuse(given)) == pytest.approx(expected(given), rel=1e-6)


@pytest.mark.parametrize("fuse", [reciprocal_rank, comb_max])
@pytest.mark.parametrize("seed", range(5))
def test_best_first_ties_by_id_and_each_once(fuse, seed):
    fused = fuse(random_rankings(seed))
    pairs = list(zip((-fused.scores).tolist(), fused.ids.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert len(set(fused.ids.tolist())) == len(fused.ids)
    assert (fused.ids.dtype, fused.scores.dtype) == (np.int64, np.float32)


def test_first_in_both_is_first():
    fused = reciprocal_rank([ranking({3: 0.9, 1: 0.5, 2: 0.1}), ranking({3: 7.0, 2: 6.0})])
    assert fused.ids.tolist() == [3, 2, 1]


def test_nothing_fused_is_nothing():
    for fuse in (reciprocal_rank, comb_max):
        assert len(fuse([ranking({})]).ids) == 0
        assert len(fuse([ranking({}), ranking({})]).ids) == 0


def test_nothing_is_boosted_where_nothing_was_found():
    assert len(caption_boost(ranking({}), ranking({})).ids) == 0


def test_a_caption_lifts_its_picture_by_half_the_spread(monkeypatch):
    monkeypatch.setattr(fusion, "SPREAD", 3)
    first = ranking({1: 0.9, 2: 0.8, 3: 0.5, 4: 0.1})
    fused = caption_boost(first, ranking({3: 1.0, 4: 1.0, 2: 0.2}))
    assert as_dict(fused) == pytest.approx({1: 0.9, 2: 0.84, 3: 0.7, 4: 0.3})
    assert fused.ids.tolist() == [1, 2, 3, 4], "the caption's picture is a poor one"
    near = caption_boost(ranking({1: 0.9, 2: 0.85, 3: 0.5}), ranking({2: 1.0}))
    assert near.ids.tolist() == [2, 1, 3]


def test_a_weighted_sum():
    fused = weighted_sum([ranking({1: 1.0, 2: 0.5}), ranking({2: 1.0})], [2.0, -1.0])
    assert as_dict(fused) == {1: 2.0, 2: 0.0}
