"""The same gallery in a folder and in Milvus Lite: building, searching, whether both answer alike.

``python -m benchmarks.milvus [--count 100000] [--gallery FOLDER]``. Vectors are made up
(benchmarks/cones.py); recall@10 is counted against the exact answers on texts that nothing was
tuned with. ``--gallery``: pictures with captions.csv, indexed into both by the embedded model and
searched with ``--queries FILE``, a text a line. Needs the extras ``milvus`` and ``ann``. Milvus
Lite is a test double of a cluster: its times say nothing of a cluster's.
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

from benchmarks.cones import Cones, cones
from benchmarks.record import RESULTS, save
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


def measured(store: VectorStore, made: Cones, tuning: Floats) -> tuple[Figures, list[list[str]]]:
    """Fill ``store``, make it fast, ask it; also the paths that each query found."""
    start = time.perf_counter()
    with store.writer() as writer:
        for first in range(0, len(made.images), BATCH):
            rows = made.images[first : first + BATCH]
            new = [
                NewImage(f"{i:07d}.jpg", 1, 1, i.to_bytes(32, "big"), 64, 64)
                for i in range(first, first + len(rows))
            ]
            writer.add_images(new, rows)
    filled = time.perf_counter() - start
    with store.writer() as writer:
        built = writer.refresh_ann(lambda: tuning)
    ready = time.perf_counter() - start
    found, taken = [], []
    for query in made.texts:
        begun = time.perf_counter()
        ranking = store.search_images(query, K)
        taken.append(1000 * (time.perf_counter() - begun))
        found.append([row.paths[0] for row in store.images(ranking.ids.tolist())])
    promised = {
        kind: [f"k {level.k}: {level.reached['text'].recall:.4f}" for level in one.levels]
        for kind, one in store.promises().items()
    }
    figures: Figures = {
        "fill s": round(filled, 1),
        "index and tune s": round(ready - filled, 1),
        "built": built,
        "promised recall on texts": promised,
        "p50 ms": round(float(np.percentile(taken, 50)), 2),
        "p95 ms": round(float(np.percentile(taken, 95)), 2),
        "recall@10 on texts": round(_recall(found, made), 4),
    }
    return figures, found


def _recall(found: Sequence[Sequence[str]], made: Cones) -> float:
    hits = 0
    for query, paths in zip(made.texts, found, strict=True):
        best = np.argsort(-(made.images @ query), kind="stable")[:K]
        hits += len({f"{i:07d}.jpg" for i in best} & set(paths))
    return hits / (K * len(made.texts))


def on_cones(count: int, queries: int, work: Path) -> Figures:
    made = cones(count, queries, captions=False)
    tuning = cones(count, 640, seed=1, captions=False).texts
    local = LocalStore.create_or_open(work / "cones" / ".soutu", card())
    lite = MilvusStore.create_or_open(str(work / "lite.db"), card())
    with local, lite:
        ours, first = measured(local, made, tuning)
        theirs, second = measured(lite, made, tuning)
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
    apart, differing = 0.0, 0
    galleries: list[Gallery] = []
    places = [work / "left", work / "right"]
    stores = [None, str(work / "gallery.db")]
    for place, store in zip(places, stores, strict=True):
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns(".soutu"))
        settings = {"journal": "off", "hybrid": "auto", "store": store}
        galleries.append(Gallery.open(place, model="tiny", settings=settings))
    with closing(galleries[0]) as left, closing(galleries[1]) as right:
        counts = {}
        for one in (left, right):
            file = one.root / "captions.csv"
            assert one.root in places
            report = one.index(file if file.is_file() else None)
            counts = {"pictures": report.files, "captions": report.captions}
        for text in texts:
            pair = [one.search(text, k=K).hits for one in (left, right)]
            differing += [hit.path for hit in pair[0]] != [hit.path for hit in pair[1]]
            scores = zip(*([hit.score for hit in hits] for hits in pair), strict=True)
            apart = max([apart, *(abs(a - b) for a, b in scores)])
    return {**counts, "queries": len(texts), "rankings that differ": differing,
            "largest difference of scores": apart}  # fmt: skip


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
