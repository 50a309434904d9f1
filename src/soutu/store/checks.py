"""What a vector must be before it is searched with or stored."""

from __future__ import annotations

import numpy as np

from soutu.types import Floats


def checked_query(vector: Floats, dim: int) -> Floats:
    """``vector`` as float32 (dim,); ValueError for another shape or a value that is not finite."""
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dim,):
        raise ValueError(f"a query vector is ({dim},), not {query.shape}")
    if not np.isfinite(query).all():
        raise ValueError("a query vector must be finite")
    return query


def checked_rows(vectors: Floats, count: int, dim: int) -> Floats:
    """``vectors`` as contiguous float32 (count, dim); ValueError for another shape or a value
    that is not finite: one NaN in a slab would upset every ranking after it."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.shape != (count, dim):
        raise ValueError(f"vectors for {count} items are ({count}, {dim}), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("vectors must be finite")
    return rows
