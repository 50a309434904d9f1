"""Fusion: the vectors of a query's variants become one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soutu.errors import BadQuery
from soutu.types import Floats

MEAN = "mean"


def mean_pool(vectors: Floats, weights: Sequence[float]) -> tuple[Floats, float]:
    """Weighted mean of unit vectors, renormalised: q = m/‖m‖ with m = Σ wᵢfᵢ / Σ |wᵢ|.

    ``vectors`` float32 (n, dim), n ≥ 1, unit rows. Returns q, float32 (dim,), and the
    agreement ‖m‖ in 0…1; ‖m‖² is the variants' weighted mean pairwise cosine (each with
    itself included). Ranks as the mean of the scores would. Raises BadQuery if the variants
    cancel out.
    """
    w = np.asarray(weights, np.float64)
    mean = w @ vectors.astype(np.float64) / np.abs(w).sum()
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadQuery("query-cancels")
    pooled: Floats = (mean / length).astype(np.float32)
    return pooled, min(1.0, length)
