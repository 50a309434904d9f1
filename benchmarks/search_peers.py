"""Other searches, if they are installed, each in a process of its own at an effort found for it.

The effort is the least, or the fastest, with which the 95 % interval of recall@10 on the texts for
tuning lies above the target: the rule that our store follows, but for texts alone.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleaved_timing import Search, engine
from benchmarks.search_data import Figures, Gallery, K, load_gallery, load_or_build
from benchmarks.search_engines import TARGET
from soutu.store.ann_build import lists_for
from soutu.types import Floats, Ids

LINKS, BUILDING = 16, 200  # of a graph's nodes, and the effort of finding them; the usual ones
EFFORTS = [round(10 * 1.15**step) for step in range(45)]  # 10 to 4,700
REFINED = (20, 40, 80, 160, 320)  # times as many candidates as answers
FEWER = 320  # queries to tune on where each is asked alone
MAX_BUILD_S = 180  # seconds a build may take at a second size


class PeerCrashed(Exception):
    """A peer's process ended before it had an index."""


class PeerProcess:
    """A peer in a process of its own, answering as an ``Engine``."""

    def __init__(self, name: str, gallery: Gallery) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, gallery.folder))
        self._process.start()
        theirs.close()
        try:
            self.info: Figures = self._ours.recv()
        except EOFError:  # the process printed its error on standard error
            self._process.join()
            raise PeerCrashed(name) from None

    def __call__(self, queries: Floats) -> tuple[Floats, Ids]:
        self._ours.send(queries)
        times, result_rows = self._ours.recv()
        return times, result_rows

    def close(self) -> None:
        self._ours.send(None)
        self._process.join()


def reason_absent(name: str, gallery: Gallery, before: Figures | None, times: float) -> str | None:
    """Why this peer does not run, or None. ``before``: what it told at a size ``times`` smaller."""
    if importlib.util.find_spec(name) is None:
        return "not installed"
    if before is None or (gallery.folder / name / "built.json").exists():
        return None
    expected = float(str(before.get("build s", 0))) * times
    if expected > MAX_BUILD_S:
        return f"building would take {expected:.0f} s or more, {MAX_BUILD_S} are allowed"
    return None


def _serve(pipe: Connection, name: str, folder: Path) -> None:
    info, search = PEERS[name](load_gallery(folder))
    answer = engine(search)
    pipe.send(info)
    while (queries := pipe.recv()) is not None:
        pipe.send(answer(queries))


def _tune(
    gallery: Gallery,
    efforts: Sequence[int],
    answer: Callable[[Floats, int], Ids],
    queries: int | None = None,
) -> int | None:
    """Return the least of ``efforts`` that reaches the target; None if none does.

    Recall grows with effort. ``queries``: how many of the tuning texts to use (all)."""
    texts = gallery.tuning["text"]
    tuning = texts.first(queries or len(texts.queries))
    low, high = 0, len(efforts)
    while low < high:
        middle = (low + high) // 2
        recall = tuning.recall_at_k(gallery.images, answer(tuning.queries, efforts[middle]))
        lower_bound = recall.mean() - 1.96 * recall.std() / len(recall) ** 0.5
        low, high = (low, middle) if lower_bound >= TARGET else (middle + 1, high)
    return efforts[low] if low < len(efforts) else None


def _hnswlib(gallery: Gallery) -> tuple[Figures, Search]:
    import hnswlib

    folder = gallery.folder / "hnswlib"
    index = hnswlib.Index("ip", gallery.dim)

    def build(folder: Path) -> Figures:
        start = time.perf_counter()
        index.init_index(gallery.count, M=LINKS, ef_construction=BUILDING, random_seed=0)
        index.add_items(gallery.images)
        seconds = time.perf_counter() - start
        index.save_index(str(folder / "index"))

        def answer(queries: Floats, effort: int) -> Ids:
            index.set_ef(effort)
            return np.asarray(index.knn_query(queries, K)[0], np.int64)

        return {"build s": round(seconds, 1), "ef": _tune(gallery, EFFORTS, answer)}

    info = load_or_build(folder, build)
    index = hnswlib.Index("ip", gallery.dim)
    index.load_index(str(folder / "index"))
    index.set_ef(info["ef"] or EFFORTS[-1])
    return info, lambda query: np.asarray(index.knn_query(query, K)[0][0], np.int64)


