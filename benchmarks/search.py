"""Searching 100,000 and 1,000,000 vectors: the plain scan, bare Faiss, other searches, our store.

``python -m benchmarks.search --work DIR [--peers hnswlib,usearch,lancedb]``. Vectors are
synthetic (benchmarks/synthetic_vectors.py), recall@10 is counted on queries that no effort was
tuned with, and all take turns. DIR keeps vectors and indexes, so that a second run builds nothing:
empty DIR/*/ours after a change to the store, all of DIR after one to the vectors. Needs the extra
``ann``; peers are installed separately. ``--quick`` shows in seconds that all of it works, and
writes its result into DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.interleaved_timing import (
    Engine,
    engine,
    milliseconds,
    ratio,
    summarise_recall,
    take_turns,
)
from benchmarks.record import RESULTS, save
from benchmarks.search_checks import FAISS, verdicts
from benchmarks.search_data import Figures, Gallery, gallery
from benchmarks.search_engines import Faiss, Ours, scan
from benchmarks.search_peers import PEERS, PeerCrashed, PeerProcess, reason_absent
from benchmarks.search_plot import EXACT, OURS, draw
from benchmarks.search_store import only_ours
from soutu.store.ann import EXACT_BELOW
from soutu.types import Floats

RECALL = "recall@10"
CURVE = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LARGE = 200_000  # images from which the scan, which takes long, answers few queries
FEW = 50
PLOT = Path(__file__).parents[1] / "docs" / "search-latency.svg"


@dataclass(frozen=True)
class Plan:
    """``queries`` of each kind are asked; ``runs`` new processes are started."""

    work: Path
    sizes: Sequence[int]
    curve: Sequence[int]
    peers: Sequence[str]
    dim: int = 512
    queries: int = 500
    runs: int = 5
    results: Path = RESULTS
    plot: Path = PLOT


def measure_size(plan: Plan, count: int, smaller: Figures, times: float) -> Figures:
    """All figures at one size. ``smaller``: what the peers told at a size ``times`` smaller."""
    data = gallery(plan.work, count, dim=plan.dim, queries=plan.queries)
    faiss, ours = Faiss(data), Ours(data)
    engines: dict[str, Engine] = {
        FAISS: engine(faiss.search),
        OURS: engine(ours.search),
    }
    queries = data.query_sets["text"].queries
    fresh = milliseconds(engine(ours.search)(queries[: 2 * FEW])[0])
    table: dict[str, Figures] = {FAISS: faiss.info, OURS: {**ours.info, "text, just opened": fresh}}
    ours.touch(queries[0])
    peers: dict[str, PeerProcess] = {}
    try:
        for name in plan.peers:
            before = smaller.get(name)
            why = reason_absent(name, data, before if isinstance(before, dict) else None, times)
            if why:
                table[name] = {"not run": why}
                continue
            try:
                peers[name] = PeerProcess(name, data)
            except PeerCrashed:
                table[name] = {"not run": "its process ended while building"}
            else:
                table[name] = peers[name].info
        engines.update(peers)
        text, all_times = take_turns(engines, data.query_sets["text"], data.images)
        for name, figures in text.items():
            table[name]["text"] = figures
            table[name]["image"] = pictures(engines[name], data)
    finally:
        for peer in peers.values():
            peer.close()
    exact, all_times[EXACT] = measure_scan(data)
    table[EXACT] = {"text": exact}
    others = [name for name in all_times if name != OURS]
    return {
        "engines": table,
        "Soutu to": {name: ratio(all_times[OURS], all_times[name]) for name in others},
        "Soutu alone": only_ours(data, ours, faiss, plan.runs),
    }


def measure_scan(data: Gallery) -> tuple[Figures, Floats]:
    """The scan has no turns: it empties the caches, which would be for those after it to pay."""
    query_set = data.query_sets["text"].first(
        FEW if data.count >= LARGE else len(data.query_sets["text"].queries)
    )
    table, times = take_turns({EXACT: engine(scan(data))}, query_set, data.images)
    return table[EXACT], times[EXACT]


def pictures(answer: Engine, data: Gallery) -> Figures:
    query_set = data.query_sets["image"]
    return summarise_recall(query_set.recall_at_k(data.images, answer(query_set.queries)[1]))


def curve(plan: Plan) -> dict[int, dict[str, float]]:
    """By the number of images: median milliseconds of the scan and of ours, whose recall@10."""
    results: dict[int, dict[str, float]] = {}
    for count in plan.curve:
        data = gallery(plan.work, count, dim=plan.dim, queries=plan.queries)
        ours = Ours(data)
        ours.touch(data.query_sets["text"].queries[0])
        table, _ = take_turns({OURS: engine(ours.search)}, data.query_sets["text"], data.images)
        table[EXACT], _ = measure_scan(data)
        results[count] = {name: float(str(table[name]["p50 ms"])) for name in table}
        results[count][RECALL] = float(str(table[OURS][RECALL]))
        print(f"{count:>9,} images: {results[count]}", flush=True)
    return results


def installed_versions() -> dict[str, str]:
    results = {}
    for package in ("faiss-cpu", *PEERS):
        try:
            results[package] = version(package)
        except PackageNotFoundError:
            continue
    return results


def run(plan: Plan) -> Path:
    """Measure, print, draw and save; the path of the JSON file."""
    by_size: dict[int, Figures] = {}
    smaller: Figures = {}
    times = 1.0
    for count in sorted(plan.sizes):
        if by_size:
            times = count / max(by_size)
        by_size[count] = figures = measure_size(plan, count, smaller, times)
        engines = figures["engines"]
        assert isinstance(engines, dict)
        smaller = engines
        for part, values in figures.items():
            print(f"{count:,} images, {part}:")
            for name, value in values.items() if isinstance(values, dict) else ():
                print(f"  {name}: {value}", flush=True)
    line = curve(plan)
    checks = verdicts(by_size)
    for name, check in checks.items():
        print(f"{'PASS' if check['holds'] else 'FAIL'} {name}: {check['found']}")
    path = save(
        "search",
        {
            "versions": installed_versions(),
            "dim": plan.dim,
            "sizes": {str(count): figures for count, figures in by_size.items()},
            "p50 ms by images": {str(count): times for count, times in line.items()},
            "checks": checks,
        },
        plan.results,
    )
    lowest = min(point[RECALL] for point in line.values())
    draw(line, f"{plan.dim}-d vectors, 10 results, recall@10 from {lowest:.3f}", plan.plot)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000", help="numbers of images")
    parser.add_argument("--work", type=Path, required=True, help="folder for vectors and indexes")
    parser.add_argument("--peers", default="", help=f"any of {','.join(PEERS)}")
    parser.add_argument("--quick", action="store_true", help="few vectors, few queries")
    args = parser.parse_args(arguments)
    peers = [name for name in args.peers.split(",") if name]
    if unknown := set(peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(unknown)}")
    sizes = [int(size) for size in args.sizes.split(",")]
    plan = Plan(args.work, sizes, [n for n in CURVE if n <= max(sizes)], peers)
    if args.quick:
        count = EXACT_BELOW  # from which there are codes
        plan = Plan(
            args.work, [count], [1_000, count], peers, dim=64, queries=50, runs=1,
            results=args.work, plot=args.work / "plot.svg",
        )  # fmt: skip
    print(run(plan))


if __name__ == "__main__":
    main()
