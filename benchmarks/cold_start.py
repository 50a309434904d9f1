"""How long ``soutu search 灰猫`` takes from nothing, and what its imports cost.

``python -m benchmarks.cold_start [--runs 9]``. Every run is a new process. Files are in the
page cache ("warm"), or dropped from it before each run where the system lets us ("dropped").
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.record import save
from soutu.sources.demo import demo_data

DROP = Path("/proc/sys/vm/drop_caches")
IMPORTS = ("numpy", "onnxruntime", "tokenizers", "yaml", "click", "soutu", "soutu.cli")
MAIN = "from soutu.cli import main; main()"


def seconds(code: str, *arguments: str, before: Callable[[], object] | None = None) -> float:
    """Wall seconds of one new Python process that runs ``code``."""
    if before:
        before()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def figures(runs: list[float]) -> dict[str, float]:
    return {
        "min": round(min(runs), 3),
        "median": round(statistics.median(runs), 3),
        "max": round(max(runs), 3),
    }


def drop_cache() -> None:
    subprocess.run(["sync"], check=True)
    DROP.write_text("3")


def measure(gallery: Path, runs: int) -> dict[str, object]:
    search = ("search", "灰猫", "--gallery", str(gallery))
    seconds(MAIN, *search)
    warm = [seconds(MAIN, *search) for _ in range(runs)]
    found: dict[str, object] = {"search, warm": figures(warm)}
    if os.access(DROP, os.W_OK):
        dropped = [seconds(MAIN, *search, before=drop_cache) for _ in range(runs)]
        found["search, dropped page cache"] = figures(dropped)
    bare = statistics.median(seconds("pass") for _ in range(runs))
    found["python alone"] = round(bare, 3)
    found["imports, less python alone"] = {
        name: round(statistics.median(seconds(f"import {name}") for _ in range(runs)) - bare, 3)
        for name in IMPORTS
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder)
        shutil.copytree(demo_data() / "images", gallery / "images")
        index = ("index", folder, "--model", "tiny")
        subprocess.run([sys.executable, "-c", MAIN, *index], check=True)
        found = measure(gallery, args.runs)
    for name, value in found.items():
        print(f"{name}: {value}")
    print(save("cold_start", {"unit": "s", "runs": args.runs, **found}))


if __name__ == "__main__":
    main()
