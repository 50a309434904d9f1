"""Endless scenes as arrays: scene ``i`` of a split is always the same scene.

Rendered pictures are kept in shards on disk, since a picture costs more to draw than to
train on once; captions are worded anew every time a scene is seen.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soutu.fs import atomic_write
from training.recipes import FOUR, four, rich, training_styles
from training.scenes import Scene, render, sample

SHARD = 4096
FOUR_SHARE = 0.25  # how often a batch takes a scene together with its near-misses
PASSED_OVER = 0.5  # how often a scene of everyday things alone is, once training knows them
TRAIN = "rich"
Pictures = NDArray[np.uint8]


def scene(split: str, index: int) -> Scene:
    """Scene ``index`` of ``split`` ("rich", "rich-val", "test" …); splits share no seed. A split
    whose name begins with "rich" has rich scenes in the training styles that are installed; "rich"
    itself is what is trained on: scenes in fours, each followed by its near-misses."""
    if split == TRAIN:
        return _four(index // FOUR)[index % FOUR]
    rng = random.Random(f"{split}:{index}")
    return rich(rng, training_styles()) if split.startswith("rich") else sample(rng)


@cache
def _four(number: int) -> tuple[Scene, ...]:
    return four(random.Random(f"{TRAIN}:{number}"), training_styles())


def pictures(split: str, indices: Sequence[int], size: int) -> Pictures:
    """uint8 (n, size, size, 3)."""
    return np.stack([np.asarray(render(scene(split, i), size)) for i in indices])


def shard_path(folder: Path, split: str, size: int, number: int) -> Path:
    return folder / f"{split}-{size}px-{number:04d}.npy"


def ensure_shard(folder: Path, split: str, size: int, number: int) -> Path:
    """Render shard ``number`` unless it is there; written beside and renamed."""
    path = shard_path(folder, split, size, number)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        start = number * SHARD
        rendered = pictures(split, range(start, start + SHARD), size)
        with atomic_write(path) as file:
            np.save(file, rendered)
    return path


class ShardedScenes:
    """Random batches from the shards that are there; picks up new ones as they appear."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self.folder, self.split, self.size = folder, split, size
        self._shards: dict[int, Pictures] = {}
        self.refresh()

    def refresh(self) -> int:
        number = len(self._shards)
        while (path := shard_path(self.folder, self.split, self.size, number)).exists():
            self._shards[number] = np.load(path, mmap_mode="r")
            number += 1
        return number

    def batch(
        self, size: int, rng: random.Random, *, balanced: bool = False
    ) -> tuple[Pictures, list[Scene]]:
        """``size`` pictures (n, s, s, 3) uint8 and their scenes; now and then a whole four.
        ``balanced``: with things that are not everyday ones in every other scene."""
        if not self._shards:
            raise FileNotFoundError(f"no shards in {self.folder}: run python -m training.data")
        fours = len(self._shards) * SHARD // FOUR
        indices: list[int] = []
        while len(indices) < size:
            first = rng.randrange(fours) * FOUR
            everyday = all(g.thing.everyday for g in scene(self.split, first).groups)
            if balanced and everyday and rng.random() < PASSED_OVER:
                continue
            all_four = rng.random() < FOUR_SHARE
            indices += range(first, first + FOUR) if all_four else [first + rng.randrange(FOUR)]
        del indices[size:]
        images = np.stack([self._shards[i // SHARD][i % SHARD] for i in indices])
        return images, [scene(self.split, i) for i in indices]


def main() -> None:
    parser = argparse.ArgumentParser(description="Render training shards.")
    parser.add_argument("--folder", type=Path, default=Path("training/runs/shards"))
    parser.add_argument("--split", default=TRAIN)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--shards", type=int, default=48)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = [
            pool.submit(ensure_shard, args.folder, args.split, args.size, n)
            for n in range(args.shards)
        ]
        for job in jobs:
            print(job.result(), flush=True)


if __name__ == "__main__":
    main()