def _usearch(gallery: Gallery) -> tuple[Figures, Search]:
    from usearch.index import Index

    folder = gallery.folder / "usearch"

    def fresh() -> Any:  # noqa: ANN401
        return Index(ndim=gallery.dim, metric="ip", dtype="f16", connectivity=LINKS)

    def build(folder: Path) -> Figures:
        index = fresh()
        start = time.perf_counter()
        index.add(np.arange(gallery.count), np.ascontiguousarray(gallery.images))
        seconds = time.perf_counter() - start
        index.save(str(folder / "index"))

        def answer(queries: Floats, effort: int) -> Ids:
            index.expansion_search = effort
            return np.asarray(index.search(queries, K).keys, np.int64)

        return {"build s": round(seconds, 1), "expansion": _tune(gallery, EFFORTS, answer)}

    info = load_or_build(folder, build)
    index = fresh()
    index.load(str(folder / "index"))
    index.expansion_search = info["expansion"] or EFFORTS[-1]
    return info, lambda query: np.asarray(index.search(query, K).keys, np.int64)


def _lancedb(gallery: Gallery) -> tuple[Figures, Search]:
    os.environ.setdefault("LANCE_LOG", "error")  # or it warns a thousand times of a full queue
    import lancedb

    folder = gallery.folder / "lancedb"
    info = load_or_build(folder, lambda folder: _build_lancedb(folder, gallery))
    table = lancedb.connect(str(folder / "db")).open_table("images")
    probes, refined = int(str(info["probes"])), int(str(info["refined"]))
    return info, lambda query: _ask_lancedb(table, query, probes, refined)


def _build_lancedb(folder: Path, gallery: Gallery) -> Figures:
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfRq

    start = time.perf_counter()
    values = pa.array(np.ascontiguousarray(gallery.images).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(values, gallery.dim)
    columns = {"row": pa.array(np.arange(gallery.count)), "vector": vectors}
    table = lancedb.connect(str(folder / "db")).create_table("images", pa.table(columns))
    lists = lists_for(gallery.count)
    table.create_index("vector", config=IvfRq(distance_type="dot", num_partitions=lists))
    info: Figures = {
        "build s": round(time.perf_counter() - start, 1),
        "probes": lists,
        "refined": REFINED[-1],
    }
    best = float("inf")
    few = gallery.tuning["text"].queries[:50]
    for refined in REFINED:

        def answer(queries: Floats, probes: int, refined: int = refined) -> Ids:
            return np.stack([_ask_lancedb(table, query, probes, refined) for query in queries])

        probes = _tune(gallery, _probes(lists), answer, FEWER)
        if probes is None:
            continue
        search = partial(_ask_lancedb, table, probes=probes, refined=refined)
        median = float(np.median(engine(search)(few)[0]))
        if median > best:
            break
        best = median
        info.update(probes=probes, refined=refined)
    return info


def _ask_lancedb(table: Any, query: Floats, probes: int, refined: int) -> Ids:  # noqa: ANN401
    search = table.search(query).distance_type("dot").nprobes(probes).refine_factor(refined)
    result_rows = search.select(["row", "_distance"]).limit(K).to_arrow()["row"].to_numpy()
    return np.pad(result_rows, (0, K - len(result_rows)), constant_values=-1)


def _probes(lists: int) -> list[int]:
    """From a 32nd of the lists to all."""
    return sorted({max(1, round(lists / 2 ** (half / 2))) for half in range(11)})


PEERS: dict[str, Callable[[Gallery], tuple[Figures, Search]]] = {
    "hnswlib": _hnswlib,
    "usearch": _usearch,
    "lancedb": _lancedb,
}
