"""Is it there at all? A collection's queries asked of parts of its pictures, some of which hold
what is asked for; and the calibration of confidence fitted on the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from soutu.evaluation.dataset import TEXT_TO_IMAGE, Dataset, judgements
from soutu.evaluation.vectors import DatasetVectors
from soutu.search.calibration import MIN_IMAGES, Calibration, measure_baseline
from soutu.types import Floats, Ids

PARTS = (2, 4, 8, 32)  # of the pictures, so small a share at a time
ROUNDS = 3  # parts of each size
HITS = 10
APART = 8
ENOUGH = 60  # answers, to fit anything on

_Row: TypeAlias = "tuple[float, int, bool, int]"


@dataclass(frozen=True)
class CalibrationData:
    """Each one's standing (``Reference.standing``), among how many ``images`` it was, whether it
    was ``right``, and which ``query`` asked; (n,) each."""

    standing: NDArray[np.float64]
    images: NDArray[np.float64]
    right: NDArray[np.bool_]
    query: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)

    def probabilities(self, calibration: Calibration) -> NDArray[np.float64]:
        pairs = zip(self.standing, self.images, strict=True)
        return np.array([calibration.probability(s, int(n)) for s, n in pairs])

    def by_query(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of ``values`` (n,) for each query: answers to the same query are not
        independent."""
        _, places = np.unique(self.query, return_inverse=True)
        return np.bincount(places, weights=values).astype(np.float64)


def calibration_data(
    collection: Dataset, vectors: DatasetVectors, bank: Floats
) -> tuple[CalibrationData, CalibrationData]:
    """Of queries (right: something that is asked for was there), and of the best ``HITS`` pictures
    of each (right: it is one of them). A third of the queries are asked rightly, as in
    ``benchmarks/calibration.py``; ``bank`` are the reference texts' vectors."""
    rng = np.random.default_rng(0)
    asked = [
        (row, np.array([*grades]))
        for group in judgements(collection)
        if group.direction == TEXT_TO_IMAGE
        for row, grades in zip(group.rows.tolist(), group.right, strict=True)
    ]
    count = len(vectors.pictures)
    queries: list[_Row] = []
    hits: list[_Row] = []
    for size in [count // part for part in PARTS if count // part >= MIN_IMAGES]:
        for _ in range(ROUNDS):
            inside = rng.permutation(count)[:size]
            pictures = vectors.pictures[inside]
            standing = measure_baseline(pictures, bank, images=size, texts="").z_score
            for row, columns in _drawn(asked, inside, count, rng):
                scores = pictures @ vectors.texts[row]
                best = np.argsort(-scores, kind="stable")[:HITS].tolist()
                right = np.isin(inside, columns)
                stands = [standing(float(scores[at]), size) for at in best]
                queries.append((stands[0], size, bool(right.any()), row))
                told = zip(stands, best, strict=True)
                hits += [(one, size, bool(right[at]), row) for one, at in told]
    return _together(queries), _together(hits)


def _drawn(
    asked: Sequence[tuple[int, Ids]], inside: Ids, count: int, rng: np.random.Generator
) -> Iterator[tuple[int, Ids]]:
    """Of those that the pictures ``inside`` answer and the others, one to two."""
    there = np.zeros(count, bool)
    there[inside] = True
    answered = np.array([bool(there[columns].any()) for _, columns in asked], bool)
    present, absent = np.flatnonzero(answered), np.flatnonzero(~answered)
    most = min(len(present), len(absent) // 2)
    chosen = [*rng.permutation(present)[:most], *rng.permutation(absent)[: 2 * most]]
    return (asked[at] for at in chosen)


def _together(rows: Sequence[_Row]) -> CalibrationData:
    table = np.array(rows, np.float64).reshape(-1, 4)
    right, query = table[:, 2].astype(bool), table[:, 3].astype(np.int64)
    return CalibrationData(table[:, 0], table[:, 1], right, query)


def fit(
    standing: NDArray[np.float64],
    images: NDArray[np.float64],
    right: NDArray[np.bool_],
    growth: float | None = None,
) -> Calibration:
    """Logistic regression by Newton's method, with a slight pull to zero. ``growth``, where it is
    given, is kept."""
    base = (growth or 0.0) * np.log10(images)
    free = [standing, np.ones(len(right))]
    if growth is None:
        free.insert(1, np.log10(images))
    rows = np.column_stack(free)
    pull = np.diag([1e-3] * (len(free) - 1) + [0.0])
    weights = np.zeros(len(free))
    for _ in range(50):
        p = 1 / (1 + np.exp(-rows @ weights - base))
        slope = rows.T @ (p - right) / len(right) + pull @ weights
        curve = (rows * (p * (1 - p))[:, None]).T @ rows / len(right) + pull
        weights -= np.linalg.solve(curve, slope)
    scale, *grown, offset = (round(float(w), 3) for w in weights)
    return Calibration(scale, grown[0] if growth is None else growth, offset)


def refitted(found: CalibrationData, default: Calibration) -> Calibration:
    """``default`` anew; how it grows with the pictures only where sizes are far enough apart to
    tell."""
    apart = found.images.max() >= APART * found.images.min()
    growth = None if apart else default.growth
    return fit(found.standing, found.images, found.right, growth)


def threshold(p: NDArray[np.float64], right: NDArray[np.bool_], precision: float) -> float | None:
    """The least of 0.01, 0.02 … from which on the share that is right is at least ``precision``;
    None where there is none that at least ten answers reach."""
    for hundredth in range(1, 100):
        reached = p >= hundredth / 100
        if reached.sum() >= 10 and right[reached].mean() >= precision:
            return hundredth / 100
    return None
