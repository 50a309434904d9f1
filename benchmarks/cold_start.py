"""How long ``soutu search`` takes from nothing, and what its imports cost.

``python -m benchmarks.cold_start [--runs 9] [--rclip PATH/TO/rclip]``. Every run is a new process.
Files are in the page cache ("warm"), or dropped from it before each run where the system lets us
("dropped"). With ``--rclip`` also ViT-B/32 in int8 on 300 and on 100,000 pictures, taking turns
with rclip on 300; that needs the extras ``torch`` and ``dev``.
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

import numpy as np

from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.images.scan import demo_data
from soutu.store.base import NewImage
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats

DROP = Path("/proc/sys/vm/drop_caches")
IMPORTS = ("numpy", "onnxruntime", "tokenizers", "yaml", "click", "soutu", "soutu.cli")
MAIN = "from soutu.cli import main; main()"
COUNTS = (300, 100_000)
STEP = 5000

Figures = dict[str, object]


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


def measure(gallery: Path, runs: int) -> Figures:
    """The embedded model on the demo's pictures."""
    search = ("search", "灰猫", "--gallery", str(gallery))
    seconds(MAIN, *search)
    warm = [seconds(MAIN, *search) for _ in range(runs)]
    results: Figures = {"search, warm": figures(warm)}
    if os.access(DROP, os.W_OK):
        dropped = [seconds(MAIN, *search, before=drop_cache) for _ in range(runs)]
        results["search, dropped page cache"] = figures(dropped)
    bare = statistics.median(seconds("pass") for _ in range(runs))
    results["python alone"] = round(bare, 3)
    results["imports, less python alone"] = {
        name: round(statistics.median(seconds(f"import {name}") for _ in range(runs)) - bare, 3)
        for name in IMPORTS
    }
    return results


def fill_gallery(root: Path, count: int, model: str, vectors: Floats | None = None) -> Path:
    """A gallery of ``count`` pictures that are not there, with ``vectors`` (count, dim), or random
    ones, of ``model``."""
    card = build_encoder(model, "cpu").info
    root.mkdir()
    store = LocalStore.create_or_open(root / ".soutu", card)
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        for start in range(0, count, STEP):
            size = min(STEP, count - start)
            part = rng.standard_normal((size, card.dim)).astype(np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            if vectors is not None:
                part = vectors[start : start + size]
            rows = [
                NewImage(f"{start}/{i}.jpg", 1, 1, (start + i).to_bytes(32, "big"), 1200, 900)
                for i in range(size)
            ]
            writer.add_images(rows, part)
    store.set_meta("root", str(root))
    store.set_meta("model", model)
    store.close()
    return root


def compare_with_rclip(program: Path, home: Path, runs: int) -> Figures:
    """ViT-B/32 int8 beside rclip's float32 at the same (random) weights."""
    from benchmarks import pictures, rclip
    from soutu.factory import sample_inputs
    from soutu.models.export import export
    from soutu.models.open_clip import checkpoint_of, load

    os.environ["SOUTU_MODELS"] = str(home / "models")
    export(load(checkpoint_of("ViT-B-32", "random:0")), "ViT-B-32", sample_inputs(), "int8")
    theirs = rclip.prepare(home / "rclip", load(checkpoint_of("ViT-B-32-256", "random:0")))
    photos = pictures.write(home / "photos", COUNTS[0], (640, 480))
    rclip.run(program, theirs, photos, "-t", "1", "cat")
    galleries = {count: fill_gallery(home / str(count), count, "ViT-B-32") for count in COUNTS}

    def searches(before: Callable[[], object] | None) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {"rclip, 300 pictures": []}
        for _ in range(runs):
            for count, gallery in galleries.items():
                search = ("search", "cat", "--gallery", str(gallery), "-k", "1")
                name = f"Soutu, {count:,} pictures"
                times.setdefault(name, []).append(seconds(MAIN, *search, before=before))
            if before:
                before()
            run = rclip.run(program, theirs, photos, "-n", "-t", "1", "cat")
            times["rclip, 300 pictures"].append(run)
        return times

    searches(None)
    results: Figures = {}
    states: dict[str, Callable[[], object] | None] = {"warm": None}
    if os.access(DROP, os.W_OK):
        states["dropped page cache"] = drop_cache
    for state, before in states.items():
        times = searches(before)
        peer = statistics.median(times["rclip, 300 pictures"])
        results[state] = {
            name: {**figures(runs), "of rclip": round(statistics.median(runs) / peer, 3)}
            for name, runs in times.items()
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rclip", type=Path, help="rclip's program, to be compared with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder)
        shutil.copytree(demo_data() / "images", gallery / "images")
        index = ("index", folder, "--model", "tiny")
        subprocess.run([sys.executable, "-c", MAIN, *index], check=True)
        results = measure(gallery, args.runs)
    if args.rclip:
        with tempfile.TemporaryDirectory() as folder:
            results["ViT-B-32 int8"] = compare_with_rclip(args.rclip, Path(folder), args.runs)
    for name, value in results.items():
        print(f"{name}: {value}")
    print(save("cold_start", {"unit": "s", "runs": args.runs, **results}))


if __name__ == "__main__":
    main()
