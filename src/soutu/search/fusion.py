"""Rank images for the vectors and penalties of a query, and fuse rankings of several retrievers.

These are the vectors and the words of captions, the senses of a word, or several models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from soutu.store.base import Searchable
from soutu.types import Filter, Floats, Ids, Penalty, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.floating[Any]]"

RRF_K = 60  # as Cormack et al. chose it
BOOST = 0.5  # of the spread, for a caption that matches best
SPREAD = 100  # ranks over which the spread is taken
MIN_CANDIDATES, CANDIDATE_FACTOR, MAX_CANDIDATES = 64, 8, 20_000  # of a query with penalties


@dataclass(frozen=True, eq=False)
class QueryScorer:
    """Score and retrieve images of a store for several vectors and penalties.

    s(x) = maxᵢ vᵢ·x − Σⱼ wⱼ max(0, nⱼ·x − θⱼ)

    A word with several senses has a vector v for each. A negative term has a vector n: what an
    image shows of it beyond the threshold θ counts against it, and what it does not show counts
    for nothing. Subtracting n from the query instead, as rclip does, finds what lies farthest from
    it, wanted or not: the mean average precision of ``A - B`` fell from 0.61 (A alone) to 0.29 and
    rose to 0.64 with penalties (drawn scenes, four runs: benchmarks/negatives.py).

    Parameters
    ----------
    store
        Holds the images.
    vectors
        float32 (s, dim), one a sense.
    penalties
        Of negative terms.
    where
        A filter that retrieved images pass.
    """

    store: Searchable
    vectors: Floats
    penalties: Sequence[Penalty] = ()
    where: Filter | None = None

    def score(self, ids: Ids) -> Floats:
        """Score images exactly, float32 (n,)."""
        images = self.store.image_vectors(ids.tolist()).astype(np.float64)
        best = (images @ self.vectors.T.astype(np.float64)).max(axis=1)
        for penalty in self.penalties:
            excess = images @ penalty.vector.astype(np.float64) - penalty.threshold
            best -= penalty.weight * np.maximum(0, excess)
        scores: Floats = best.astype(np.float32)
        return scores

    def top_k(self, k: int) -> Ranking:
        """Retrieve the ``k`` best images."""
        if not self.penalties:
            return self._nearest(k)
        count = max(MIN_CANDIDATES, CANDIDATE_FACTOR * k)
        while True:
            candidates = self._nearest(count)
            ranking = rank_by_score(candidates.ids, self.score(candidates.ids))
            # Penalties only lower: what lies below the last candidate cannot come to the front.
            exhausted = len(candidates.ids) < count or len(ranking.ids) < k
            complete = exhausted or ranking.scores[k - 1] >= candidates.scores[-1]
            if complete or count >= MAX_CANDIDATES:
                return Ranking(ranking.ids[:k], ranking.scores[:k])
            count = min(MAX_CANDIDATES, 4 * count)

    def _nearest(self, k: int) -> Ranking:
        rankings = [self.store.search_images(vector, k, self.where) for vector in self.vectors]
        if len(rankings) == 1:
            return rankings[0]
        # An image outside a sense's first k scores less for it: the union holds the best.
        fused = comb_max(rankings)
        return Ranking(fused.ids[:k], fused.scores[:k])


def reciprocal_rank(rankings: Sequence[Ranking]) -> Ranking:
    """Fuse by reciprocal rank: s(d) = Σᵣ 1 / (60 + rankᵣ(d)) over the rankings that hold d.

    Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods, SIGIR 2009. Needs no scores that can be compared.
    """
    return _sum_scores([(r.ids, 1 / (RRF_K + np.arange(1.0, len(r.ids) + 1))) for r in rankings])


def comb_max(rankings: Sequence[Ranking]) -> Ranking:
    """Fuse by CombMAX: s(d) = maxᵣ sᵣ(d), of scores on one scale.

    Fox, Shaw: Combination of Multiple Searches, TREC-2, 1994.
    """
    ids, scores = _concatenate([(r.ids, r.scores.astype(np.float64)) for r in rankings])
    unique, inverse = _unique(ids)
    best = np.full(len(unique), -np.inf)
    np.maximum.at(best, inverse, scores)
    return rank_by_score(unique, best)


def weighted_sum(rankings: Sequence[Ranking], weights: Sequence[float]) -> Ranking:
    """Fuse linearly: s(d) = Σᵣ wᵣ sᵣ(d), over the rankings that hold d."""
    pairs = zip(rankings, weights, strict=True)
    return _sum_scores([(r.ids, weight * r.scores.astype(np.float64)) for r, weight in pairs])


def caption_boost(ranking: Ranking, matches: Ranking) -> Ranking:
    """Move images whose captions match the query up by at most half the spread of the scores.

    s(d) = c(d) + λ (c₁ - cₘ) t(d) with λ = ``BOOST``, m = ``SPREAD`` or the last, c the scores of
    ``ranking`` (which holds every image of ``matches``) and t those of ``matches``, 0 to 1. A
    linear combination (Bruch, Gai, Ingber: An Analysis of Fusion Functions for Hybrid Retrieval,
    ACM TOIS 2023) on the query's own scale: an image moves up by at most half of what separates
    the first from the hundredth, so that no bad image overtakes the good ones.

    Notes
    -----
    Mean average precision on 5,000 drawn scenes, the mean of words, phrases and sentences,
    hand-written (about 100 each) and generated (about 300), with ``tiny`` and ``tiny-en``
    (benchmarks/hybrid.py); in brackets the most that the mean of one of these 12 lost:

    =========================  ======  =============  =============  ================
    captions                   vector  boost          RRF            RRF, exact words
    =========================  ======  =============  =============  ================
    of every picture           0.675   0.772 (0.001)  0.846 (0.056)  0.824 (0.038)
    of 30 % of the pictures    0.675   0.704 (0.001)  0.411 (0.631)  0.702 (0.035)
    English only               0.675   0.763 (0.001)  0.819 (0.080)  0.803 (0.038)
    a third on wrong pictures  0.675   0.738 (0.004)  0.636 (0.330)  0.717 (0.093)
    =========================  ======  =============  =============  ================

    What is on by default must not harm, so the boost is. RRF finds more where each picture has a
    true caption, which cannot be known in advance. λ was chosen on these queries; generated ones
    use the captions' own words. On two collections that nothing was chosen on (another style, new
    combinations) the means rose by 0.01 to 0.13; the worst of 24 cells lost 0.026.
    """
    if not len(ranking.ids):
        return ranking
    spread = float(ranking.scores[0] - ranking.scores[min(SPREAD, len(ranking.scores)) - 1])
    return weighted_sum([ranking, matches], [1.0, BOOST * spread])


def fuse_captions(
    scorer: QueryScorer, nearest: Ranking, matches: list[tuple[float, list[Ranking]]], k: int
) -> tuple[Ranking, Floats]:
    """Return the ``k`` best of what either found, and their scores by the vectors alone.

    Of captions a term counts by its best variant, and the terms by their weights.
    """
    matched = {i for _, rankings in matches for ranking in rankings for i in ranking.ids.tolist()}
    new = np.array(sorted(matched.difference(nearest.ids.tolist())), np.int64)
    ids, products = nearest.ids, nearest.scores
    if len(new):
        ids = np.concatenate([ids, new])
        products = np.concatenate([products, scorer.score(new)])
    total = sum(weight for weight, _ in matches)
    by_captions = weighted_sum(
        [comb_max(rankings) for _, rankings in matches], [weight / total for weight, _ in matches]
    )
    fused = caption_boost(rank_by_score(ids, products), by_captions)
    best = Ranking(fused.ids[:k], fused.scores[:k])
    order = np.argsort(ids)
    return best, products[order[np.searchsorted(ids, best.ids, sorter=order)]]


def rank_by_score(ids: Ids, scores: FloatArray) -> Ranking:
    """Rank ``ids`` by ``scores`` (n,), descending, ties (of the float32 scores) by id."""
    rounded: Floats = scores.astype(np.float32)
    order = np.lexsort((ids, -rounded))
    return Ranking(ids[order], rounded[order])


def _sum_scores(parts: Sequence[tuple[Ids, FloatArray]]) -> Ranking:
    ids, scores = _concatenate(parts)
    unique, inverse = _unique(ids)
    sums: FloatArray = np.bincount(inverse, scores, len(unique)).astype(np.float64)
    return rank_by_score(unique, sums)


def _concatenate(parts: Sequence[tuple[Ids, FloatArray]]) -> tuple[Ids, FloatArray]:
    ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)])
    return ids, np.concatenate([np.empty(0), *(scores for _, scores in parts)])


def _unique(ids: Ids) -> tuple[Ids, Ids]:
    """``numpy.unique(ids, return_inverse=True)``, which imports numpy.ma (20 ms cold)."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    first = np.ones(len(ids), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    inverse = np.empty(len(ids), np.int64)
    inverse[order] = np.cumsum(first) - 1
    return ascending[first], inverse
