"""Build the codes of a space, tune the effort of their search, and tell when to rebuild them.

Approximate search fails quietly, most of all on texts: they lie off the cone of the images, for
which the lists of an index are drawn. What reaches a recall of 1.0 on images reached 0.73 on texts
in our measurements (benchmarks/results/search.json). So effort is tuned on queries like the real
ones, against the exact answers, and the recall reached is written down.
"""

from __future__ import annotations

import importlib.util
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.fs import atomic_write
from soutu.store.ann import (
    EXACT_BELOW,
    Manifest,
    RecallEstimate,
    SearchEffort,
    read_manifest,
    write_manifest,
)
from soutu.store.sqlite.schema import get_counter
from soutu.store.sqlite.vectors import (
    CAPTIONS,
    IMAGES,
    KINDS,
    Space,
    VectorFile,
    VectorKind,
    load_visible,
    slot_counter,
)
from soutu.types import Floats, Ids

DEPTHS = (10, 100)  # values of k that effort is tuned for
CANDIDATES = (20, 32, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 4000)
SCORING = 28  # codes scanned in the time that scoring one candidate's vector takes
_BLOCK = 1 << 15
_DEPTH = max(DEPTHS) + 20  # a margin: results that tie at the edge are right too
_TIE = 1e-6  # scores this close count as equal

Queries: TypeAlias = Mapping[str, Floats]


@dataclass(frozen=True)
class GroundTruth:
    """The ids of the exact best of each query, ``ids`` (q, most), best first.

    ``good`` (q,), by k: how many of these count as right among the best k, ties included.
    """

    ids: Ids
    good: Mapping[int, Ids]

    def hits(self, candidates_ids: Ids, k: int) -> Ids:
        """Count the hits among the first 1, 2, … candidates, at most ``k``: int64 (q, candidates).

        ``candidates_ids`` (q, candidates) are the ids found for each query, best first.
        """
        table = np.zeros(candidates_ids.shape, np.int64)
        for row, (ids, good) in enumerate(zip(self.ids, self.good[k], strict=True)):
            table[row] = np.minimum(np.cumsum(np.isin(candidates_ids[row], ids[:good])), k)
        return table


class ExactSearch:
    """Exact answers to ``queries`` (q, dim), found one block of vectors at a time."""

    def __init__(self, queries: Floats) -> None:
        self._queries = queries
        self._scores = np.empty((len(queries), 0), np.float32)
        self._ids: Ids = np.empty((len(queries), 0), np.int64)

    def take(self, ids: Ids, vectors: Floats) -> None:
        """Search these ``vectors`` (n, dim) of ``ids`` (n,) too."""
        block = self._queries @ vectors.T
        if block.shape[1] > _DEPTH:
            nearest = np.argpartition(-block, _DEPTH - 1, axis=1)[:, :_DEPTH]
            block = np.take_along_axis(block, nearest, axis=1)
            block_ids = ids[nearest]
        else:
            block_ids = np.broadcast_to(ids, block.shape)
        scores = np.hstack([self._scores, block])
        block_ids = np.hstack([self._ids, block_ids])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
        self._scores = np.take_along_axis(scores, order, axis=1)
        self._ids = np.take_along_axis(block_ids, order, axis=1)

    def right(self) -> GroundTruth:
        """Return the exact answers among all vectors taken."""
        scores, count = self._scores, self._scores.shape[1]
        good = {
            k: (scores >= scores[:, min(k, count) - 1, None] - _TIE).sum(axis=1) for k in DEPTHS
        }
        return GroundTruth(self._ids, good)


def tune_effort(
    index: Any,  # noqa: ANN401  (Faiss has no types)
    vectors: Floats,
    queries: Queries,
    target: float,
) -> tuple[SearchEffort, ...]:
    """Find the least effort for each depth that reaches the target on each kind of query.

    Parameters
    ----------
    index
        Faiss index of ``vectors``; its ids are their rows.
    vectors
        Float32 (n, dim).
    queries
        Query vectors (q, dim) by kind of query.
    target
        Recall@k to reach.

    Returns
    -------
    tuple of SearchEffort
        By ascending depth, each as ``judge_effort`` demands. A depth that misses the target is left
        out: such searches will be exact.
    """
    truth = {name: _exact(vectors, rows) for name, rows in queries.items()}
    best: dict[int, tuple[int, SearchEffort]] = {}
    for lists in _probes(index.nlist):
        candidates = {
            name: _candidates(index, vectors_of, lists) for name, vectors_of in queries.items()
        }
        scanned = len(vectors) * lists // index.nlist
        for k in DEPTHS:
            level = _cheapest(k, lists, candidates, truth, target)
            if level is None:
                continue
            cost = scanned + SCORING * level.candidates
            if k not in best or cost < best[k][0]:
                best[k] = (cost, level)
    return tuple(best[k][1] for k in DEPTHS if k in best)


