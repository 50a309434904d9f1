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
from benchmarks.search_data import Asked, Figures, Gallery, K, edges, kept
from benchmarks.search_engines import STEP, Faiss, Ours, images, rows
from benchmarks.search_turns import engine, milliseconds, recalled
from soutu.fs import HOME
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare, Floats, Ids

ADMITTED = (50, 5, 1)  # per cent
OPEN = """
import sys
from pathlib import Path
import numpy as np
from soutu.store.local import LocalStore
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
    np.save(queries, gallery.asked["text"].queries)
    return {
        "memory": resident(ours, queries),
        "cold start s": cold(ours, queries, runs),
        "queries/s": throughput(gallery, ours, faiss),
        "filtered": filtered(gallery, ours),
        "2 % new, 2 % removed": changed(gallery),
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
    taken: dict[str, list[float]] = {"once": [], "many": []}
    for _ in range(runs):
        for how, times in taken.items():
            times.append(seconds(FIRST, str(ours.home), str(queries), how))
    imports = [seconds(OPEN.rpartition("store =")[0], "", str(queries)) for _ in range(runs)]
    return {
        "open(once=True), first search": figures(taken["once"]),
        "open(), first search": figures(taken["many"]),
        "imports alone": figures(imports),
    }


def throughput(gallery: Gallery, ours: Ours, faiss: Faiss | None) -> Figures:
    """All text-like queries as fast as they go."""
    queries = gallery.asked["text"].queries
    told: Figures = {}
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ours.search, queries[:20]))
            start = time.perf_counter()
            list(pool.map(ours.search, queries))
            name = f"ours, {threads} thread{'s' * (threads > 1)}"
            told[name] = round(len(queries) / (time.perf_counter() - start))
    if faiss:
        start = time.perf_counter()
        faiss.batch(queries)
        told["Faiss, one batch"] = round(len(queries) / (time.perf_counter() - start))
    return told


def filtered(gallery: Gallery, ours: Ours) -> Figures:
    """By a filter on a number that has nothing to do with the picture."""
    told: Figures = {}
    queries = gallery.asked["text"].queries[:200]
    for share in ADMITTED:
        where = Compare("size", "<=", 10 * share)
        admitted = np.flatnonzero(gallery.sizes[: gallery.count] <= 10 * share)
        asked = Asked(queries, edges(gallery.images, queries, admitted))

        def search(query: Floats, where: Compare = where) -> Ids:
            return rows(ours.store.search_images(query, K, where))

        start = time.perf_counter()
        search(queries[0])
        first = 1000 * (time.perf_counter() - start)
        taken, found = engine(search)(queries)
        told[f"{share} %"] = {
            "first ms": round(first, 1),  # the database says which images are admitted
            **milliseconds(taken),
            **recalled(asked.get_meta(gallery.images, found)),
        }
    return told


def changed(gallery: Gallery) -> Figures:
    """A copy of the store to which images came and from which images went since its build."""
    place = gallery.folder / "changed"
    gone = np.random.default_rng(3).choice(gallery.count, len(gallery.fresh), replace=False)
    kept(place, lambda place: _change(place / HOME, gallery, gone))
    queries = gallery.asked["text"].queries[:200]
    left = np.setdiff1d(np.arange(len(gallery.rows)), gone)
    asked = Asked(queries, edges(gallery.rows, queries, left))
    with LocalStore.open(place / HOME) as store:
        answer = engine(lambda query: rows(store.search_images(query, K)))
        answer(queries)  # maps their pages
        taken, found = answer(queries)
    return {**milliseconds(taken), **recalled(asked.get_meta(gallery.rows, found))}


def _change(home: Path, gallery: Gallery, gone: Ids) -> Figures:
    shutil.copytree(gallery.folder / "ours" / HOME, home)
    with LocalStore.open(home) as store, store.writer() as writer:
        for first in range(0, len(gallery.fresh), STEP):
            row = gallery.count + first
            sizes = gallery.sizes[row : min(row + STEP, len(gallery.sizes))]
            writer.add_images(images(sizes.tolist(), row), gallery.fresh[first : first + STEP])
        names = np.array([image.path for image in images(gallery.sizes.tolist(), 0)])
        writer.detach(names[gone].tolist())
    return {"new": len(gallery.fresh), "removed": len(gone)}
