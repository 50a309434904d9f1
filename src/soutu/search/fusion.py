"""Hybrid search: what captions say counts beside what pictures show.

A caption that says a text term of the query word for word, or one of its variants, lifts its
picture (``fuse_rankings.lifted``). Mean average precision on 5,000 drawn scenes, the mean of words,
phrases and sentences, hand-written (about 100 each) and generated (about 300), with ``tiny`` and
``tiny-en`` (benchmarks/hybrid.py); in brackets the most that the mean of one of these 12 lost:

    captions                     vector    lifted           RRF              RRF, word for word
    of every picture             0.675     0.772 (0.001)    0.846 (0.056)    0.824 (0.038)
    of 30 % of the pictures      0.675     0.704 (0.001)    0.411 (0.631)    0.702 (0.035)
    English alone                0.675     0.763 (0.001)    0.819 (0.080)    0.803 (0.038)
    a third on wrong pictures    0.675     0.738 (0.004)    0.636 (0.330)    0.717 (0.093)

What is on by default must not harm: "auto" lifts wherever captions can be searched. RRF finds
more where each picture has a true caption, which nobody can tell before. λ and what counts as said
were chosen on these queries; generated ones use the captions' own words. On two collections that
nothing was chosen on (another style, new combinations) the means rose by 0.01 to 0.13, and the most
that one of 24 cells lost was 0.026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from soutu.errors import BadQuery, Missing
from soutu.query.expansion import SWITCHED_OFF
from soutu.query.parser import TEXT
from soutu.text import EN, language
from soutu.types import Floats, Ids, Query, Ranking, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fusion: the vectors of a term's variants become one. ``FUSIONS`` is the table of ways.


MEAN = "mean"
SENSES = "senses"
ANCHOR = 0.5  # what the original weighs in "anchored"

Pooled: TypeAlias = "tuple[Floats, float]"
"""The one vector, float32 (dim,), unit, and the variants' agreement, 0 to 1."""


def mean_pool(vectors: Floats, weights: Sequence[float]) -> Pooled:
    """Weighted mean of unit vectors, renormalised: q = m/‖m‖ with m = Σ wᵢfᵢ / Σ |wᵢ|.

    ``vectors`` float32 (n, dim), n ≥ 1, unit rows. Returns q, float32 (dim,), and the
    agreement ‖m‖ in 0…1; ‖m‖² is the variants' weighted mean pairwise cosine (each with
    itself included). Ranks as the mean of the scores would. Raises BadQuery if the variants
    cancel out.
    """
    w = np.asarray(weights, np.float64)
    mean = w @ vectors.astype(np.float64) / np.abs(w).sum()
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadQuery("query-cancels")
    pooled: Floats = (mean / length).astype(np.float32)
    return pooled, min(1.0, length)


def weighted_mean(vectors: Floats, said: Sequence[Variant]) -> Pooled:
    """The original demo's recipe: all variants, the original among them, pooled at once."""
    return mean_pool(vectors, [variant.weight for variant in said])


def balanced(vectors: Floats, said: Sequence[Variant]) -> Pooled:
    """Each language pooled by itself, then the languages with equal weight, so that the one
    with more variants does not drown the other."""
    english = [language(variant.text) == EN for variant in said]
    sides = []
    for side in (False, True):
        rows = [row for row, is_english in enumerate(english) if is_english is side]
        if rows:
            sides.append(weighted_mean(vectors[rows], [said[row] for row in rows]))
    pooled, _ = mean_pool(np.stack([vector for vector, _ in sides]), [1.0] * len(sides))
    return pooled, weighted_mean(vectors, said)[1]


def anchored(vectors: Floats, said: Sequence[Variant]) -> Pooled:
    """The original counts half, all expansions together the other half."""
    if len(said) == 1:
        return weighted_mean(vectors, said)
    rest = sum(variant.weight for variant in said[1:])
    share = (1 - ANCHOR) / rest
    return mean_pool(vectors, [ANCHOR, *(variant.weight * share for variant in said[1:])])


def pool_by_sense(vectors: Floats, said: Sequence[Variant]) -> Floats:
    """A vector for each sense of a word, float32 (s, dim), unit: the mean of its variants and of
    those that belong to no sense. Searched for side by side, a picture counts by the sense that it
    shows best (max over senses). One vector, the mean of all, for a word without several senses."""
    senses = dict.fromkeys(one.source for one in said if ":" in one.source)
    groups = [
        [at for at, one in enumerate(said) if one.source == sense or ":" not in one.source]
        for sense in senses
    ]
    if len(groups) < 2:
        groups = [list(range(len(said)))]
    return np.stack(
        [weighted_mean(vectors[rows], [said[row] for row in rows])[0] for rows in groups]
    )


