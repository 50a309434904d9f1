"""When the codes of a space are built anew, and on which queries they are tuned."""

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

# The recall promise: how much effort a search must make, found by trying.
#
# ANN fails quietly, and on text most of all: texts lie off the cone of the pictures, where the
# lists of an index were not drawn for them. What reaches a recall of 1.0 on pictures reached 0.73
# on texts in our measurements (benchmarks/results/search.json). So effort is chosen on queries
# like those that will be asked, against the exact answers, and what was reached is written down.


DEPTHS = (10, 100)  # results that effort is found for
CANDIDATES = (20, 32, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 4000)
SCORING = 28  # one candidate's vector costs as much as scanning so many codes
_BLOCK = 1 << 15
_DEPTH = max(DEPTHS) + 20  # some more: who ties at the edge is right too
_TIE = 1e-6  # scores as close as this are one as good as the other

Queries: TypeAlias = Mapping[str, Floats]


@dataclass(frozen=True)
class GroundTruth:
    """For each query the ids of its exact best (``ids`` (q, most), best first) and ``good``:
    how many of these count as right among the best k, ties included, by k."""

    ids: Ids
    good: Mapping[int, Ids]

    def hits(self, candidates_ids: Ids, k: int) -> Ids:
        """(q, candidates): of the best k, how many are among the first candidates ``found``
        (q, candidates), up to each."""
        table = np.zeros(candidates_ids.shape, np.int64)
        for row, (ids, good) in enumerate(zip(self.ids, self.good[k], strict=True)):
            table[row] = np.minimum(np.cumsum(np.isin(candidates_ids[row], ids[:good])), k)
        return table


class ExactSearch:
    """The exact answers to ``queries`` (q, dim), found block by block, so that no more than a block
    is in memory."""

    def __init__(self, queries: Floats) -> None:
        self._queries = queries
        self._scores = np.empty((len(queries), 0), np.float32)
        self._ids: Ids = np.empty((len(queries), 0), np.int64)

    def take(self, ids: Ids, vectors: Floats) -> None:
        """Look at these ``vectors`` (n, dim) of ``ids`` (n,) too."""
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
        """What was right among all that was looked at."""
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
    """The least effort for each depth that keeps recall at ``target`` on each kind of
    ``queries`` (name → (q, dim)). Effort is chosen on every other query, so that the lower end
    of the 95 % interval is no less than the target; it must also hold on the rest, and what is
    reported is what was reached there. A depth that cannot be reached is left out: such searches
    will be exact.

    ``index`` holds ``vectors`` (n, dim), its ids are their rows.
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
    """From a 32nd of the lists to all, in steps of about √2."""
    steps = {max(1, round(lists / 2 ** (half / 2))) for half in range(11)}
    return sorted(steps)


def _cheapest(
    k: int,
    lists: int,
    candidates: Mapping[str, Ids],
    truth: Mapping[str, GroundTruth],
    target: float,
) -> SearchEffort | None:
    """The fewest candidates that do on every kind of query; None where the most do not."""
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
    """Estimate the recall of an effort, if it keeps the promise.

    Parameters
    ----------
    hits
        By kind of query: of the best ``k``, how many were among the candidates, int64 (q,).
    k
        Results asked for.
    target
        Recall@k to be reached.

    Returns
    -------
    Mapping of str to RecallEstimate, or None
        What was reached on every second query. None unless on the others, which the effort is
        chosen on, the lower end of every interval is ``target`` or more, and on these every mean.
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


# Building the index of codes: beside the one in use, renamed when it is whole.


RECIPE = "IVF{lists},PQ{parts}x4fs"
"""Inverted lists of product-quantised codes, 4 bits for two numbers each (128 bytes for 512), laid
out for the processor's table look-ups (André et al., Quicker ADC, arXiv 1812.09162). Of what Faiss
has this was the fastest at a recall of 0.99 on texts: benchmarks/results/search.json."""

_TRAIN = 40  # vectors a list is drawn from; Faiss asks for at least 39
_ROUNDS = 10
_CODE_BLOCK = 1 << 16


def build_codes(
    folder: Path,
    kind: str,
    vectors: Floats,
    queries: Callable[[], Queries],
    target: float,
) -> Manifest:
    """Build the index of ``vectors`` (n, dim), the slab's rows from slot 0, tune it on
    ``queries`` and put it in the place of the one before. ImportError without Faiss."""
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
    """Twice the square root, as a power of two: 2,048 for a million."""
    return 1 << round(math.log2(2 * slots**0.5))


def remove_stale(folder: Path, kind: str) -> None:
    """Remove index files that no manifest names: one before this, or one left half-written."""
    try:
        manifest = read_manifest(folder, kind)
    except IndexCorrupt:  # which doctor has yet to look at
        return
    for path in folder.glob(f"{kind}.ann.*"):
        if path.suffix != ".json" and (manifest is None or path.name != manifest.file):
            with suppress(
                OSError
            ):  # Windows keeps what a reader has open; the next run tries again
                path.unlink()


def _sample(vectors: Floats, count: int) -> Floats:
    """``count`` rows, the same ones every time, in the order in which they lie on disk."""
    if count >= len(vectors):
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return vectors[np.sort(rows)]


def _save(folder: Path, kind: str, index: Any) -> tuple[str, int]:  # noqa: ANN401
    """Write the index to a file of its own; returns its name and checksum."""
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


TUNING_TEXTS = 640  # queries that effort is tuned on
FEWEST = 256  # captions that speak for all
TUNING_IMAGES = 128
CORRECTED = "corrected"  # texts, as they are asked where hubs are held back


def refresh_codes(
    connection: sqlite3.Connection,
    space: Space,
    phrases: Callable[[], Floats],
    target: float,
    shift: Floats | None,
) -> list[str]:
    """Build the codes of ``space`` where they are due; returns the names of those kinds."""
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
    """Whether the codes are absent, damaged, promise something else, or leave so many of the
    ``slots`` uncovered that scanning those costs more than all the rest."""
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
    """What will be asked of ``kind``: pictures by texts and by pictures, captions by pictures."""
    pictures = _some(connection, space, IMAGES, TUNING_IMAGES if kind is IMAGES else TUNING_TEXTS)
    if kind is not IMAGES:
        return {"image": pictures}
    texts = _some(connection, space, CAPTIONS, TUNING_TEXTS)
    texts = texts if len(texts) >= FEWEST else phrases()
    moved = {} if shift is None else {CORRECTED: (texts - shift).astype(np.float32)}
    return {"text": texts, **moved, "image": pictures}


def _some(connection: sqlite3.Connection, space: Space, kind: VectorKind, count: int) -> Floats:
    """Vectors of up to ``count`` of what is live, picked without preference, always the same."""
    slots = load_visible(connection, space.id, kind).slots
    if len(slots) > count:
        slots = np.sort(np.random.default_rng(0).choice(slots, count, replace=False))
    return VectorFile(space.folder / kind.slab, space.info.dim).take(slots)
