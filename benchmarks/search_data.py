"""A gallery to be searched, kept in a folder: two-cone vectors, queries, their exact answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cones import cones
from soutu.types import Floats, Ids

K = 10
TUNING = {"text": 640, "image": 128}  # queries that effort is found on
SHARE = 50  # one in so many comes, and one in so many goes, once the codes are built
_TIE = 1e-6  # scores as close as this are one as good as the other
_BLOCK = 1 << 16

Figures = dict[str, object]


@dataclass(frozen=True)
class Asked:
    """Queries (q, dim) and the score (q,) of the ``K``-th best exact answer to each."""

    queries: Floats
    edges: Floats

    def first(self, count: int) -> Asked:
        return Asked(self.queries[:count], self.edges[:count])

    def get_meta(self, vectors: Floats, found: Ids) -> Floats:
        """(q,) of each query: the share of ``found`` (q, K), rows of ``vectors`` or -1, that are
        among the exact answers, ties at the edge included."""
        scores = np.einsum("qkd,qd->qk", vectors[found], self.queries)
        right = (found >= 0) & (scores >= self.edges[:, None] - _TIE)
        share: Floats = right.mean(axis=1, dtype=np.float32)
        return share


@dataclass(frozen=True)
class Gallery:
    """``rows`` are memory-mapped: ``count`` that are there, one in SHARE more that come later.
    ``sizes`` (rows,) are those of the made-up files, 1 to 1,000. Effort is found with the queries
    of ``tuning``, figures with those that are ``asked``."""

    folder: Path
    rows: Floats
    count: int
    sizes: Ids
    tuning: Mapping[str, Asked]
    asked: Mapping[str, Asked]

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
    kept(folder / "vectors", lambda place: _make(place, count, dim, queries))
    return opened(folder)


def opened(folder: Path) -> Gallery:
    """The gallery kept in ``folder``."""
    place = folder / "vectors"
    told = json.loads((place / "built.json").read_text())
    rows = np.load(place / "images.npy", mmap_mode="r")
    arrays = dict(np.load(place / "queries.npz"))
    asked = {
        kind: Asked(arrays[kind], arrays[f"{kind} edges"])
        for kind in ("text", "image", "tuning text", "tuning image")
    }
    return Gallery(
        folder,
        rows,
        told["count"],
        np.random.default_rng(7).integers(1, 1001, len(rows)),
        {kind: asked[f"tuning {kind}"] for kind in TUNING},
        {kind: asked[kind] for kind in TUNING},
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


def kept(folder: Path, build: Callable[[Path], Figures]) -> Figures:
    """What ``build`` told when it filled ``folder``; it is called where that is not whole."""
    told = folder / "built.json"
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        figures = build(folder)
        told.write_text(json.dumps(figures), encoding="utf-8")
    found: Figures = json.loads(told.read_text(encoding="utf-8"))
    return found


def _make(place: Path, count: int, dim: int, queries: int) -> Figures:
    made = cones(count + count // SHARE, max(TUNING.values()) + queries, dim=dim, captions=False)
    np.save(place / "images.npy", made.images)
    arrays: dict[str, Floats] = {}
    for kind, rows in (("text", made.texts), ("image", made.pictures)):
        arrays[kind] = rows[-queries:]
        arrays[f"tuning {kind}"] = rows[: TUNING[kind]]
    scores = edges(made.images[:count], np.concatenate(list(arrays.values())))
    first = 0
    for kind, rows in list(arrays.items()):
        arrays[f"{kind} edges"] = scores[first : first + len(rows)]
        first += len(rows)
    np.savez(place / "queries.npz", **arrays)  # type: ignore[arg-type]
    return {"count": count}
