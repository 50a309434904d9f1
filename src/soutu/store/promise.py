"""The recall promise: how much effort a search must make, found by trying.

ANN fails quietly, and on text most of all: texts lie off the cone of the pictures, where the
lists of an index were not drawn for them. What reaches a recall of 1.0 on pictures reached 0.73
on texts in our measurements (benchmarks/results/search.json). So effort is chosen on queries
like those that will be asked, against the exact answers, and what was reached is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from soutu.store.manifest import Level, Reached
from soutu.types import Floats, Ids

DEPTHS = (10, 100)  # results that effort is found for
CANDIDATES = (20, 32, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 4000)
SCORING = 28  # one candidate's vector costs as much as scanning so many codes
_BLOCK = 1 << 15
_MOST = max(DEPTHS) + 20  # some more: who ties at the edge is right too
_TIE = 1e-6  # scores as close as this are one as good as the other

Queries: TypeAlias = Mapping[str, Floats]


@dataclass(frozen=True)
class Right:
    """For each query the ids of its exact best (``ids`` (q, most), best first) and ``good``:
    how many of these count as right among the best k, ties included, by k."""

    ids: Ids
    good: Mapping[int, Ids]

    def hits(self, found: Ids, k: int) -> Ids:
        """(q, candidates): of the best k, how many are among the first candidates ``found``
        (q, candidates), up to each."""
        table = np.zeros(found.shape, np.int64)
        for row, (ids, good) in enumerate(zip(self.ids, self.good[k], strict=True)):
            table[row] = np.minimum(np.cumsum(np.isin(found[row], ids[:good])), k)
        return table


class Exact:
    """The exact answers to ``queries`` (q, dim), found block by block, so that no more than a block
    is in memory."""

    def __init__(self, queries: Floats) -> None:
        self._queries = queries
        self._scores = np.empty((len(queries), 0), np.float32)
        self._ids: Ids = np.empty((len(queries), 0), np.int64)

    def take(self, ids: Ids, vectors: Floats) -> None:
        """Look at these ``vectors`` (n, dim) of ``ids`` (n,) too."""
        block = self._queries @ vectors.T
        if block.shape[1] > _MOST:
            kept = np.argpartition(-block, _MOST - 1, axis=1)[:, :_MOST]
            block = np.take_along_axis(block, kept, axis=1)
            found = ids[kept]
        else:
            found = np.broadcast_to(ids, block.shape)
        scores = np.hstack([self._scores, block])
        found = np.hstack([self._ids, found])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_MOST]
        self._scores = np.take_along_axis(scores, order, axis=1)
        self._ids = np.take_along_axis(found, order, axis=1)

    def right(self) -> Right:
        """What was right among all that was looked at."""
        scores, most = self._scores, self._scores.shape[1]
        good = {k: (scores >= scores[:, min(k, most) - 1, None] - _TIE).sum(axis=1) for k in DEPTHS}
        return Right(self._ids, good)


def tuned(
    index: Any,  # noqa: ANN401  (Faiss has no types)
    vectors: Floats,
    queries: Queries,
    target: float,
) -> tuple[Level, ...]:
    """The least effort for each depth that keeps recall at ``target`` on each kind of
    ``queries`` (name → (q, dim)). Effort is chosen on every other query, so that the lower end
    of the 95 % interval is no less than the target; it must also hold on the rest, and what is
    reported is what was reached there. A depth that cannot be reached is left out: such searches
    will be exact.

    ``index`` holds ``vectors`` (n, dim), its ids are their rows.
    """
    right = {name: _exact(vectors, asked) for name, asked in queries.items()}
    best: dict[int, tuple[int, Level]] = {}
    for lists in _probes(index.nlist):
        found = {name: _candidates(index, asked, lists) for name, asked in queries.items()}
        scanned = len(vectors) * lists // index.nlist
        for k in DEPTHS:
            level = _cheapest(k, lists, found, right, target)
            if level is None:
                continue
            cost = scanned + SCORING * level.candidates
            if k not in best or cost < best[k][0]:
                best[k] = (cost, level)
    return tuple(best[k][1] for k in DEPTHS if k in best)


def _probes(lists: int) -> list[int]:
    """From a 32nd of the lists to all, in steps of about √2."""
    steps = {max(1, round(lists / 2 ** (half / 2))) for half in range(11)}
    return sorted(steps)


def _cheapest(
    k: int,
    lists: int,
    found: Mapping[str, Ids],
    right: Mapping[str, Right],
    target: float,
) -> Level | None:
    """The fewest candidates that do on every kind of query; None where the most do not."""
    hits = {name: right[name].hits(found[name], k) for name in found}
    for count in CANDIDATES:
        if count < k:
            continue
        if held := kept({name: table[:, count - 1] for name, table in hits.items()}, k, target):
            return Level(k, lists, count, held)
    return None


def kept(hits: Mapping[str, Ids], k: int, target: float) -> Mapping[str, Reached] | None:
    """What was reached on every other query where ``hits`` (q,), of the best k, by kind of query,
    keep the promise; None where they do not."""
    chosen = [_reached(table[::2], k) for table in hits.values()]
    held = {name: _reached(table[1::2], k) for name, table in hits.items()}
    if min(one.low for one in chosen) >= target <= min(one.recall for one in held.values()):
        return held
    return None


def _reached(hits: Ids, k: int) -> Reached:
    recalls = hits / k
    mean = float(recalls.mean())
    half = 1.96 * float(recalls.std()) / len(recalls) ** 0.5
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Reached(len(recalls), round(mean, 5), round(low, 5), round(high, 5))


def _candidates(index: Any, queries: Floats, lists: int) -> Ids:  # noqa: ANN401
    import faiss

    effort = faiss.SearchParametersIVF(nprobe=lists)
    found: Ids = index.search(queries, max(CANDIDATES), params=effort)[1]
    return found


def _exact(vectors: Floats, queries: Floats) -> Right:
    exact = Exact(queries)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        exact.take(np.arange(start, start + len(block)), block)
    return exact.right()
