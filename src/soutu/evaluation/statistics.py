"""How sure a figure is, and whether two runs differ. Everything is drawn with fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 1000
FLIPS = 10_000
EXACT = 14
"""Up to so many differing pairs all sign patterns are counted instead of drawn."""

_TOGETHER = 256  # patterns at once
_SLACK = 1e-12  # sums in another order differ in their last digits


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def intervals(table: NDArray[np.float64], *, median: Sequence[bool] = ()) -> list[Figure]:
    """Each column's mean, or its median where ``median`` says so, with the 2.5 and 97.5
    percentiles of ``RESAMPLES`` bootstrap samples of the rows; (q, m), q ≥ 1."""
    count, columns = table.shape
    by_median = np.array([*median] or [False] * columns, bool)
    rng = np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, columns))
    for sample in drawn:
        rows = rng.integers(count, size=count)
        # How often each row was drawn: a product with that is the sum of the sample.
        sample[:] = np.bincount(rows, minlength=count) @ table / count
        if by_median.any():
            sample[by_median] = np.median(table[rows][:, by_median], axis=0)
    values = table.mean(axis=0)
    values[by_median] = np.median(table[:, by_median], axis=0)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return [Figure(*map(float, one)) for one in zip(values, low, high, strict=True)]


def ratio(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> Figure | None:
    """The sum of ``parts`` by that of ``wholes``, (q,) each, with the percentiles of bootstrap
    samples of the rows; None where there is nothing to divide by."""
    if not wholes.any():
        return None
    rng, drawn = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(wholes), size=len(wholes))
        if whole := wholes[rows].sum():
            drawn.append(parts[rows].sum() / whole)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(float(parts.sum() / wholes.sum()), float(low), float(high))


def randomisation_test(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The two-sided p-value of the mean difference of paired values, (q,) each: how often it is
    as large when each pair is swapped at random. Exact up to ``EXACT`` pairs that differ."""
    differences = (one - other)[one != other]
    count = len(differences)
    if count == 0:
        return 1.0
    least = abs(differences.sum()) * (1 - _SLACK)
    if count <= EXACT:
        signs = np.array([*product((1.0, -1.0), repeat=count)])
        return float((np.abs(signs @ differences) >= least).mean())
    rng = np.random.default_rng(SEED)
    as_large = 1  # the pattern that was seen is one of them
    for start in range(0, FLIPS, _TOGETHER):
        size = (min(_TOGETHER, FLIPS - start), count)
        signs = 1.0 - 2.0 * rng.integers(2, size=size, dtype=np.int8)
        as_large += int((np.abs(signs @ differences) >= least).sum())
    return as_large / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the same order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected
