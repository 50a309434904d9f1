"""After a run: what any text would find in the gallery, so that searches can say how sure they are
and know hubs (``search/calibration.py``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from soutu.models.base import Encoder
from soutu.query.probes import PROBE_TEXTS, probe_set_name, probe_texts, sample_phrases
from soutu.search.calibration import (
    BASELINE_KEY,
    FEWEST,
    MOST,
    ScoreBaseline,
    baseline_from_json,
    baseline_to_json,
    measure_baseline,
)
from soutu.store.base import VectorStore
from soutu.types import Floats

# After a run: keeping searches of large galleries fast, at a recall that can be relied on.


PHRASES = 640


def refresh_ann(
    store: VectorStore,
    encode: Callable[[Sequence[str]], Floats],
    target: float,
    shift: Floats | None = None,
) -> tuple[str, ...]:
    """Bring what makes searches fast up to date where it is due; returns what was built. Its
    recall is tuned on the gallery's captions, or on phrases that people search for, which
    ``encode`` then makes vectors of; with ``shift`` (dim,), for queries from which it
    is taken too. Readers go on meanwhile with what there was, or with
    scanning. Raises IndexCorrupt when another process is writing."""

    def texts() -> Floats:
        return encode(sample_phrases(PHRASES))

    with store.writer() as writer:
        return tuple(writer.refresh_ann(texts, target=target, shift=shift))


_MOVED = 0.05  # of the pictures came or went: then it is measured anew
_AT_ONCE = 64  # texts; a batch is as long as its longest


def refresh_baseline(store: VectorStore, encoder: Encoder, cache: Path) -> ScoreBaseline | None:
    """Measure the gallery where that is due. The texts' vectors are kept in the folder ``cache``
    for further galleries of the model: encoding them takes seconds. None for a gallery of fewer
    than 32 pictures."""
    state = store.state()
    if state.images < FEWEST:
        if store.get_meta(BASELINE_KEY + state.space):
            store.set_meta(BASELINE_KEY + state.space, "")
        return None
    name = probe_set_name(encoder.info.languages)
    if kept := store.get_meta(BASELINE_KEY + state.space):
        known = baseline_from_json(kept)
        if known.texts == name and abs(known.images - state.images) <= _MOVED * state.images:
            return known
    bank = _probe_vectors(encoder, cache / f"{encoder.info.fingerprint[:16]}-{name}.npy")
    measured = measure_baseline(store.sample_images(MOST), bank, images=state.images, texts=name)
    store.set_meta(BASELINE_KEY + state.space, baseline_to_json(measured))
    return measured


def encode_probes(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """The reference ``texts``' vectors, float32 (n, dim)."""
    rows: Floats = np.concatenate(
        [encoder.encode_texts(texts[at : at + _AT_ONCE]) for at in range(0, len(texts), _AT_ONCE)]
    )
    return rows


def _probe_vectors(encoder: Encoder, file: Path) -> Floats:
    with suppress(OSError, ValueError, EOFError):  # not there, or not what was written
        kept: Floats = np.load(file, allow_pickle=False)
        if kept.shape == (PROBE_TEXTS, encoder.info.dim) and np.isfinite(kept).all():
            return kept.astype(np.float32, copy=False)
    bank = encode_probes(encoder, probe_texts(encoder.info.languages))
    with suppress(OSError):  # a full or read-only disk: the next gallery encodes them again
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}.new")
        with open(beside, "wb") as out:
            np.save(out, bank)
        beside.replace(file)
    return bank
