"""What a further ``soutu index`` of a folder costs: nothing changed, a few new, all renamed.

``python -m benchmarks.incremental [--count 10000] [--work DIR]``. Each run is the command in a new
process, with the embedded model; ``--work`` keeps the folder and its index between calls.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import save

MAIN = "from soutu.cli import main; main()"
LIMIT = 2.0  # seconds for a folder in which nothing has changed
NEW = 10
RUNS = 5

Counts = dict[str, int]


def write(folder: Path, first: int, count: int) -> None:
    """``count`` small JPEGs, no two of the same content, fifty a folder."""
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        path = folder / f"{number // 50:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((256, 192), Image.Resampling.BICUBIC).save(path)


def index(folder: Path) -> tuple[float, Counts]:
    """Seconds of one run, and what it says it did."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "index", str(folder), "--model", "tiny", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def rename_all(folder: Path) -> int:
    """Every picture gets another name in another folder."""
    files = sorted(folder.rglob("*.jpg"))
    for file in files:
        target = folder / f"moved-{file.parent.name}"
        target.mkdir(exist_ok=True)
        file.rename(target / f"renamed-{file.name}")
    for child in list(folder.iterdir()):
        if child.is_dir() and not child.name.startswith(".") and not any(child.iterdir()):
            child.rmdir()
    return len(files)


def measure(folder: Path, count: int) -> dict[str, object]:
    if not (folder / ".soutu").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, 0, count)
    first, _ = index(folder)
    unchanged = [index(folder) for _ in range(RUNS)]
    assert all(counts["encoded"] == 0 for _, counts in unchanged), unchanged
    have = sum(1 for _ in folder.rglob("*.jpg"))
    write(folder, 10**6 + have, NEW)
    some_seconds, some = index(folder)
    renamed = rename_all(folder)
    moved_seconds, moved = index(folder)
    return {
        "count": count,
        "first run, s": round(first, 2),
        "unchanged, s": round(statistics.median(seconds for seconds, _ in unchanged), 2),
        "new": {"s": round(some_seconds, 2), "files": NEW, **_main_counts(some)},
        "renamed": {"s": round(moved_seconds, 2), "files": renamed, **_main_counts(moved)},
    }


def _main_counts(counts: Counts) -> Counts:
    return {name: counts[name] for name in ("found", "encoded", "renamed", "removed", "failed")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        figures = measure((options.work or Path(own)) / "pictures", options.count)
    print(json.dumps(figures, indent=1))
    new, renamed = figures["new"], figures["renamed"]
    assert isinstance(new, dict)
    assert isinstance(renamed, dict)
    unchanged = float(str(figures["unchanged, s"]))
    for claim, holds in (
        (f"unchanged: {unchanged} s, at most {LIMIT}", unchanged <= LIMIT),
        (f"{NEW} new: {new['encoded']} encoded", new["encoded"] == NEW),
        (f"all renamed: {renamed['encoded']} encoded", renamed["encoded"] == 0),
        (f"renames followed: {renamed['renamed']}", renamed["renamed"] == renamed["files"]),
    ):
        print("PASS" if holds else "FAIL", claim)
    print(save("incremental", figures))


if __name__ == "__main__":
    main()
