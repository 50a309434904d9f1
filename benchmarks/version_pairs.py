"""Whether a change made Soutu slower: two checkouts take turns, on the same galleries.

``python -m benchmarks.version_pairs --old TREE --new TREE [--pairs 11] [--only NAME]``; a tree is a
folder that holds ``src/soutu``. What is measured:

    cold search, small    a new process: ``soutu search`` on the 50 pictures of the demo
    cold search, large    the same on 100,000 vectors (``--rows``), of which no picture is there
    warm search, large    median milliseconds of ``Gallery.search`` in a process that has searched
    indexing              a new process: ``soutu index`` of JPEGs of a megapixel, from nothing

In each of the pairs both run once, in random order, and the ratio new / old is taken; for a cold
search, which is short, ``--repeats`` runs a side take turns and their medians are compared. What
counts is the median of the ratios. Its interval is that of order statistics: the narrowest pair of
ranks that holds the true median with a probability of 95 %, whatever the distribution. The old
checkout makes the galleries, so the new one has to read its data. All runs but the first, which
does not count, find the files in the page cache. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import pictures
from benchmarks.record import save

LIMIT = 1.03
"""The median ratio new / old from which a change counts as slower."""
COMMAND = "from soutu.cli import main; main()"  # as the installed script, how it ends included
QUERY = "灰猫"
SIZE = (1152, 864)  # of a picture that is indexed, in pixels
ROWS_PER_FOLDER = 1000
WARM = """
import json, statistics, sys, time
from soutu import Gallery
colours = ("red", "gray", "black", "white", "green", "blue", "yellow", "brown")
nouns = ("cat", "dog", "car", "tree", "house", "boat", "bird", "flower")
queries = [f"a {colour} {noun}" for colour in colours for noun in nouns]
with Gallery.open(sys.argv[1]) as gallery:
    for query in queries:
        gallery.search(query)
    seconds = []
    for _ in range(int(sys.argv[2])):
        for query in queries:
            start = time.perf_counter()
            gallery.search(query)
            seconds.append(time.perf_counter() - start)
print(json.dumps(1000 * statistics.median(seconds)))
"""

Measure = Callable[[Path], float]


def run(tree: Path, code: str, *arguments: str) -> str:
    """Run ``code`` in a new process that imports the soutu of ``tree``; return its output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PYTHONUTF8": "1",
        "XDG_CONFIG_HOME": os.devnull,  # no settings of the person who measures
    }
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if process.returncode:
        raise SystemExit(f"{tree}: {' '.join(arguments)}: {process.returncode}\n{process.stderr}")
    return process.stdout


def check_tree(tree: Path) -> None:
    """Stop where another soutu than that of ``tree`` would be measured."""
    file = run(tree, "import soutu; print(soutu.__file__)").strip()
    if not Path(file).is_relative_to(tree):
        raise SystemExit(f"{tree}: its soutu is not imported, but {file}")


def elapsed(action: Callable[[], object]) -> float:
    """Wall seconds of ``action``."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def cold_search(gallery: Path, tree: Path) -> float:
    """Seconds of a process that searches."""
    return elapsed(lambda: run(tree, COMMAND, "search", QUERY, "--gallery", str(gallery)))


def warm_search(gallery: Path, rounds: int, tree: Path) -> float:
    """Median milliseconds of a search, over 64 queries in ``rounds`` rounds."""
    return float(json.loads(run(tree, WARM, str(gallery), str(rounds))))


def indexing(folder: Path, model: str, tree: Path) -> float:
    """Seconds of a process that indexes ``folder`` from nothing."""
    shutil.rmtree(folder / ".soutu", ignore_errors=True)
    return elapsed(lambda: run(tree, COMMAND, "index", str(folder), "--model", model))


def make_small(tree: Path, folder: Path, model: str) -> Path:
    """The demo's pictures, indexed."""
    run(tree, COMMAND, "demo", "--keep", str(folder))
    shutil.rmtree(folder / ".soutu")
    run(tree, COMMAND, "index", str(folder), "--model", model)
    return folder


