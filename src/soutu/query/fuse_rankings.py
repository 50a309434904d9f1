"""Fusion of rankings: several orders of the same pictures become one. ``RANKINGS`` is the table.

Each takes n rankings (of the vectors, of the captions' words; or of several models) and gives one
of all that any of them holds, ties by id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from soutu.types import Floats, Ids, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

Wide: TypeAlias = "NDArray[np.floating[Any]]"

K = 60  # of reciprocal ranks, as Cormack et al. chose it
LIFT = 0.5  # of the spread, for a caption that says the words best
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
    every, place = distinct(ids)
    best = np.full(len(every), -np.inf)
    np.maximum.at(best, place, scores)
    return ordered(every, best)


def comb_mnz(rankings: Sequence[Ranking]) -> Ranking:
    """CombMNZ: s(d) = |{r holding d}| · Σᵣ (sᵣ(d) - minᵣ) / (maxᵣ - minᵣ).

    Fox, Shaw: Combination of Multiple Searches, TREC-2, 1994. Each ranking's scores are brought to
    0…1 (1 where they are all the same).
    """
    total = _summed([(one.ids, _unit(one.scores)) for one in rankings])
    held = _summed([(one.ids, np.ones(len(one.ids))) for one in rankings])
    count = held.scores[np.argsort(held.ids)[np.searchsorted(np.sort(held.ids), total.ids)]]
    return ordered(total.ids, total.scores * count)


def weighted_sum(rankings: Sequence[Ranking], weights: Sequence[float]) -> Ranking:
    """Linear combination: s(d) = Σᵣ wᵣ sᵣ(d), over the rankings that hold d."""
    pairs = zip(rankings, weights, strict=True)
    return _summed([(one.ids, weight * one.scores.astype(np.float64)) for one, weight in pairs])


def lifted(rankings: Sequence[Ranking]) -> Ranking:
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
    return weighted_sum(rankings, [1.0, *(LIFT * spread for _ in others)])


def ordered(ids: Ids, scores: Wide) -> Ranking:
    """A ranking of ``ids`` by ``scores`` (n,); ties are those of the float32 that is told."""
    kept: Floats = scores.astype(np.float32)
    order = np.lexsort((ids, -kept))
    return Ranking(ids[order], kept[order])


def distinct(ids: Ids) -> tuple[Ids, Ids]:
    """``ids`` once each, ascending, and where among those each of them stands. As ``numpy.unique``,
    which imports numpy.ma (20 ms of a cold search)."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    first = np.ones(len(ids), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    place = np.empty(len(ids), np.int64)
    place[order] = np.cumsum(first) - 1
    return ascending[first], place


def _unit(scores: Floats) -> Wide:
    wide = scores.astype(np.float64)
    if not len(wide) or wide.max() == wide.min():
        return np.ones(len(wide))
    unit: Wide = (wide - wide.min()) / (wide.max() - wide.min())
    return unit


def _joined(parts: Sequence[tuple[Ids, Wide]]) -> tuple[Ids, Wide]:
    ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)])
    return ids, np.concatenate([np.empty(0), *(scores for _, scores in parts)])


def _summed(parts: Sequence[tuple[Ids, Wide]]) -> Ranking:
    ids, scores = _joined(parts)
    every, place = distinct(ids)
    sums: Wide = np.bincount(place, scores, len(every)).astype(np.float64)
    return ordered(every, sums)


Fusion: TypeAlias = "Callable[[Sequence[Ranking]], Ranking]"
RANKINGS: Mapping[str, Fusion] = {
    "lifted": lifted,
    "rrf": reciprocal_rank,
    "combmax": comb_max,
    "combmnz": comb_mnz,
}
