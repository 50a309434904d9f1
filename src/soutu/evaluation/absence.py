"""Fit the confidence that what is searched for is there.

A dataset's queries are asked of parts of its pictures, some of which hold an answer, and the
calibration of confidence is fitted on what they find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from soutu.evaluation.dataset import TEXT_TO_IMAGE, Dataset, judgements
from soutu.evaluation.vectors import DatasetVectors
from soutu.search.calibration import MIN_IMAGES, Calibration, Thresholds, measure_baseline
from soutu.types import Floats, Ids

PARTS = (2, 4, 8, 32)  # of the pictures, so small a share at a time
ROUNDS = 3  # parts of each size
HITS = 10
MIN_SIZE_RATIO = 8  # of the largest and the smallest part, to fit how confidence grows with size
MIN_ANSWERS = 60  # to fit anything on
MIN_ABOVE = 10  # answers above a threshold
# What thresholds leave of what is there and of what is not: a fifth less than the 3 % and 10 % that
# are promised, as other queries will be searched for than those they are fitted to.
FALSE_ABSENT, FALSE_PRESENT = 0.024, 0.08

_Row: TypeAlias = "tuple[float, int, bool, int]"


@dataclass(frozen=True)
class CalibrationData:
    """Answers to queries, (n,) each.

    ``standing`` is an answer's z-score (``ScoreBaseline.z_score``), ``images`` among how many it
    was, ``right`` whether it was, ``query`` which one asked.
    """

    standing: NDArray[np.float64]
    images: NDArray[np.float64]
    right: NDArray[np.bool_]
    query: NDArray[np.int64]

    def __len__(self) -> int:
        """How many answers there are."""
        return len(self.right)

    def probabilities(self, calibration: Calibration) -> NDArray[np.float64]:
        """Return the confidence of each answer."""
        pairs = zip(self.standing, self.images, strict=True)
        return np.array([calibration.probability(s, int(n)) for s, n in pairs])

    def by_query(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum ``values`` (n,) for each query: answers to the same query are not independent."""
        _, indices = np.unique(self.query, return_inverse=True)
        return np.bincount(indices, weights=values).astype(np.float64)


def calibration_data(
    dataset: Dataset, vectors: DatasetVectors, bank: Floats
) -> tuple[CalibrationData, CalibrationData]:
    """Ask the queries of parts of the pictures.

    Returns data of queries (right: something that is asked for was there), and of the best ``HITS``
    pictures of each (right: it is one of them). A third of the queries have an answer, as in
    ``benchmarks/calibration.py``; ``bank`` are the probe texts' vectors.
    """
    rng = np.random.default_rng(0)
    query_rows = [
        (row, np.array([*grades]))
        for group in judgements(dataset)
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
            for row, columns in _draw_queries(query_rows, inside, count, rng):
                scores = pictures @ vectors.texts[row]
                best = np.argsort(-scores, kind="stable")[:HITS].tolist()
                right = np.isin(inside, columns)
                standings = [standing(float(scores[i]), size) for i in best]
                queries.append((standings[0], size, bool(right.any()), row))
                pairs = zip(standings, best, strict=True)
                hits += [(value, size, bool(right[i]), row) for value, i in pairs]
    return _to_data(queries), _to_data(hits)


def _draw_queries(
    queries: Sequence[tuple[int, Ids]], inside: Ids, count: int, rng: np.random.Generator
) -> Iterator[tuple[int, Ids]]:
    """Draw from those that the pictures ``inside`` answer and the others, one to two."""
    is_inside = np.zeros(count, bool)
    is_inside[inside] = True
    answered = np.array([bool(is_inside[columns].any()) for _, columns in queries], bool)
    present, absent = np.flatnonzero(answered), np.flatnonzero(~answered)
    limit = min(len(present), len(absent) // 2)
    chosen = [*rng.permutation(present)[:limit], *rng.permutation(absent)[: 2 * limit]]
    return (queries[i] for i in chosen)


def _to_data(rows: Sequence[_Row]) -> CalibrationData:
    table = np.array(rows, np.float64).reshape(-1, 4)
    right, query = table[:, 2].astype(bool), table[:, 3].astype(np.int64)
    return CalibrationData(table[:, 0], table[:, 1], right, query)


def fit_logistic(
    standing: NDArray[np.float64],
    images: NDArray[np.float64],
    right: NDArray[np.bool_],
    growth: float | None = None,
    sentences: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit a logistic regression by Newton's method, with a slight pull to zero.

    ``growth``, where it is given, is kept. What a sentence adds is fitted where ``sentences`` says
    how much of one each query is.
    """
    base = (growth or 0.0) * np.log10(images)
    columns = [standing, np.ones(len(right))]
    if sentences is not None:
        columns.insert(1, sentences)
    if growth is None:
        columns.insert(1, np.log10(images))
    rows = np.column_stack(columns)
    pull = np.diag([1e-3] * (len(columns) - 1) + [0.0])
    weights = np.zeros(len(columns))
    for _ in range(50):
        p = 1 / (1 + np.exp(-rows @ weights - base))
        gradient = rows.T @ (p - right) / len(right) + pull @ weights
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows / len(right) + pull
        weights -= np.linalg.solve(hessian, gradient)
    scale, *others, offset = (round(float(w), 3) for w in weights)
    growth = others.pop(0) if growth is None else growth
    return Calibration(scale, growth, offset, *others)


def refit(data: CalibrationData, default: Calibration) -> Calibration:
    """Fit a calibration to ``data``.

    How it grows with the pictures is fitted only where sizes are far enough apart to tell.
    """
    fits_growth = data.images.max() >= MIN_SIZE_RATIO * data.images.min()
    growth = None if fits_growth else default.growth
    return fit_logistic(data.standing, data.images, data.right, growth)


def fit_thresholds(
    p: NDArray[np.float64], right: NDArray[np.bool_], kind: NDArray[np.generic]
) -> Thresholds:
    """Choose the thresholds between which a search is not sure.

    In every ``kind`` of query by itself (n,), ``FALSE_ABSENT`` of what is there has a confidence
    ``p`` (n,) below the lower one at most, and ``FALSE_PRESENT`` of what is not there (not
    ``right``) one above the upper: the easy kinds do not pay for the hard ones.
    """
    kinds = [kind == name for name in np.unique(kind)]
    answered, unanswered = [each & right for each in kinds], [each & ~right for each in kinds]
    lowest = [float(np.quantile(p[each], FALSE_ABSENT)) for each in answered if each.any()]
    highest = [float(np.quantile(p[each], 1 - FALSE_PRESENT)) for each in unanswered if each.any()]
    absent, present = min(lowest, default=0.0), max(highest, default=1.0)
    if absent > present:  # so clear that one threshold does
        absent = present = (absent + present) / 2
    return Thresholds(round(absent, 3), round(present, 3))


def find_threshold(
    p: NDArray[np.float64], right: NDArray[np.bool_], precision: float
) -> float | None:
    """Find the least of 0.01, 0.02 … above which the share that is right is ``precision``.

    None where there is none that at least ``MIN_ABOVE`` answers reach.
    """
    for hundredth in range(1, 100):
        above = p >= hundredth / 100
        if above.sum() >= MIN_ABOVE and right[above].mean() >= precision:
            return hundredth / 100
    return None
