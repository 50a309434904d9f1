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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.recipes import rich, training_styles
from training.scenes import Scene, render, sample

SHARD = 4096
# Shares of scenes that are kept where nothing is painted (a thing in its own colour is easy) and
# where a thing is not an everyday one (few will ask for it), or nothing is an animal.
KEEP_UNPAINTED, KEEP_RARE, KEEP_LIFELESS = 0.5, 0.3, 0.6
Pictures = NDArray[np.uint8]


def scene(split: str, index: int) -> Scene:
    """Scene ``index`` of ``split`` ("train", "val" …); splits share no seed. A split whose name
    begins with "rich" has rich scenes in the training styles that are installed."""
    rng = random.Random(f"{split}:{index}")
    return rich(rng, training_styles()) if split.startswith("rich") else sample(rng)


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
        beside = path.with_suffix(f".{os.getpid()}.part.npy")
        np.save(beside, rendered)
        beside.replace(path)
    return path


def kept_share(one: Scene) -> float:
    """How often a scene that was drawn is trained on."""
    painted = any(group.colour for group in one.groups)
    everyday = all(group.thing.everyday for group in one.groups)
    alive = any(group.thing.is_animal for group in one.groups)
    share = 1.0 if painted else KEEP_UNPAINTED
    return share * (1.0 if everyday else KEEP_RARE) * (1.0 if alive else KEEP_LIFELESS)


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

    def batch(self, size: int, rng: random.Random) -> tuple[Pictures, list[Scene]]:
        """``size`` pictures (n, s, s, 3) uint8 and their scenes."""
        if not self._shards:
            raise FileNotFoundError(f"no shards in {self.folder}: run python -m training.data")
        total = len(self._shards) * SHARD
        indices: list[int] = []
        scenes: list[Scene] = []
        while len(indices) < size:
            index = rng.randrange(total)
            one = scene(self.split, index)
            if rng.random() < kept_share(one):
                indices.append(index)
                scenes.append(one)
        return np.stack([self._shards[i // SHARD][i % SHARD] for i in indices]), scenes


def main() -> None:
    parser = argparse.ArgumentParser(description="Render training shards.")
    parser.add_argument("--folder", type=Path, default=Path("training/runs/shards"))
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=64)
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
