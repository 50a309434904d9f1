"""What only a store is asked: memory, threads, filters, changes since the build, cold starts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.cold_start import figures, seconds
from benchmarks.interleaved_timing import engine, milliseconds, summarise_recall
from benchmarks.search_data import Figures, Gallery, K, QuerySet, edges, load_or_build
from benchmarks.search_engines import STEP, Faiss, Ours, images, rows
from soutu.fs import HOME
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare, Floats, Ids

ADMITTED = (50, 5, 1)  # per cent
OPEN = """
import sys
from pathlib import Path
import numpy as np
from soutu.store.sqlite.store import LocalStore
queries = np.load(sys.argv[2])
store = LocalStore.open(Path(sys.argv[1]), once=sys.argv[3] == "once")
"""
FIRST = f"{OPEN}store.search_images(queries[0], {K})"
RESIDENT = f"""{OPEN}
for query in queries[:200]:
    store.search_images(query, {K})
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(("RssAnon", "RssFile")):
        print(line.split()[1])
"""


def only_ours(gallery: Gallery, ours: Ours, faiss: Faiss | None, runs: int) -> Figures:
    queries = gallery.folder / "queries.npy"
    np.save(queries, gallery.query_sets["text"].queries)
    return {
        "memory": resident(ours, queries),
        "cold start s": cold(ours, queries, runs),
        "queries/s": throughput(gallery, ours, faiss),
        "filtered": measure_filtered(gallery, ours),
        "2 % new, 2 % removed": measure_changed(gallery),
    }


def resident(ours: Ours, queries: Path) -> Figures:
    """MB of a new process that has opened the store and searched: its own, and mapped files."""
    if not Path("/proc/self/status").exists():
        return {"not measured": "the system has no /proc"}
    command = [sys.executable, "-c", RESIDENT, str(ours.home), str(queries), "many"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    own, mapped = (round(int(line) * 1024 / 1e6) for line in done.stdout.split())
    return {"RssAnon MB": own, "RssFile MB": mapped}


def cold(ours: Ours, queries: Path, runs: int) -> Figures:
    """Seconds of new processes, files in the page cache, Python's start and imports included."""
    times: dict[str, list[float]] = {"once": [], "many": []}
    for _ in range(runs):
        for mode, values in times.items():
            values.append(seconds(FIRST, str(ours.home), str(queries), mode))
    imports = [seconds(OPEN.rpartition("store =")[0], "", str(queries)) for _ in range(runs)]
    return {
        "open(once=True), first search": figures(times["once"]),
        "open(), first search": figures(times["many"]),
        "imports alone": figures(imports),
    }


def throughput(gallery: Gallery, ours: Ours, faiss: Faiss | None) -> Figures:
    """All text-like queries as fast as they go."""
    queries = gallery.query_sets["text"].queries
    table: Figures = {}
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ours.search, queries[:20]))
            start = time.perf_counter()
            list(pool.map(ours.search, queries))
            name = f"ours, {threads} thread{'s' * (threads > 1)}"
            table[name] = round(len(queries) / (time.perf_counter() - start))
    if faiss:
        start = time.perf_counter()
        faiss.batch(queries)
        table["Faiss, one batch"] = round(len(queries) / (time.perf_counter() - start))
    return table


def measure_filtered(gallery: Gallery, ours: Ours) -> Figures:
    """By a filter on a number that has nothing to do with the picture."""
    table: Figures = {}
    queries = gallery.query_sets["text"].queries[:200]
    for share in ADMITTED:
        where = Compare("size", "<=", 10 * share)
        admitted = np.flatnonzero(gallery.sizes[: gallery.count] <= 10 * share)
        query_set = QuerySet(queries, edges(gallery.images, queries, admitted))

        def search(query: Floats, where: Compare = where) -> Ids:
            return rows(ours.store.search_images(query, K, where))

        start = time.perf_counter()
        search(queries[0])
        first = 1000 * (time.perf_counter() - start)
        times, result_rows = engine(search)(queries)
        table[f"{share} %"] = {
            "first ms": round(first, 1),  # the database says which images are admitted
            **milliseconds(times),
            **summarise_recall(query_set.recall_at_k(gallery.images, result_rows)),
        }
    return table


def measure_changed(gallery: Gallery) -> Figures:
    """A copy of the store to which images came and from which images went since its build."""
    target = gallery.folder / "changed"
    removed = np.random.default_rng(3).choice(gallery.count, len(gallery.fresh), replace=False)
    load_or_build(target, lambda folder: _change(folder / HOME, gallery, removed))
    queries = gallery.query_sets["text"].queries[:200]
    left = np.setdiff1d(np.arange(len(gallery.rows)), removed)
    query_set = QuerySet(queries, edges(gallery.rows, queries, left))
    with LocalStore.open(target / HOME) as store:
        answer = engine(lambda query: rows(store.search_images(query, K)))
        answer(queries)  # maps their pages
        times, result_rows = answer(queries)
    return {
        **milliseconds(times),
        **summarise_recall(query_set.recall_at_k(gallery.rows, result_rows)),
    }


def _change(home: Path, gallery: Gallery, removed: Ids) -> Figures:
    shutil.copytree(gallery.folder / "ours" / HOME, home)
    with LocalStore.open(home) as store, store.writer() as writer:
        for first in range(0, len(gallery.fresh), STEP):
            row = gallery.count + first
            sizes = gallery.sizes[row : min(row + STEP, len(gallery.sizes))]
            writer.add_images(images(sizes.tolist(), row), gallery.fresh[first : first + STEP])
        names = np.array([image.path for image in images(gallery.sizes.tolist(), 0)])
        writer.detach(names[removed].tolist())
    return {"new": len(gallery.fresh), "removed": len(removed)}
