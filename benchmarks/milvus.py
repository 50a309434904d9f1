"""The same gallery in a folder and in Milvus Lite: building, searching, whether both answer alike.

``python -m benchmarks.milvus [--count 100000] [--gallery FOLDER]``. Vectors are
synthetic (benchmarks/synthetic_vectors.py); recall@10 is counted against the exact answers on texts
that nothing was tuned with. ``--gallery``: pictures with captions.csv, indexed into both by the
embedded model and searched with ``--queries FILE``, one text per line. Needs the extras ``milvus``
and ``ann``. Milvus Lite is a test double of a cluster: its times say nothing of a cluster's.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.record import RESULTS, save
from benchmarks.synthetic_vectors import Cones, cones
from soutu.gallery import Gallery
from soutu.store.base import NewImage, VectorStore
from soutu.store.milvus.store import MilvusStore
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats, ModelInfo

BATCH = 4096
K = 10
DIM = 512
Figures = dict[str, object]


def card() -> ModelInfo:
    half = (0.5, 0.5, 0.5)
    return ModelInfo(
        "cones", DIM, 64, 32, half, half, "bicubic", "crop", ("en",), "none", "cones@1", "0" * 64
    )


def measure_store(
    store: VectorStore, vectors: Cones, tuning: Floats
) -> tuple[Figures, list[list[str]]]:
    """Fill, tune and search ``store``; also return the paths of the results of each query."""
    start = time.perf_counter()
    with store.writer() as writer:
        for first in range(0, len(vectors.images), BATCH):
            rows = vectors.images[first : first + BATCH]
            new = [
                NewImage(f"{i:07d}.jpg", 1, 1, i.to_bytes(32, "big"), 64, 64)
                for i in range(first, first + len(rows))
            ]
            writer.add_images(new, rows)
    filled = time.perf_counter() - start
    with store.writer() as writer:
        built = writer.refresh_ann(lambda: tuning)
    ready = time.perf_counter() - start
    paths_found, times = [], []
    for query in vectors.texts:
        begun = time.perf_counter()
        ranking = store.search_images(query, K)
        times.append(1000 * (time.perf_counter() - begun))
        paths_found.append([row.paths[0] for row in store.images(ranking.ids.tolist())])
    promised = {
        kind: [f"k {level.k}: {level.reached['text'].recall:.4f}" for level in manifest.levels]
        for kind, manifest in store.promises().items()
    }
    figures: Figures = {
        "fill s": round(filled, 1),
        "index and tune s": round(ready - filled, 1),
        "built": built,
        "promised recall on texts": promised,
        "p50 ms": round(float(np.percentile(times, 50)), 2),
        "p95 ms": round(float(np.percentile(times, 95)), 2),
        "recall@10 on texts": round(_recall_at_k(paths_found, vectors), 4),
    }
    return figures, paths_found


def _recall_at_k(paths_found: Sequence[Sequence[str]], vectors: Cones) -> float:
    hits = 0
    for query, paths in zip(vectors.texts, paths_found, strict=True):
        best = np.argsort(-(vectors.images @ query), kind="stable")[:K]
        hits += len({f"{i:07d}.jpg" for i in best} & set(paths))
    return hits / (K * len(vectors.texts))


def on_cones(count: int, queries: int, work: Path) -> Figures:
    vectors = cones(count, queries, captions=False)
    tuning = cones(count, 640, seed=1, captions=False).texts
    local = LocalStore.create_or_open(work / "cones" / ".soutu", card())
    lite = MilvusStore.create_or_open(str(work / "lite.db"), card())
    with local, lite:
        ours, first = measure_store(local, vectors, tuning)
        theirs, second = measure_store(lite, vectors, tuning)
    alike = np.mean([len(set(a) & set(b)) / K for a, b in zip(first, second, strict=True)])
    return {
        "images": count,
        "queries": queries,
        "local": ours,
        "milvus lite": theirs,
        "of the ten in common": round(float(alike), 4),
    }


def on_gallery(folder: Path, texts: Sequence[str], work: Path) -> Figures:
    """How far both agree on real pictures: ids' paths, and the largest difference of scores."""
    largest, differing = 0.0, 0
    galleries: list[Gallery] = []
    folders = [work / "left", work / "right"]
    stores = [None, str(work / "gallery.db")]
    for folder_of_copy, store in zip(folders, stores, strict=True):
        shutil.copytree(folder, folder_of_copy, ignore=shutil.ignore_patterns(".soutu"))
        settings = {"journal": "off", "hybrid": "auto", "store": store}
        galleries.append(Gallery.open(folder_of_copy, model="tiny", settings=settings))
    with closing(galleries[0]) as left, closing(galleries[1]) as right:
        counts = {}
        for gallery in (left, right):
            file = gallery.root / "captions.csv"
            assert gallery.root in folders
            report = gallery.index(file if file.is_file() else None)
            counts = {"pictures": report.files, "captions": report.captions}
        for text in texts:
            pair = [gallery.search(text, k=K).hits for gallery in (left, right)]
            differing += [hit.path for hit in pair[0]] != [hit.path for hit in pair[1]]
            scores = zip(*([hit.score for hit in hits] for hits in pair), strict=True)
            largest = max([largest, *(abs(a - b) for a, b in scores)])
    return {**counts, "queries": len(texts), "rankings that differ": differing,
            "largest difference of scores": largest}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=200)
    parser.add_argument("--gallery", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        figures: Figures = {"cones": on_cones(given.count, given.asked, work)}
        if given.gallery:
            texts = given.queries.read_text("utf-8").splitlines() if given.queries else ["cat"]
            figures["gallery"] = on_gallery(given.gallery, texts, work)
    print(save("milvus", figures, given.results))


if __name__ == "__main__":
    main()
