"""Whole rankings, a block of queries at a time.

Scores count to six decimals, as they are written into runs: what is equal there is a tie, and a
tie with a wrong target counts against the right one. Further ties go by the targets' order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soutu.types import Floats, Ids

MICRO = 1_000_000
_CELLS = 2_000_000  # of one block's scores: 16 MB an array


@dataclass(frozen=True)
class Block:
    """The queries from ``start`` on: their best columns, (q, depth), the scores of these in
    millionths, and the rank (from 1) of each query's first right target; 0 where it has none."""

    start: int
    top: Ids
    scores: Ids
    first: Ids


def ranked(
    queries: Floats, targets: Floats, right: Sequence[Collection[int]], depth: int
) -> Iterator[Block]:
    """``queries`` (q, dim) against ``targets`` (n, dim), unit rows; ``right`` are each query's
    columns. At most ``depth`` columns are kept, ranks are counted among all."""
    step = max(1, _CELLS // max(1, len(targets)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        yield _block(queries[rows] @ targets.T, right[rows], depth, start)


def _block(scores: Floats, right: Sequence[Collection[int]], depth: int, start: int) -> Block:
    count, n = scores.shape
    millionths = np.rint(scores.astype(np.float64) * MICRO).astype(np.int64)
    # One number that sorts by score, then wrong before right, then column: no two are equal, so
    # that the order is the same whatever the sort.
    keys = -2 * millionths
    for row, columns in enumerate(right):
        keys[row, [*columns]] += 1
    keys *= n
    keys += np.arange(n)
    first = np.zeros(count, np.int64)
    for row, columns in enumerate(right):
        if columns:
            first[row] = 1 + int((keys[row] < keys[row, [*columns]].min()).sum())
    depth = min(depth, n)
    top = np.argpartition(keys, depth - 1, axis=1)[:, :depth] if depth < n else None
    best = keys if top is None else np.take_along_axis(keys, top, axis=1)
    order = np.argsort(best, axis=1)
    top = order if top is None else np.take_along_axis(top, order, axis=1)
    return Block(start, top, np.take_along_axis(millionths, top, axis=1), first)