def _probes(lists: int) -> list[int]:
    """Return numbers of lists from a 32nd of them to all, in steps of about √2."""
    steps = {max(1, round(lists / 2 ** (half / 2))) for half in range(11)}
    return sorted(steps)


def _cheapest(
    k: int,
    lists: int,
    candidates: Mapping[str, Ids],
    truth: Mapping[str, GroundTruth],
    target: float,
) -> SearchEffort | None:
    """Return the effort with the fewest candidates that reaches the target; None if none does."""
    hits = {name: truth[name].hits(candidates[name], k) for name in candidates}
    for count in CANDIDATES:
        if count < k:
            continue
        if reached := judge_effort(
            {name: table[:, count - 1] for name, table in hits.items()}, k, target
        ):
            return SearchEffort(k, lists, count, reached)
    return None


def judge_effort(
    hits: Mapping[str, Ids], k: int, target: float
) -> Mapping[str, RecallEstimate] | None:
    """Estimate the recall of an effort, or reject it.

    Effort is chosen on every second query and must hold on the rest.

    Parameters
    ----------
    hits
        By kind of query: how many of the best ``k`` were among the candidates, int64 (q,).
    k
        Number of results.
    target
        Recall@k to reach.

    Returns
    -------
    Mapping of str to RecallEstimate, or None
        Recall on the rest. None unless every mean there reaches ``target`` and, on the queries
        that effort is chosen on, so does the lower end of every 95 % interval.
    """
    chosen_on = [_estimate_recall(table[::2], k) for table in hits.values()]
    judged_on = {name: _estimate_recall(table[1::2], k) for name, table in hits.items()}
    lowest = min(estimate.low for estimate in chosen_on)
    judged = min(estimate.recall for estimate in judged_on.values())
    return judged_on if lowest >= target <= judged else None


def _estimate_recall(hits: Ids, k: int) -> RecallEstimate:
    recalls = hits / k
    mean = float(recalls.mean())
    half = 1.96 * float(recalls.std()) / len(recalls) ** 0.5
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return RecallEstimate(len(recalls), round(mean, 5), round(low, 5), round(high, 5))


def _candidates(index: Any, queries: Floats, lists: int) -> Ids:  # noqa: ANN401
    import faiss

    effort = faiss.SearchParametersIVF(nprobe=lists)
    ids: Ids = index.search(queries, max(CANDIDATES), params=effort)[1]
    return ids


def _exact(vectors: Floats, queries: Floats) -> GroundTruth:
    exact = ExactSearch(queries)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        exact.take(np.arange(start, start + len(block)), block)
    return exact.right()


RECIPE = "IVF{lists},PQ{parts}x4fs"
"""Inverted lists of product-quantised codes, 4 bits for two numbers each (128 bytes for 512), laid
out for the processor's table look-ups (André et al., Quicker ADC, arXiv 1812.09162). Of what Faiss
has this was the fastest at a recall of 0.99 on texts: benchmarks/results/search.json."""

_TRAIN = 40  # training vectors per list; Faiss asks for at least 39
_ROUNDS = 10
_CODE_BLOCK = 1 << 16


def build_codes(
    folder: Path,
    kind: str,
    vectors: Floats,
    queries: Callable[[], Queries],
    target: float,
) -> Manifest:
    """Build and tune the index of ``vectors`` (n, dim), a slab's rows from slot 0.

    It is tuned on ``queries`` and replaces the index in use once it is whole on disk. ImportError
    without Faiss.
    """
    import faiss

    start = time.perf_counter()
    slots, dim = vectors.shape
    lists = lists_for(slots)
    recipe = RECIPE.format(lists=lists, parts=dim // 2 if dim % 2 == 0 else dim)
    index = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _ROUNDS
    index.train(_sample(vectors, _TRAIN * lists))
    for first in range(0, slots, _CODE_BLOCK):
        index.add(np.ascontiguousarray(vectors[first : first + _CODE_BLOCK]))
    levels = tune_effort(index, vectors, queries(), target)
    name, checksum = _save(folder, kind, index)
    manifest = Manifest(
        file=name,
        checksum=checksum,
        slots=slots,
        lists=lists,
        recipe=recipe,
        target=target,
        levels=levels,
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 1),
    )
    write_manifest(folder, kind, manifest)
    return manifest


