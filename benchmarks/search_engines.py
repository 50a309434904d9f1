"""What every search is measured beside: the plain scan, bare Faiss, and our store as a whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.interleaved_timing import Search
from benchmarks.search_data import Figures, Gallery, K, load_or_build
from soutu.fs import HOME
from soutu.store.ann_build import RECIPE, lists_for, tune_effort
from soutu.store.base import NewImage
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats, Ids, ModelInfo, Ranking

TARGET = 0.99
STEP = 5_000  # images of one transaction


def scan(gallery: Gallery) -> Search:
    """The exact answer as a script would find it: one product, one partition."""
    vectors = gallery.images

    def search(query: Floats) -> Ids:
        scores = vectors @ query
        best = np.argpartition(scores, -K)[-K:]
        best_rows: Ids = best[np.argsort(-scores[best])]
        return best_rows

    return search


class Faiss:
    """Our recipe in Faiss's own hands: codes, then exact scores of float32 vectors in memory."""

    def __init__(self, gallery: Gallery) -> None:
        import faiss

        folder = gallery.folder / "faiss"
        self.info = load_or_build(folder, lambda folder: _build_faiss(folder, gallery))
        effort = self.info["effort"]
        assert isinstance(effort, dict)
        codes = faiss.read_index(str(folder / "codes.faiss"))
        vectors = np.ascontiguousarray(gallery.images)
        self._index = faiss.IndexRefineFlat(codes, faiss.swig_ptr(vectors))
        self._index.own_refine_index = True
        self._codes = codes, vectors  # which the index points to
        self._effort = faiss.IndexRefineSearchParameters(
            k_factor=effort["candidates"] / K,
            base_index_params=faiss.SearchParametersIVF(nprobe=effort["lists"]),
        )

    def search(self, query: Floats) -> Ids:
        """On one core: Faiss scans for one query on one, and gathering others to score a few
        candidates takes long where they have other work."""
        import faiss

        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            best_rows: Ids = self.batch(query[None])[0]
        finally:
            faiss.omp_set_num_threads(threads)
        return best_rows

    def batch(self, queries: Floats) -> Ids:
        """Rows (q, K)."""
        best_rows: Ids = self._index.search(queries, K, params=self._effort)[1]
        return best_rows


def _build_faiss(folder: Path, gallery: Gallery) -> Figures:
    import faiss

    start = time.perf_counter()
    count, dim = gallery.images.shape
    lists = lists_for(count)
    index = faiss.index_factory(
        dim, RECIPE.format(lists=lists, parts=dim // 2), faiss.METRIC_INNER_PRODUCT
    )
    rows = np.random.default_rng(0).choice(count, min(count, 40 * lists), replace=False)
    index.train(gallery.images[np.sort(rows)])
    index.add(np.ascontiguousarray(gallery.images))
    added = time.perf_counter()
    queries = {kind: query_set.queries for kind, query_set in gallery.tuning.items()}
    level = tune_effort(index, gallery.images, queries, TARGET)[0]
    faiss.write_index(index, str(folder / "codes.faiss"))
    return {
        "build s": round(added - start, 1),
        "tuning s": round(time.perf_counter() - added, 1),
        "effort": {"lists": level.lists, "candidates": level.candidates},
    }


class Ours:
    """The whole store, as a gallery opens it."""

    def __init__(self, gallery: Gallery) -> None:
        folder = gallery.folder / "ours"
        self.info = load_or_build(folder, lambda folder: _fill(folder / HOME, gallery))
        self.home = folder / HOME
        self.store = LocalStore.open(self.home)

    def touch(self, query: Floats) -> None:
        """Read every vector, as a store has that was searched for a while: the first read of each
        page of the file has the system map it. No codes answer for so many results."""
        self.store.search_images(query, 1000)

    def search(self, query: Floats) -> Ids:
        return rows(self.store.search_images(query, K))


def rows(ranking: Ranking) -> Ids:
    """Images got their ids in the order of their rows, from 1."""
    return ranking.ids - 1


def images(sizes: Sequence[int], first: int) -> list[NewImage]:
    """Pictures that never were, for rows ``first`` and on; their files have these sizes."""
    return [
        NewImage(f"{row // 1000}/{row}.jpg", int(size), 1, row.to_bytes(32, "big"), 640, 480)
        for row, size in enumerate(sizes, first)
    ]


def _fill(home: Path, gallery: Gallery) -> Figures:
    phrases = gallery.tuning["text"].queries
    start = time.perf_counter()
    with LocalStore.create_or_open(home, _card(gallery.dim)) as store, store.writer() as writer:
        for first in range(0, gallery.count, STEP):
            vectors = gallery.images[first : first + STEP]
            sizes = gallery.sizes[first : first + len(vectors)]
            writer.add_images(images(sizes.tolist(), first), vectors)
        filled = time.perf_counter()
        writer.refresh_ann(lambda: phrases, target=TARGET)
        built = time.perf_counter()
        promise = store.promises().get("image")
    info: Figures = {"fill s": round(filled - start, 1), "build s": round(built - filled, 1)}
    if promise:
        level = promise.levels[0]
        info["effort"] = {"lists": level.lists, "candidates": level.candidates}
    return info


def _card(dim: int) -> ModelInfo:
    return ModelInfo(
        name="cones",
        dim=dim,
        image_size=224,
        context_length=77,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        resize_mode="shortest",
        languages=("en",),
        license="none",
        space="cones@1",
        fingerprint="0" * 64,
    )
