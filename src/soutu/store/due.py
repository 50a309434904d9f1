"""When the codes of a space are built anew, and on which queries they are tuned."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable
from functools import partial

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.ann import EXACT_BELOW
from soutu.store.codes import build, tidy
from soutu.store.live import CAPTIONS, IMAGES, KINDS, Kind, load_live, slot_counter
from soutu.store.manifest import read_manifest
from soutu.store.promise import Queries
from soutu.store.rows import counter
from soutu.store.slab import Slab
from soutu.store.spaces import Space
from soutu.types import Floats

TEXTS = 640  # queries that effort is tuned on
FEWEST = 256  # captions that speak for all
PICTURES = 128
CORRECTED = "corrected"  # texts, as they are asked where hubs are held back


def refresh(
    connection: sqlite3.Connection,
    space: Space,
    phrases: Callable[[], Floats],
    target: float,
    shift: Floats | None,
) -> list[str]:
    """Build the codes of ``space`` where they are due; returns the names of those kinds."""
    if importlib.util.find_spec("faiss") is None:
        return []
    built = []
    for kind in KINDS:
        slots = counter(connection, slot_counter(space.id, kind))
        if slots >= EXACT_BELOW and _due(space, kind, slots, target, shift):
            queries = partial(_queries, connection, space, kind, phrases, shift)
            vectors = Slab(space.folder / kind.slab, space.card.dim).rows(slots)
            build(space.folder, kind.name, vectors, queries, target)
            built.append(kind.name)
        tidy(space.folder, kind.name)
    return built


def _due(space: Space, kind: Kind, slots: int, target: float, shift: Floats | None) -> bool:
    """Whether the codes are absent, damaged, promise something else, or leave so many of the
    ``slots`` uncovered that scanning those costs more than all the rest."""
    try:
        manifest = read_manifest(space.folder, kind.name)
    except IndexCorrupt:
        return True
    if manifest is None or manifest.target != target or not manifest.is_whole(space.folder):
        return True
    moved = kind is IMAGES and shift is not None
    if moved and any(CORRECTED not in level.reached for level in manifest.levels):
        return True
    return slots - manifest.slots > max(5_000, slots // 20)


def _queries(
    connection: sqlite3.Connection,
    space: Space,
    kind: Kind,
    phrases: Callable[[], Floats],
    shift: Floats | None,
) -> Queries:
    """What will be asked of ``kind``: pictures by texts and by pictures, captions by pictures."""
    pictures = _some(connection, space, IMAGES, PICTURES if kind is IMAGES else TEXTS)
    if kind is not IMAGES:
        return {"image": pictures}
    texts = _some(connection, space, CAPTIONS, TEXTS)
    texts = texts if len(texts) >= FEWEST else phrases()
    moved = {} if shift is None else {CORRECTED: (texts - shift).astype(np.float32)}
    return {"text": texts, **moved, "image": pictures}


def _some(connection: sqlite3.Connection, space: Space, kind: Kind, count: int) -> Floats:
    """Vectors of up to ``count`` of what is live, picked without preference, always the same."""
    slots = load_live(connection, space.id, kind).slots
    if len(slots) > count:
        slots = np.sort(np.random.default_rng(0).choice(slots, count, replace=False))
    return Slab(space.folder / kind.slab, space.card.dim).take(slots)
