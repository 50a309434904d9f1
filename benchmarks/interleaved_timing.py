"""Engines take turns, a few queries at a time: what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from benchmarks.search_data import Figures, K, QuerySet
from soutu.types import Floats, Ids

Search: TypeAlias = Callable[[Floats], Ids]
"""One query (dim,) to the rows (k,) of its answers."""
Engine: TypeAlias = Callable[[Floats], tuple[Floats, Ids]]
"""Queries (q, dim), one after another, to the milliseconds (q,) and the answers (q, k) of each."""

BLOCK = 10  # queries of a turn


def engine(search: Search) -> Engine:
    def answer(queries: Floats) -> tuple[Floats, Ids]:
        times, result_rows = [], []
        for query in queries:
            start = time.perf_counter()
            result_rows.append(search(query))
            times.append(1000 * (time.perf_counter() - start))
        return np.array(times, np.float32), np.stack(result_rows)

    return answer


def take_turns(
    engines: Mapping[str, Engine], query_set: QuerySet, vectors: Floats
) -> tuple[dict[str, Figures], dict[str, Floats]]:
    """Figures of each engine, and the milliseconds (q,) of each query. Whose turn it is is drawn,
    and no two that follow each other answer the same queries: the second would find in the caches
    what the first has read."""
    queries = query_set.queries
    times = {name: np.empty(len(queries), np.float32) for name in engines}
    result_rows = {name: np.empty((len(queries), K), np.int64) for name in engines}
    for answer in engines.values():
        answer(queries[:BLOCK])
    rng = np.random.default_rng(0)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(queries), BLOCK)]
    for turn in range(len(blocks)):
        for position in rng.permutation(len(engines)):
            name = list(engines)[position]
            block = blocks[(turn + position * len(blocks) // len(engines)) % len(blocks)]
            times[name][block], result_rows[name][block] = engines[name](queries[block])
    figures: dict[str, Figures] = {
        name: {
            **milliseconds(times[name]),
            **summarise_recall(query_set.recall_at_k(vectors, result_rows[name])),
        }
        for name in engines
    }
    return figures, times


def milliseconds(times: Floats) -> Figures:
    return {
        "queries": len(times),
        "p50 ms": round(float(np.median(times)), 3),
        "p95 ms": round(float(np.percentile(times, 95)), 3),
    }


def summarise_recall(recall: Floats) -> Figures:
    """Mean recall@10 and half its 95 % interval."""
    half = 1.96 * float(recall.std()) / len(recall) ** 0.5
    return {"recall@10": round(float(recall.mean()), 4), "± 95 %": round(half, 4)}


def ratio(ours: Floats, other: Floats) -> Figures:
    """Return how many times as long as ``other`` ``ours`` takes, over the first queries, which both
    answered."""
    both = min(len(ours), len(other))
    ours, other = ours[:both], other[:both]
    return {
        "of medians": round(float(np.median(ours) / np.median(other)), 3),
        "median of ratios": round(float(np.median(ours / other)), 3),
    }