Pooling: TypeAlias = "Callable[[Floats, Sequence[Variant]], Pooled]"
POOLINGS: Mapping[str, Pooling] = {
    MEAN: weighted_mean,
    "balanced": balanced,
    "anchored": anchored,
    SENSES: weighted_mean,  # and the senses searched for side by side
}


# Fusion of rankings: several orders of the same pictures become one. ``RANKINGS`` is the table.
#
# Each takes n rankings (of the vectors, of the captions' words; or of several models) and gives one
# of all that any of them holds, ties by id.


FloatArray: TypeAlias = "NDArray[np.floating[Any]]"

K = 60  # of reciprocal ranks, as Cormack et al. chose it
BOOST = 0.5  # of the spread, for a caption that says the words best
SPREAD = 100  # places over which the spread is taken


def reciprocal_rank(rankings: Sequence[Ranking]) -> Ranking:
    """RRF: s(d) = Σᵣ 1 / (60 + rankᵣ(d)), ranks from 1, over the rankings that hold d.

    Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods, SIGIR 2009. Needs no scores that can be compared.
    """
    return _summed([(one.ids, 1 / (K + np.arange(1.0, len(one.ids) + 1))) for one in rankings])


def comb_max(rankings: Sequence[Ranking]) -> Ranking:
    """CombMAX: s(d) = maxᵣ sᵣ(d), of scores on one scale (Fox, Shaw, as ``comb_mnz``)."""
    ids, scores = _joined([(one.ids, one.scores.astype(np.float64)) for one in rankings])
    every, place = unique_ids(ids)
    best = np.full(len(every), -np.inf)
    np.maximum.at(best, place, scores)
    return rank_by_score(every, best)


def comb_mnz(rankings: Sequence[Ranking]) -> Ranking:
    """CombMNZ: s(d) = |{r holding d}| · Σᵣ (sᵣ(d) - minᵣ) / (maxᵣ - minᵣ).

    Fox, Shaw: Combination of Multiple Searches, TREC-2, 1994. Each ranking's scores are brought to
    0…1 (1 where they are all the same).
    """
    total = _summed([(one.ids, _unit(one.scores)) for one in rankings])
    held = _summed([(one.ids, np.ones(len(one.ids))) for one in rankings])
    count = held.scores[np.argsort(held.ids)[np.searchsorted(np.sort(held.ids), total.ids)]]
    return rank_by_score(total.ids, total.scores * count)


def weighted_sum(rankings: Sequence[Ranking], weights: Sequence[float]) -> Ranking:
    """Linear combination: s(d) = Σᵣ wᵣ sᵣ(d), over the rankings that hold d."""
    pairs = zip(rankings, weights, strict=True)
    return _summed([(one.ids, weight * one.scores.astype(np.float64)) for one, weight in pairs])


def caption_boost(rankings: Sequence[Ranking]) -> Ranking:
    """The first ranking's scores, to which the others add by how much its best pictures differ:
    s(d) = c(d) + λ (c₁ - cₘ) Σᵣ tᵣ(d), λ = ``LIFT``, m = ``SPREAD`` or the last.

    c are the first ranking's scores, of every picture that any other holds; cₘ is the m-th. t are
    the others', 0…1. A linear combination (Bruch, Gai, Ingber: An Analysis of Fusion Functions for
    Hybrid Retrieval, ACM TOIS 2023) on the query's own scale: it moves a picture up by at most half
    of what parts the best from the hundredth, so that no bad picture comes over the good ones.
    """
    first, *others = rankings
    if not len(first.ids):
        return first
    spread = float(first.scores[0] - first.scores[min(SPREAD, len(first.scores)) - 1])
    return weighted_sum(rankings, [1.0, *(BOOST * spread for _ in others)])


def rank_by_score(ids: Ids, scores: FloatArray) -> Ranking:
    """A ranking of ``ids`` by ``scores`` (n,); ties are those of the float32 that is told."""
    kept: Floats = scores.astype(np.float32)
    order = np.lexsort((ids, -kept))
    return Ranking(ids[order], kept[order])


