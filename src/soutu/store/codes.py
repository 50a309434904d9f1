"""Building the index of codes: beside the one in use, renamed when it is whole."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.home import make_private_file, sync_folder
from soutu.store.manifest import Manifest, read_manifest, write_manifest
from soutu.store.promise import Queries, tuned
from soutu.types import Floats

RECIPE = "IVF{lists},PQ{parts}x4fs"
"""Inverted lists of product-quantised codes, 4 bits for two numbers each (128 bytes for 512), laid
out for the processor's table look-ups (André et al., Quicker ADC, arXiv 1812.09162). Of what Faiss
has this was the fastest at a recall of 0.99 on texts: benchmarks/results/search.json."""

_TRAIN = 40  # vectors a list is drawn from; Faiss asks for at least 39
_ROUNDS = 10
_BLOCK = 1 << 16


def build(
    folder: Path,
    kind: str,
    vectors: Floats,
    queries: Callable[[], Queries],
    target: float,
) -> Manifest:
    """Build the index of ``vectors`` (n, dim), the slab's rows from slot 0, tune it on
    ``queries`` and put it in the place of the one before. ImportError without Faiss."""
    import faiss

    start = time.perf_counter()
    slots, dim = vectors.shape
    lists = lists_for(slots)
    recipe = RECIPE.format(lists=lists, parts=dim // 2 if dim % 2 == 0 else dim)
    index = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _ROUNDS
    index.train(_sample(vectors, _TRAIN * lists))
    for first in range(0, slots, _BLOCK):
        index.add(np.ascontiguousarray(vectors[first : first + _BLOCK]))
    levels = tuned(index, vectors, queries(), target)
    name, checksum = _save(folder, kind, index)
    manifest = Manifest(
        file=name,
        checksum=checksum,
        slots=slots,
        lists=lists,
        recipe=recipe,
        target=target,
        levels=levels,
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 1),
    )
    write_manifest(folder, kind, manifest)
    return manifest


def lists_for(slots: int) -> int:
    """Twice the square root, as a power of two: 2,048 for a million."""
    return 1 << round(math.log2(2 * slots**0.5))


def tidy(folder: Path, kind: str) -> None:
    """Remove index files that no manifest names: one before this, or one left half-written."""
    try:
        manifest = read_manifest(folder, kind)
    except IndexCorrupt:  # which doctor has yet to look at
        return
    for path in folder.glob(f"{kind}.ann.*"):
        if path.suffix != ".json" and (manifest is None or path.name != manifest.file):
            with suppress(
                OSError
            ):  # Windows keeps what a reader has open; the next run tries again
                path.unlink()


def _sample(vectors: Floats, count: int) -> Floats:
    """``count`` rows, the same ones every time, in the order in which they lie on disk."""
    if count >= len(vectors):
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return vectors[np.sort(rows)]


def _save(folder: Path, kind: str, index: Any) -> tuple[str, int]:  # noqa: ANN401
    """Write the index to a file of its own; returns its name and checksum."""
    import faiss

    name = f"{kind}.ann.{time.time_ns():x}"
    path = folder / name
    make_private_file(path)
    checksum = 0
    with open(path, "r+b") as file:

        def write(data: bytes) -> int:
            nonlocal checksum
            checksum = crc32(data, checksum)
            return file.write(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return name, checksum
