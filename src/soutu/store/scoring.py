"""Pick the best of many scores: exact, in an order that depends on nothing but the scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from soutu.types import Floats, Ids, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

Positions: TypeAlias = "NDArray[np.intp]"

_EPS = float(np.finfo(np.float32).eps)
_FEW = 1000  # up to this many scores, sorting is faster than picking the best
_BLOCK_VALUES = 1 << 20  # float64 values in flight while rescoring: 8 MiB


def top_k(scores: Floats, ids: Ids, k: int) -> Ranking:
    """Return the ``k`` highest ``scores`` (n,), descending, ties by ``ids`` (n,) ascending.

    This holds where ties straddle the k-th place too. All of them if ``k`` exceeds n,
    none if it is below 1. Scores must not be NaN.
    """
    count = len(scores)
    if k < 1 or count == 0:
        return Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
    if k < count > _FEW:
        # A partition may keep any of the rows that tie at its edge: settle those by id.
        edge = np.partition(scores, count - k)[count - k]
        above = np.flatnonzero(scores > edge)
        tied = np.flatnonzero(scores == edge)
        remaining = k - len(above)
        tied = tied[np.argpartition(ids[tied], remaining - 1)[:remaining]]
        chosen = np.concatenate([above, tied])
        scores, ids = scores[chosen], ids[chosen]
    order = np.lexsort((ids, -scores))[:k]
    return Ranking(
        ids[order].astype(np.int64, copy=False), scores[order].astype(np.float32, copy=False)
    )


def rescoring_candidates(scores: Floats, k: int, vector: Floats) -> Positions:
    """Return the positions of all rows that may be among the best ``k`` >= 1.

    ``scores`` (n,) are float32 inner products of unit rows with ``vector`` (dim,). Their last
    digits depend on the row's place in the block and on the number of threads, so rows that this
    may have reordered are kept, for ``exact_scores`` to settle.
    """
    count = len(scores)
    if k >= count:
        return np.arange(count)
    slack = _EPS * len(vector) * math.sqrt(float(vector @ vector))
    edge = np.partition(scores, count - k)[count - k]
    return np.flatnonzero(scores >= edge - slack)


def exact_scores(rows: Floats, vector: Floats, slots: Ids | None = None) -> Floats:
    """Compute inner products of ``rows`` (n, dim) with ``vector`` (dim,) in float64.

    Summed row by row: equal rows have equal scores wherever they stand. Of the rows at ``slots``
    (m,) alone, if given.
    """
    wide = vector.astype(np.float64)
    step = max(1, _BLOCK_VALUES // len(vector))
    scores = np.empty(len(rows) if slots is None else len(slots), np.float32)
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        block = rows[part] if slots is None else rows[slots[part]]
        scores[part] = (block * wide).sum(axis=1)
    return scores


def validate_query_vector(vector: Floats, dim: int) -> Floats:
    """Return ``vector`` as float32 (dim,); ValueError for another shape or if it is not finite."""
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dim,):
        raise ValueError(f"a query vector is ({dim},), not {query.shape}")
    if not np.isfinite(query).all():
        raise ValueError("a query vector must be finite")
    return query


def validate_rows(vectors: Floats, count: int, dim: int) -> Floats:
    """Return ``vectors`` as contiguous float32 (count, dim).

    ValueError for another shape or a value that is not finite: one NaN in a slab would upset
    every ranking after it.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.shape != (count, dim):
        raise ValueError(f"vectors for {count} items are ({count}, {dim}), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("vectors must be finite")
    return rows