def lists_for(slots: int) -> int:
    """Return twice the square root of ``slots`` as a power of two: 2,048 for a million."""
    return 1 << round(math.log2(2 * slots**0.5))


def remove_stale(folder: Path, kind: str) -> None:
    """Remove index files that no manifest names: replaced ones and half-written ones."""
    try:
        manifest = read_manifest(folder, kind)
    except IndexCorrupt:  # left for doctor to repair
        return
    for path in folder.glob(f"{kind}.ann.*"):
        if path.suffix != ".json" and (manifest is None or path.name != manifest.file):
            # Windows keeps a file that a reader has open; the next run tries again.
            with suppress(OSError):
                path.unlink()


def _sample(vectors: Floats, count: int) -> Floats:
    """Sample ``count`` rows, always the same ones, in their order on disk."""
    if count >= len(vectors):
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return vectors[np.sort(rows)]


def _save(folder: Path, kind: str, index: Any) -> tuple[str, int]:  # noqa: ANN401
    """Write the index to a new file and return its name and checksum."""
    import faiss

    name = f"{kind}.ann.{time.time_ns():x}"
    path = folder / name
    checksum = 0
    with atomic_write(path, private=True) as file:

        def write(data: bytes) -> int:
            nonlocal checksum
            checksum = crc32(data, checksum)
            return file.write(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
    return name, checksum


TUNING_TEXTS = 640  # text queries that effort is tuned on
FEWEST = 256  # captions needed to tune on them rather than on phrases
TUNING_IMAGES = 128
CORRECTED = "corrected"  # kind of query: texts less the shift that holds back hubs


def refresh_codes(
    connection: sqlite3.Connection,
    space: Space,
    phrases: Callable[[], Floats],
    target: float,
    shift: Floats | None,
) -> list[str]:
    """Build the codes of ``space`` where they are due, and return the names of those kinds."""
    if importlib.util.find_spec("faiss") is None:
        return []
    built = []
    for kind in KINDS:
        slots = get_counter(connection, slot_counter(space.id, kind))
        if slots >= EXACT_BELOW and _due(space, kind, slots, target, shift):
            queries = partial(_queries, connection, space, kind, phrases, shift)
            vectors = VectorFile(space.folder / kind.slab, space.info.dim).rows(slots)
            build_codes(space.folder, kind.name, vectors, queries, target)
            built.append(kind.name)
        remove_stale(space.folder, kind.name)
    return built


def _due(space: Space, kind: VectorKind, slots: int, target: float, shift: Floats | None) -> bool:
    """Tell whether codes must be built.

    They must if they are absent, damaged or tuned for another target or shift, or if scanning the
    ``slots`` they do not cover costs more than all the rest.
    """
    try:
        manifest = read_manifest(space.folder, kind.name)
    except IndexCorrupt:
        return True
    if manifest is None or manifest.target != target or not manifest.is_whole(space.folder):
        return True
    moved = kind is IMAGES and shift is not None
    if moved and any(CORRECTED not in level.reached for level in manifest.levels):
        return True
    return slots - manifest.slots > max(5_000, slots // 20)


def _queries(
    connection: sqlite3.Connection,
    space: Space,
    kind: VectorKind,
    phrases: Callable[[], Floats],
    shift: Floats | None,
) -> Queries:
    """Return queries like the real ones: texts and images for images, images for captions."""
    pictures = _some(connection, space, IMAGES, TUNING_IMAGES if kind is IMAGES else TUNING_TEXTS)
    if kind is not IMAGES:
        return {"image": pictures}
    texts = _some(connection, space, CAPTIONS, TUNING_TEXTS)
    texts = texts if len(texts) >= FEWEST else phrases()
    moved = {} if shift is None else {CORRECTED: (texts - shift).astype(np.float32)}
    return {"text": texts, **moved, "image": pictures}


def _some(connection: sqlite3.Connection, space: Space, kind: VectorKind, count: int) -> Floats:
    """Sample up to ``count`` vectors that a search can return, always the same ones."""
    slots = load_visible(connection, space.id, kind).slots
    if len(slots) > count:
        slots = np.sort(np.random.default_rng(0).choice(slots, count, replace=False))
    return VectorFile(space.folder / kind.slab, space.info.dim).take(slots)
