"""Measure what any text would find in a gallery, after an index run.

With it searches can say how sure they are, and correct for hubs (``search/calibration.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from soutu.fs import atomic_write
from soutu.models.base import Encoder
from soutu.query.probes import PROBE_TEXTS, probe_set_name, probe_texts
from soutu.search.calibration import (
    BASELINE_KEY,
    MAX_IMAGES,
    MIN_IMAGES,
    ScoreBaseline,
    baseline_from_json,
    baseline_to_json,
    measure_baseline,
)
from soutu.store.base import VectorStore
from soutu.types import Floats

REMEASURE_SHARE = 0.05  # of the pictures came or went since it was measured
TEXT_BATCH = 64  # a batch is as long as its longest text


def refresh_baseline(store: VectorStore, encoder: Encoder, cache: Path) -> ScoreBaseline | None:
    """Measure the gallery where that is due; return None for fewer than 32 pictures.

    The texts' vectors are kept in the folder ``cache`` for further galleries of the model:
    encoding them takes seconds.
    """
    state = store.state()
    key = BASELINE_KEY + state.space
    stored = store.get_meta(key)
    if state.images < MIN_IMAGES:
        if stored:
            store.set_meta(key, "")
        return None
    name = probe_set_name(encoder.info.languages)
    if stored:
        baseline = baseline_from_json(stored)
        change = abs(baseline.images - state.images)
        if baseline.texts == name and change <= REMEASURE_SHARE * state.images:
            return baseline
    bank = None
    file = cache / f"{encoder.info.fingerprint[:16]}-{name}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or not what was written
        cached: Floats = np.load(file, allow_pickle=False)
        if cached.shape == (PROBE_TEXTS, encoder.info.dim) and np.isfinite(cached).all():
            bank = cached.astype(np.float32, copy=False)
    if bank is None:
        bank = encode_probes(encoder, probe_texts(encoder.info.languages))
        with suppress(OSError):  # a full or read-only disk: the next gallery encodes them again
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file, durable=False) as output:
                np.save(output, bank)
    baseline = measure_baseline(
        store.sample_images(MAX_IMAGES), bank, images=state.images, texts=name
    )
    store.set_meta(key, baseline_to_json(baseline))
    return baseline


def encode_probes(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """Encode the probe ``texts``, float32 (n, dim)."""
    starts = range(0, len(texts), TEXT_BATCH)
    rows = [encoder.encode_texts(texts[start : start + TEXT_BATCH]) for start in starts]
    vectors: Floats = np.concatenate(rows)
    return vectors
