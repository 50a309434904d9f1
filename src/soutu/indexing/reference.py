"""After a run: what any text would find in the gallery, so that searches can say how sure they are
and know hubs (``query/standing.py``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from soutu.encoders.base import Encoder
from soutu.query.reference import TEXTS, reference_name, reference_texts
from soutu.query.standing import FEWEST, MOST, REFERENCE, Reference, from_text, measure, to_text
from soutu.store.base import VectorStore
from soutu.types import Floats

_MOVED = 0.05  # of the pictures came or went: then it is measured anew
_AT_ONCE = 64  # texts; a batch is as long as its longest


def refresh_reference(store: VectorStore, encoder: Encoder, cache: Path) -> Reference | None:
    """Measure the gallery where that is due. The texts' vectors are kept in the folder ``cache``
    for further galleries of the model: encoding them takes seconds. None for a gallery of fewer
    than 32 pictures."""
    state = store.state()
    if state.images < FEWEST:
        if store.recall(REFERENCE + state.space):
            store.remember(REFERENCE + state.space, "")
        return None
    name = reference_name(encoder.card.languages)
    if kept := store.recall(REFERENCE + state.space):
        known = from_text(kept)
        if known.texts == name and abs(known.images - state.images) <= _MOVED * state.images:
            return known
    bank = _bank(encoder, cache / f"{encoder.card.fingerprint[:16]}-{name}.npy")
    measured = measure(store.sample_images(MOST), bank, images=state.images, texts=name)
    store.remember(REFERENCE + state.space, to_text(measured))
    return measured


def encoded(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """The reference ``texts``' vectors, float32 (n, dim)."""
    rows: Floats = np.concatenate(
        [encoder.encode_texts(texts[at : at + _AT_ONCE]) for at in range(0, len(texts), _AT_ONCE)]
    )
    return rows


def _bank(encoder: Encoder, file: Path) -> Floats:
    with suppress(OSError, ValueError, EOFError):  # not there, or not what was written
        kept: Floats = np.load(file, allow_pickle=False)
        if kept.shape == (TEXTS, encoder.card.dim) and np.isfinite(kept).all():
            return kept.astype(np.float32, copy=False)
    bank = encoded(encoder, reference_texts(encoder.card.languages))
    with suppress(OSError):  # a full or read-only disk: the next gallery encodes them again
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}.new")
        with open(beside, "wb") as out:
            np.save(out, bank)
        beside.replace(file)
    return bank