def make_large(tree: Path, small: Path, folder: Path, rows: int) -> Path:
    """``rows`` vectors that lie as those of the pictures in ``small`` do, imported."""
    source = folder / "vectors"
    run(tree, COMMAND, "export", str(source), "--gallery", str(small), "--format", "npy")
    features = source / "image_features.npy"
    vectors = np.load(features)
    rng = np.random.default_rng(0)
    # Each is one picture's vector, moved by as much as the pictures lie apart.
    large = vectors[rng.integers(len(vectors), size=rows)]
    large += rng.standard_normal(large.shape, dtype=np.float32) * vectors.std(0)
    large /= np.linalg.norm(large, axis=1, keepdims=True)
    np.save(features, large)
    for file in ("text_features.npy", "captions.json"):
        (source / file).unlink(missing_ok=True)
    paths = [f"{i // ROWS_PER_FOLDER}/{i % ROWS_PER_FOLDER}.jpg" for i in range(rows)]
    (source / "image_paths.json").write_text(json.dumps(paths), encoding="utf-8")
    gallery = folder / "gallery"
    gallery.mkdir()
    run(tree, COMMAND, "import", str(source), "--gallery", str(gallery))
    return gallery


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The order statistics between which the median lies with a probability of ``level`` or more;
    the smallest and the largest where there are too few."""
    ordered, n = sorted(values), len(values)
    rank = 0  # of the lower bound, from 0; the upper one is as far from the end
    while rank + 1 < n / 2:
        outside = 2 * sum(math.comb(n, k) for k in range(rank + 2)) / 2**n
        if outside > 1 - level:
            break
        rank += 1
    return ordered[rank], ordered[n - 1 - rank]


def compare(
    measure: Measure, old: Path, new: Path, pairs: int, repeats: int, rng: random.Random
) -> dict[str, object]:
    """Both trees in turn, ``pairs`` times: medians, and the ratios new / old."""
    trees = {"old": old, "new": new}
    medians: dict[str, list[float]] = {"old": [], "new": []}
    for tree in trees.values():  # files into the page cache, bytecode onto the disk
        measure(tree)
    for _ in range(pairs):
        values: dict[str, list[float]] = {"old": [], "new": []}
        for _ in range(repeats):
            for side in rng.sample(sorted(trees), 2):
                values[side].append(measure(trees[side]))
        for side, runs in values.items():
            medians[side].append(statistics.median(runs))
    ratios = [n / o for n, o in zip(medians["new"], medians["old"], strict=True)]
    low, high = median_interval(ratios)
    ratio = statistics.median(ratios)
    return {
        "old": round(statistics.median(medians["old"]), 4),
        "new": round(statistics.median(medians["new"]), 4),
        "ratio": round(ratio, 4),
        "interval": [round(low, 4), round(high, 4)],
        "ratios": [round(r, 4) for r in ratios],
        "holds": ratio <= LIMIT,
    }


def describe(tree: Path) -> str:
    """The commit of a checkout; "-dirty" when files differ from it."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--new", type=Path, required=True, help="checkout that is judged")
    parser.add_argument("--pairs", type=int, default=11, help="(11)")
    parser.add_argument("--repeats", type=int, default=3, help="cold searches a side and pair (3)")
    parser.add_argument("--rounds", type=int, default=10, help="of 64 warm searches (10)")
    parser.add_argument("--rows", type=int, default=100_000, help="of the large gallery (100,000)")
    parser.add_argument("--pictures", type=int, default=300, help="that are indexed (300)")
    parser.add_argument("--model", default="tiny", help="installed in both (tiny)")
    parser.add_argument("--only", help="measure what has this in its name")
    parser.add_argument("--results", type=Path, help="folder for the JSON file")
    args = parser.parse_args()
    old, new = args.old.resolve(), args.new.resolve()
    for tree in (old, new):
        check_tree(tree)
        compileall.compile_dir(tree / "src", quiet=1)  # as an installed package is
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        small = make_small(old, work / "small", args.model)
        large = make_large(old, small, work, args.rows)
        photos = pictures.write(work / "photos", args.pictures, SIZE)
        measures: dict[str, tuple[Measure, int]] = {
            "cold search, small, s": (partial(cold_search, small), args.repeats),
            "cold search, large, s": (partial(cold_search, large), args.repeats),
            "warm search, large, ms": (partial(warm_search, large, args.rounds), 1),
            "indexing, s": (partial(indexing, photos, args.model), 1),
        }
        figures: dict[str, object] = {}
        for name, (measure, repeats) in measures.items():
            if args.only and args.only not in name:
                continue
            figures[name] = result = compare(measure, old, new, args.pairs, repeats, rng)
            print(f"{name}: {result}", flush=True)
    settings = {
        "pairs": args.pairs,
        "repeats": args.repeats,
        "rows": args.rows,
        "pictures": args.pictures,
        "model": args.model,
        "limit": LIMIT,
    }
    trees = {"old": describe(old), "new": describe(new)}
    record: dict[str, object] = {**trees, **settings, "measured": figures}
    if args.results:
        print(save("version_pairs", record, args.results))
    else:
        print(save("version_pairs", record))


if __name__ == "__main__":
    main()
