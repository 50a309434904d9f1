"""Engines take turns, a few queries at a time: what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from benchmarks.search_data import Asked, Figures, K
from soutu.types import Floats, Ids

Search: TypeAlias = Callable[[Floats], Ids]
"""One query (dim,) to the rows (k,) of its answers."""
Engine: TypeAlias = Callable[[Floats], tuple[Floats, Ids]]
"""Queries (q, dim), one after another, to the milliseconds (q,) and the answers (q, k) of each."""

BLOCK = 10  # queries of a turn


def engine(search: Search) -> Engine:
    def answer(queries: Floats) -> tuple[Floats, Ids]:
        taken, found = [], []
        for query in queries:
            start = time.perf_counter()
            found.append(search(query))
            taken.append(1000 * (time.perf_counter() - start))
        return np.array(taken, np.float32), np.stack(found)

    return answer


def turns(
    engines: Mapping[str, Engine], asked: Asked, vectors: Floats
) -> tuple[dict[str, Figures], dict[str, Floats]]:
    """Figures of each engine, and the milliseconds (q,) of each query. Whose turn it is is drawn,
    and no two that follow each other answer the same queries: the second would find in the caches
    what the first has read."""
    queries = asked.queries
    taken = {name: np.empty(len(queries), np.float32) for name in engines}
    found = {name: np.empty((len(queries), K), np.int64) for name in engines}
    for answer in engines.values():
        answer(queries[:BLOCK])
    rng = np.random.default_rng(0)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(queries), BLOCK)]
    for turn in range(len(blocks)):
        for place in rng.permutation(len(engines)):
            name = list(engines)[place]
            block = blocks[(turn + place * len(blocks) // len(engines)) % len(blocks)]
            taken[name][block], found[name][block] = engines[name](queries[block])
    figures: dict[str, Figures] = {
        name: {
            **milliseconds(taken[name]),
            **recalled(asked.get_meta(vectors, found[name])),
        }
        for name in engines
    }
    return figures, taken


def milliseconds(taken: Floats) -> Figures:
    return {
        "queries": len(taken),
        "p50 ms": round(float(np.median(taken)), 3),
        "p95 ms": round(float(np.percentile(taken, 95)), 3),
    }


def recalled(recall: Floats) -> Figures:
    """Mean recall@10 and half its 95 % interval."""
    half = 1.96 * float(recall.std()) / len(recall) ** 0.5
    return {"recall@10": round(float(recall.mean()), 4), "± 95 %": round(half, 4)}


def ratio(one: Floats, other: Floats) -> Figures:
    """How many times as long as ``other`` ``one`` takes, over the queries that both answered: the
    first ones."""
    both = min(len(one), len(other))
    one, other = one[:both], other[:both]
    return {
        "of medians": round(float(np.median(one) / np.median(other)), 3),
        "median of ratios": round(float(np.median(one / other)), 3),
    }
