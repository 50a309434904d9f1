"""A gallery to be searched, kept in a folder: two-cone vectors, queries, their exact answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.synthetic_vectors import cones
from soutu.types import Floats, Ids

K = 10
TUNING = {"text": 640, "image": 128}  # queries that effort is found on
SHARE = 50  # one in so many comes, and one in so many goes, once the codes are built
_TIE = 1e-6  # scores as close as this are one as good as the other
_BLOCK = 1 << 16

Figures = dict[str, object]


@dataclass(frozen=True)
class QuerySet:
    """Queries (q, dim) and the score (q,) of the ``K``-th best exact answer to each."""

    queries: Floats
    edges: Floats

    def first(self, count: int) -> QuerySet:
        return QuerySet(self.queries[:count], self.edges[:count])

    def recall_at_k(self, vectors: Floats, result_rows: Ids) -> Floats:
        """Return the share (q,) of ``result_rows`` among the exact answers, counting ties.

        ``result_rows`` (q, K) are rows of ``vectors``, or -1.
        """
        scores = np.einsum("qkd,qd->qk", vectors[result_rows], self.queries)
        right = (result_rows >= 0) & (scores >= self.edges[:, None] - _TIE)
        share: Floats = right.mean(axis=1, dtype=np.float32)
        return share


@dataclass(frozen=True)
class Gallery:
    """``rows`` are memory-mapped: ``count`` that are there, one in SHARE more that come later.
    ``sizes`` (rows,) are those of the made-up files, 1 to 1,000. Effort is found with the queries
    of ``tuning``, figures with those of ``query_sets``."""

    folder: Path
    rows: Floats
    count: int
    sizes: Ids
    tuning: Mapping[str, QuerySet]
    query_sets: Mapping[str, QuerySet]

    @property
    def images(self) -> Floats:
        return self.rows[: self.count]

    @property
    def fresh(self) -> Floats:
        return self.rows[self.count :]

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])


def gallery(work: Path, count: int, *, dim: int, queries: int) -> Gallery:
    """Of so many images, with so many queries of each kind; made where ``work`` lacks it."""
    folder = work / f"{count}x{dim}"
    load_or_build(folder / "vectors", lambda target: _make(target, count, dim, queries))
    return load_gallery(folder)


def load_gallery(folder: Path) -> Gallery:
    """The gallery kept in ``folder``."""
    target = folder / "vectors"
    info = json.loads((target / "built.json").read_text())
    rows = np.load(target / "images.npy", mmap_mode="r")
    arrays = dict(np.load(target / "queries.npz"))
    query_sets = {
        kind: QuerySet(arrays[kind], arrays[f"{kind} edges"])
        for kind in ("text", "image", "tuning text", "tuning image")
    }
    return Gallery(
        folder,
        rows,
        info["count"],
        np.random.default_rng(7).integers(1, 1001, len(rows)),
        {kind: query_sets[f"tuning {kind}"] for kind in TUNING},
        {kind: query_sets[kind] for kind in TUNING},
    )


def edges(vectors: Floats, queries: Floats, admitted: Ids | None = None) -> Floats:
    """The score (q,) of the ``K``-th best answer among ``vectors``, or the ``admitted`` rows."""
    best = np.empty((len(queries), 0), np.float32)
    count = len(vectors) if admitted is None else len(admitted)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        block = vectors[start:end] if admitted is None else vectors[admitted[start:end]]
        scores = np.hstack([best, queries @ block.T])
        best = np.partition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    edge: Floats = best.min(axis=1)
    return edge


def load_or_build(folder: Path, build: Callable[[Path], Figures]) -> Figures:
    """Return what ``build`` reported when it filled ``folder``; call it if that is not complete."""
    file = folder / "built.json"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        figures = build(folder)
        file.write_text(json.dumps(figures), encoding="utf-8")
    info: Figures = json.loads(file.read_text(encoding="utf-8"))
    return info


def _make(target: Path, count: int, dim: int, queries: int) -> Figures:
    vectors = cones(count + count // SHARE, max(TUNING.values()) + queries, dim=dim, captions=False)
    np.save(target / "images.npy", vectors.images)
    arrays: dict[str, Floats] = {}
    for kind, rows in (("text", vectors.texts), ("image", vectors.pictures)):
        arrays[kind] = rows[-queries:]
        arrays[f"tuning {kind}"] = rows[: TUNING[kind]]
    scores = edges(vectors.images[:count], np.concatenate(list(arrays.values())))
    first = 0
    for kind, rows in list(arrays.items()):
        arrays[f"{kind} edges"] = scores[first : first + len(rows)]
        first += len(rows)
    np.savez(target / "queries.npz", **arrays)  # type: ignore[arg-type]
    return {"count": count}
