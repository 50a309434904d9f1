"""Searching 100,000 and 1,000,000 vectors: the plain scan, bare Faiss, other searches, our store.

``python -m benchmarks.search --work DIR [--peers hnswlib,usearch,lancedb]``. Vectors are made up
(benchmarks/cones.py), recall@10 is counted on queries that no effort was found with, and all take
turns. DIR keeps vectors and indexes, so that a second run builds nothing: empty DIR/*/ours after a
change to the store, all of DIR after one to the vectors. Needs the extra ``ann``; peers are
installed beside. ``--quick`` shows in seconds that all of it works, and keeps its result in DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.record import RESULTS, save
from benchmarks.search_checks import FAISS, verdicts
from benchmarks.search_data import Figures, Gallery, gallery
from benchmarks.search_engines import Faiss, Ours, scan
from benchmarks.search_peers import PEERS, Apart, Ended, absent
from benchmarks.search_plot import EXACT, OURS, draw
from benchmarks.search_store import only_ours
from benchmarks.search_turns import Engine, engine, milliseconds, ratio, recalled, turns
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


def measured(plan: Plan, count: int, smaller: Figures, times: float) -> Figures:
    """All figures at one size. ``smaller``: what the peers told at a size ``times`` smaller."""
    place = gallery(plan.work, count, dim=plan.dim, queries=plan.queries)
    faiss, ours = Faiss(place), Ours(place)
    engines: dict[str, Engine] = {
        FAISS: engine(faiss.search),
        OURS: engine(ours.search),
    }
    queries = place.asked["text"].queries
    fresh = milliseconds(engine(ours.search)(queries[: 2 * FEW])[0])
    told: dict[str, Figures] = {FAISS: faiss.told, OURS: {**ours.told, "text, just opened": fresh}}
    ours.touch(queries[0])
    apart: dict[str, Apart] = {}
    try:
        for name in plan.peers:
            before = smaller.get(name)
            why = absent(name, place, before if isinstance(before, dict) else None, times)
            if why:
                told[name] = {"not run": why}
                continue
            try:
                apart[name] = Apart(name, place)
            except Ended:
                told[name] = {"not run": "its process ended while building"}
            else:
                told[name] = apart[name].told
        engines.update(apart)
        text, taken = turns(engines, place.asked["text"], place.images)
        for name, figures in text.items():
            told[name]["text"] = figures
            told[name]["image"] = pictures(engines[name], place)
    finally:
        for peer in apart.values():
            peer.close()
    exact, taken[EXACT] = scanned(place)
    told[EXACT] = {"text": exact}
    others = [name for name in taken if name != OURS]
    return {
        "engines": told,
        "Soutu to": {name: ratio(taken[OURS], taken[name]) for name in others},
        "Soutu alone": only_ours(place, ours, faiss, plan.runs),
    }


def scanned(place: Gallery) -> tuple[Figures, Floats]:
    """The scan has no turns: it empties the caches, which would be for those after it to pay."""
    asked = place.asked["text"].first(
        FEW if place.count >= LARGE else len(place.asked["text"].queries)
    )
    told, taken = turns({EXACT: engine(scan(place))}, asked, place.images)
    return told[EXACT], taken[EXACT]


def pictures(answer: Engine, place: Gallery) -> Figures:
    asked = place.asked["image"]
    return recalled(asked.get_meta(place.images, answer(asked.queries)[1]))


def curve(plan: Plan) -> dict[int, dict[str, float]]:
    """By the number of images: median milliseconds of the scan and of ours, whose recall@10."""
    found: dict[int, dict[str, float]] = {}
    for count in plan.curve:
        place = gallery(plan.work, count, dim=plan.dim, queries=plan.queries)
        ours = Ours(place)
        ours.touch(place.asked["text"].queries[0])
        told, _ = turns({OURS: engine(ours.search)}, place.asked["text"], place.images)
        told[EXACT], _ = scanned(place)
        found[count] = {name: float(str(told[name]["p50 ms"])) for name in told}
        found[count][RECALL] = float(str(told[OURS][RECALL]))
        print(f"{count:>9,} images: {found[count]}", flush=True)
    return found


def installed() -> dict[str, str]:
    found = {}
    for package in ("faiss-cpu", *PEERS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def run(plan: Plan) -> Path:
    """Measure, print, draw and save; the path of the JSON file."""
    by_size: dict[int, Figures] = {}
    smaller: Figures = {}
    times = 1.0
    for count in sorted(plan.sizes):
        if by_size:
            times = count / max(by_size)
        by_size[count] = figures = measured(plan, count, smaller, times)
        told = figures["engines"]
        assert isinstance(told, dict)
        smaller = told
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
            "versions": installed(),
            "dim": plan.dim,
            "sizes": {str(count): figures for count, figures in by_size.items()},
            "p50 ms by images": {str(count): times for count, times in line.items()},
            "checks": checks,
        },
        plan.results,
    )
    least = min(point[RECALL] for point in line.values())
    draw(line, f"{plan.dim}-d vectors, 10 results, recall@10 from {least:.3f}", plan.plot)
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
        least = EXACT_BELOW  # from which there are codes
        plan = Plan(
            args.work, [least], [1_000, least], peers, dim=64, queries=50, runs=1,
            results=args.work, plot=args.work / "plot.svg",
        )  # fmt: skip
    print(run(plan))


if __name__ == "__main__":
    main()
