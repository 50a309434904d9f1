"""Fuse the vectors of a query's variants, and the rankings of several retrievers.

Pooling makes one vector of a term's variants; rank fusion makes one ranking of several (of the
vectors and of the captions' words; or of several models).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from soutu.errors import BadQuery
from soutu.text import EN, language
from soutu.types import Floats, Ids, Ranking, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.floating[Any]]"

RRF_K = 60  # as Cormack et al. chose it
BOOST = 0.5  # of the spread, for a caption that matches best
SPREAD = 100  # ranks over which the spread is taken


def mean_pool(vectors: Floats, weights: Sequence[float]) -> tuple[Floats, float]:
    """Pool unit vectors into their renormalised weighted mean.

    q = m/‖m‖ with m = Σ wᵢfᵢ / Σ |wᵢ|. Ranks as the weighted mean of the scores would.

    Parameters
    ----------
    vectors
        float32 (n, dim), n ≥ 1, unit rows.
    weights
        n weights; a negative one subtracts.

    Returns
    -------
    vector : float32 (dim,)
        Unit length.
    agreement : float
        ‖m‖, 0 to 1; ‖m‖² is the weighted mean pairwise cosine of the vectors (each with itself
        included).

    Raises
    ------
    BadQuery
        If the vectors cancel out.
    """
    w = np.asarray(weights, np.float64)
    mean = w @ vectors.astype(np.float64) / np.abs(w).sum()
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadQuery("query-cancels")
    pooled: Floats = (mean / length).astype(np.float32)
    return pooled, min(1.0, length)


def pool_variants(
    vectors: Floats, variants: Sequence[Variant], *, by_language: bool = False
) -> tuple[Floats, float]:
    """Pool the variants of one term by their weights; returns as ``mean_pool``.

    ``by_language`` pools each language by itself, then the languages with equal weight, so that
    the one with more variants does not drown the other.
    """
    pooled, agreement = mean_pool(vectors, [variant.weight for variant in variants])
    if not by_language:
        return pooled, agreement
    english = [language(variant.text) == EN for variant in variants]
    sides = []
    for side in (False, True):
        rows = [row for row, is_english in enumerate(english) if is_english is side]
        if rows:
            sides.append(mean_pool(vectors[rows], [variants[row].weight for row in rows])[0])
    return mean_pool(np.stack(sides), [1.0] * len(sides))[0], agreement


def pool_by_sense(vectors: Floats, variants: Sequence[Variant]) -> Floats:
    """Pool a word's variants sense by sense.

    Searched for side by side, an image counts by the sense it shows best (max over senses). A
    sense is pooled from its own variants and those that belong to none.

    Returns
    -------
    float32 (senses, dim)
        Unit rows; a single one, the mean of all, for a word without several senses.
    """
    senses = dict.fromkeys(variant.source for variant in variants if ":" in variant.source)
    groups = [
        [i for i, v in enumerate(variants) if v.source == sense or ":" not in v.source]
        for sense in senses
    ]
    if len(groups) < 2:
        groups = [list(range(len(variants)))]
    return np.stack([mean_pool(vectors[g], [variants[i].weight for i in g])[0] for g in groups])


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
