"""How sure a figure is, and whether two runs differ. All resampling has fixed seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soutu.errors import MissingExtra

SEED = 0
RESAMPLES = 1000
FLIPS = 10_000
MAX_EXACT = 14
"""Up to so many differing pairs all sign patterns are counted instead of drawn."""

_BATCH_FLIPS = 256
_BATCH_VALUES = 4_000_000  # resampled numbers at once: 32 MB
_SLACK = 1e-12  # sums in another order differ in their last digits


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def intervals(table: NDArray[np.float64], *, median: Sequence[bool] = ()) -> list[Figure]:
    """Estimate each column's mean, or its median where ``median`` says so, from (q, m), q ≥ 1.

    Intervals are the 2.5 and 97.5 percentiles of ``RESAMPLES`` bootstrap samples of the rows.
    Raises MissingExtra without SciPy.
    """
    by_median = np.array([*median] or [False] * table.shape[1], bool)
    bounds = np.empty((3, table.shape[1]))
    for columns, statistic in ((~by_median, np.mean), (by_median, np.median)):
        if columns.any():
            part = table[:, columns]
            low, high = np.percentile(_bootstrap((part,), statistic), [2.5, 97.5], axis=-1)
            bounds[:, columns] = statistic(part, axis=0), low, high
    return [Figure(*map(float, column)) for column in bounds.T]


def ratio(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> Figure | None:
    """Estimate the sum of ``parts`` by that of ``wholes``, (q,) each, as ``intervals``.

    None where there is nothing to divide by; resamples without anything do not count.
    """
    if not wholes.any():
        return None

    def quotient(*sums: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        part, whole = (values.sum(axis=axis) for values in sums)
        share: NDArray[np.float64] = np.full_like(part, np.nan)
        np.divide(part, whole, out=share, where=whole != 0)
        return share

    low, high = np.nanpercentile(_bootstrap((parts, wholes), quotient), [2.5, 97.5])
    return Figure(float(parts.sum() / wholes.sum()), float(low), float(high))


def _bootstrap(
    samples: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any]
) -> NDArray[np.float64]:
    """Return ``statistic`` of ``RESAMPLES`` resamples of the rows, on the last axis."""
    count = len(samples[0])
    bootstrap = import_bootstrap()
    if count == 1:  # there is one resample only
        return np.asarray(statistic(*samples, axis=0))[..., None]
    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_VALUES // samples[0].size),
        vectorized=True,
        paired=len(samples) > 1,
        axis=0,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return np.asarray(result.bootstrap_distribution)


def import_bootstrap() -> Callable[..., Any]:
    """Import SciPy's bootstrap; raise MissingExtra where it is not installed."""
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtra("extra-eval", error=error) from error
    bootstrap: Callable[..., Any] = stats.bootstrap
    return bootstrap


def randomisation_test(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the mean difference of paired values, (q,) each.

    It is how often the difference is as large when each pair is swapped at random: exactly, for up
    to ``MAX_EXACT`` pairs that differ. (SciPy's ``permutation_test`` takes 45 times as long on
    2,000 queries: 20 s.)
    """
    differences = (first - second)[first != second]
    count = len(differences)
    if count == 0:
        return 1.0
    threshold = abs(differences.sum()) * (1 - _SLACK)
    if count <= MAX_EXACT:
        signs = np.array([*product((1.0, -1.0), repeat=count)])
        return float((np.abs(signs @ differences) >= threshold).mean())
    rng = np.random.default_rng(SEED)
    as_large = 1  # the pattern that was seen is one of them
    for start in range(0, FLIPS, _BATCH_FLIPS):
        size = (min(_BATCH_FLIPS, FLIPS - start), count)
        signs = 1.0 - 2.0 * rng.integers(2, size=size, dtype=np.int8)
        as_large += int((np.abs(signs @ differences) >= threshold).sum())
    return as_large / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method; keep their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