def unique_ids(ids: Ids) -> tuple[Ids, Ids]:
    """``ids`` once each, ascending, and where among those each of them stands. As ``numpy.unique``,
    which imports numpy.ma (20 ms of a cold search)."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    first = np.ones(len(ids), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    place = np.empty(len(ids), np.int64)
    place[order] = np.cumsum(first) - 1
    return ascending[first], place


def _unit(scores: Floats) -> FloatArray:
    wide = scores.astype(np.float64)
    if not len(wide) or wide.max() == wide.min():
        return np.ones(len(wide))
    unit: FloatArray = (wide - wide.min()) / (wide.max() - wide.min())
    return unit


def _joined(parts: Sequence[tuple[Ids, FloatArray]]) -> tuple[Ids, FloatArray]:
    ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)])
    return ids, np.concatenate([np.empty(0), *(scores for _, scores in parts)])


def _summed(parts: Sequence[tuple[Ids, FloatArray]]) -> Ranking:
    ids, scores = _joined(parts)
    every, place = unique_ids(ids)
    sums: FloatArray = np.bincount(place, scores, len(every)).astype(np.float64)
    return rank_by_score(every, sums)


RankingFusion: TypeAlias = "Callable[[Sequence[Ranking]], Ranking]"
RANKING_FUSIONS: Mapping[str, RankingFusion] = {
    "lifted": caption_boost,
    "rrf": reciprocal_rank,
    "combmax": comb_max,
    "combmnz": comb_mnz,
}


AUTO, ON, OFF = "auto", "on", "off"
VECTOR = "vector"  # what ranked where no caption had a say
HYBRID_FUSION = "lifted"
EXACT = np.float32(2 / 3)  # above it lie the store's scores of what says a text word for word
MAX_CAPTION_HITS = 1000  # pictures at most whose captions have a say
NOTHING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class RankingSources:
    """What is asked of the store: the ``k`` images nearest to the query's vector; those whose
    captions say a text word for word; exact products, float32 (n,), of images with the vector."""

    nearest: Callable[[int], Ranking]
    said: Callable[[str, int], Ranking]
    products: Callable[[Ids], Floats]


@dataclass(frozen=True)
class HybridResult:
    """A ranking, the products with the query's vector beside it, float32 (n,), what the vector
    alone would have ranked first, and what ranked."""

    ranking: Ranking
    products: Floats
    nearest: Ranking
    by: str = VECTOR


def rank_with_captions(
    query: Query, variants: Sequence[Variant], sources: RankingSources, k: int, mode: str
) -> HybridResult:
    """The ``k`` best images for ``query``. Its positive text terms are looked for in captions, by
    all their ``variants``, also those that the model is not asked. ``mode``: off; auto; on, which
    raises Missing where captions cannot be searched."""
    words = NOTHING
    if mode != OFF:
        try:
            words = caption_matches(query, variants, sources.said)
        except Missing:
            if mode == ON:
                raise
    if not len(words.ids):
        nearest = sources.nearest(k)
        return HybridResult(nearest, nearest.scores, nearest)
    return fuse_with_captions(sources.nearest(max(k, SPREAD)), words, sources.products, k)


def caption_matches(
    query: Query, variants: Sequence[Variant], said: Callable[[str, int], Ranking]
) -> Ranking:
    """Images whose captions say terms of ``query``, 0…1: each term by its best variant (which
    counts by its weight, 1 at most) of those that nobody switched off, the terms by their
    weights."""
    terms, weights = [], []
    for at, term in enumerate(query.terms):
        if term.kind == TEXT and term.weight > 0:
            own = [one for one in variants if one.term == at and one.unused != SWITCHED_OFF]
            found = [
                (_exact(said(one.text, MAX_CAPTION_HITS)), min(1.0, one.weight)) for one in own
            ]
            terms.append(comb_max([Ranking(r.ids, r.scores * np.float32(w)) for r, w in found]))
            weights.append(term.weight)
    return weighted_sum(terms, [weight / sum(weights) for weight in weights])


def fuse_with_captions(
    nearest: Ranking,
    words: Ranking,
    products: Callable[[Ids], Floats],
    k: int,
    *,
    by: str = HYBRID_FUSION,
) -> HybridResult:
    """The best ``k`` of what either found; ``by`` is a name in ``fuse_rankings.RANKINGS``."""
    known = set(nearest.ids.tolist())
    also = np.array([id_ for id_ in words.ids.tolist() if id_ not in known], np.int64)
    ids = np.concatenate([nearest.ids, also])
    plain = np.concatenate([nearest.scores, products(also)])
    ranking = RANKING_FUSIONS[by]([rank_by_score(ids, plain), words])
    best = Ranking(ranking.ids[:k], ranking.scores[:k])
    place = np.argsort(ids)
    own = plain[place[np.searchsorted(ids, best.ids, sorter=place)]]
    return HybridResult(best, own, nearest, by)


def _exact(found: Ranking) -> Ranking:
    """Scores of what says it word for word, from 0 to 1."""
    return Ranking(found.ids, np.maximum(0, found.scores - EXACT) / (1 - EXACT))
