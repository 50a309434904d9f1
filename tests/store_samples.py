"""Small galleries for the store's tests: cards, unit vectors, pictures that never existed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from soutu.store.base import NewImage
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats, ModelInfo

DIM = 8


def card(name: str = "tiny", dim: int = DIM) -> ModelInfo:
    return ModelInfo(
        name=name,
        dim=dim,
        image_size=64,
        context_length=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        resize_mode="crop",
        languages=("zh", "en"),
        license="Apache-2.0",
        space=f"{name}@1",
        fingerprint="0" * 64,
    )


def unit(*shape: int, seed: int = 0) -> Floats:
    """Random unit rows, float32."""
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def picture(path: str, content: str | None = None) -> NewImage:
    """A picture whose content is named by ``content``, or by its path."""
    digest = hashlib.sha256((content or path).encode("utf-8", "surrogateescape")).digest()
    return NewImage(path, 1000, 1_700_000_000_123_456_789, digest, 640, 480, "2024-05-01T12:00:00")


def pictures(count: int, start: int = 0) -> list[NewImage]:
    return [picture(f"图/{i:04d}.jpg") for i in range(start, start + count)]


def make(home: Path, count: int = 3, name: str = "tiny", dim: int = DIM) -> None:
    """An index of so many pictures, in the space of that model."""
    with LocalStore.create_or_open(home, card(name, dim)) as store, store.writer() as writer:
        writer.add_images(pictures(count), unit(count, dim))
