"""Settings chosen on some of a collection's queries and judged on the others.

On the development part: the weights of the lexicon's variants, then α of the hub correction, by
the mean reciprocal rank of text→image searches (the mean over languages and kinds); then the
calibration of confidence, and, where a precision is wished, the threshold for it. Where a choice
changes nothing the default stays. Of the development part no figure is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from soutu.errors import BadInput
from soutu.evaluation.absence import ENOUGH, CalibrationData, calibration_data, refitted, threshold
from soutu.evaluation.dataset import TEXT_TO_IMAGE, Dataset, judgements
from soutu.evaluation.evaluate import ranked
from soutu.evaluation.statistics import Figure, holm, intervals, randomisation_test, ratio
from soutu.evaluation.vectors import DatasetVectors, EncodeOptions, encode_dataset
from soutu.indexing.baseline import encode_probes
from soutu.models.base import Encoder
from soutu.query.expansion import WEIGHTS, Expander, Weights
from soutu.query.probes import probe_texts
from soutu.search.calibration import (
    DEFAULT_HUB_CORRECTION,
    MIN_IMAGES,
    ON,
    UNTUNED,
    HubCorrection,
    TunedParams,
    correct_query,
    correction_alpha,
)

STEPS = (0.25, 0.5, 1.0)
ALPHAS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
_SEED = 0


@dataclass(frozen=True)
class MetricDelta:
    """A ``metric`` of the test part with the defaults and as tuned, the difference, its p by the
    paired randomisation test, and that ``corrected`` by Holm. Of "Brier" less is better: the mean
    squared error of the confidence that something is there, by query."""

    metric: str
    queries: int
    before: Figure
    after: Figure
    more: Figure
    p: float
    corrected: float = 1.0


@dataclass(frozen=True)
class Tuning:
    """``precision`` of the answers above the threshold, and the share of what is there that is
    above it (``recall``), on the test part; None where no threshold was found."""

    tuned: TunedParams
    gains: tuple[MetricDelta, ...]
    precision: Figure | None = None
    recall: Figure | None = None


def split_half(collection: Dataset) -> tuple[Dataset, Dataset]:
    """The queries of each language and kind in two halves, drawn with a fixed seed, asked of the
    same pictures. BadInput where there are too few."""
    rng = np.random.default_rng(_SEED)
    first: set[str] = set()
    for group in judgements(collection):
        if group.direction == TEXT_TO_IMAGE:
            order = rng.permutation(len(group.queries))
            first |= {group.queries[at] for at in order[: len(order) // 2]}
    judged = [text for text in collection.texts if text.right]
    parts = (
        tuple(text for text in judged if (text.id in first) is inside) for inside in (True, False)
    )
    dev, test = (replace(collection, texts=texts) for texts in parts)
    if not dev.texts:
        raise BadInput("tune-few", name=collection.name)
    return dev, test


def tune(
    dev: Dataset,
    test: Dataset,
    encoder: Encoder,
    how: EncodeOptions,
    expander: Callable[[Weights], Expander | None],
    precision: float | None = None,
) -> Tuning:
    """``how`` with the expander that ``expander`` makes of each choice of weights. Without a wished
    ``precision`` no threshold is chosen: a strict one hides most of what is there."""
    if min(len(dev.pictures), len(test.pictures)) < MIN_IMAGES:
        raise BadInput("tune-small", name=dev.name, fewest=MIN_IMAGES)

    def at(part: Dataset, weights: Weights) -> DatasetVectors:
        asked = replace(how, expander=expander(weights), correction=ON)
        return encode_dataset(part, encoder, asked)

    weights, vectors = _weights(dev, at)
    hubs = _hubs(dev, vectors)
    bank = encode_probes(encoder, probe_texts(encoder.info.languages))
    queries, hits = calibration_data(dev, vectors, bank)
    tuned = TunedParams(encoder.info.space, weights, hubs)
    least = None
    if len(queries) >= ENOUGH:
        any_, this = refitted(queries, UNTUNED.any), refitted(hits, UNTUNED.this)
        tuned = replace(tuned, any=any_, this=this)
        if precision is not None:
            least = threshold(queries.probabilities(any_), queries.right, precision)
            tuned = replace(tuned, min_confidence=least or 0.0)
    before, after = at(test, WEIGHTS), at(test, weights)
    judged = _Judged(
        tuned, calibration_data(test, before, bank)[0], calibration_data(test, after, bank)[0]
    )
    gains = tuple(_gains(test, before, after, judged))
    fair = [replace(g, corrected=p) for g, p in zip(gains, holm([g.p for g in gains]), strict=True)]
    return Tuning(tuned, tuple(fair), *(judged.above(least) if least else (None, None)))


def _weights(
    dev: Dataset, at: Callable[[Dataset, Weights], DatasetVectors]
) -> tuple[Weights, DatasetVectors]:
    """Of equals the default; of others the first."""
    best, vectors = WEIGHTS, at(dev, WEIGHTS)
    if at(dev, Weights(*(STEPS[0] for _ in range(3)))).variants == vectors.variants:
        return best, vectors  # nothing that is searched for has such a weight
    most = _mean(reciprocal(dev, vectors, 0.0))
    for choice in product(STEPS, repeat=3):
        tried = at(dev, Weights(*choice))
        if (mean := _mean(reciprocal(dev, tried, 0.0))) > most + 1e-9:
            best, vectors, most = Weights(*choice), tried, mean
    return best, vectors


def _hubs(dev: Dataset, vectors: DatasetVectors) -> HubCorrection:
    """One gallery tells on which side of its own skewness the threshold should lie, no more."""
    reference = vectors.reference
    assert reference is not None
    means = {alpha: _mean(reciprocal(dev, vectors, alpha)) for alpha in ALPHAS}
    alpha = max(ALPHAS, key=lambda one: (round(means[one], 9), -one))
    if alpha:
        return HubCorrection(
            alpha,
            min(DEFAULT_HUB_CORRECTION.skewed, math.floor(reference.skewness * 10) / 10),
            growth=0.0,
        )
    above = math.floor(reference.skewness * 10 + 1) / 10
    return HubCorrection(DEFAULT_HUB_CORRECTION.alpha, max(DEFAULT_HUB_CORRECTION.skewed, above))


def reciprocal(
    collection: Dataset, vectors: DatasetVectors, alpha: float
) -> list[NDArray[np.float64]]:
    """1 / the rank of each query's first right picture, text→image, by language and kind."""
    moved = correct_query(vectors.texts, vectors.reference, alpha)
    found = []
    for group in judgements(collection):
        if group.direction == TEXT_TO_IMAGE and group.queries:
            blocks = ranked(moved[group.rows], vectors.pictures[group.columns], group.right, 1)
            found.append(1 / np.concatenate([block.first for block in blocks]))
    return found


def _mean(groups: list[NDArray[np.float64]]) -> float:
    return float(np.mean([group.mean() for group in groups]))


@dataclass(frozen=True)
class _Judged:
    tuned: TunedParams
    before: CalibrationData
    after: CalibrationData

    def errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pairs = (self.before, UNTUNED.any), (self.after, self.tuned.any)
        one, two = (
            a.by_query((a.probabilities(c) - a.right) ** 2) / a.by_query(np.ones(len(a)))
            for a, c in pairs
        )
        return one, two

    def above(self, least: float) -> tuple[Figure | None, Figure | None]:
        reached = self.after.probabilities(self.tuned.any) >= least
        both, said, there = (
            self.after.by_query(values.astype(float))
            for values in (reached & self.after.right, reached, self.after.right)
        )
        return ratio(both, said), ratio(both, there)


def _gains(
    test: Dataset, before: DatasetVectors, after: DatasetVectors, judged: _Judged
) -> Iterator[MetricDelta]:
    hubs = judged.tuned.hubs
    alphas = (
        correction_alpha(v.reference, "auto", h)
        for v, h in ((before, DEFAULT_HUB_CORRECTION), (after, hubs))
    )
    sides = zip((before, after), alphas, strict=True)
    one, two = (np.concatenate(reciprocal(test, vectors, alpha)) for vectors, alpha in sides)
    yield _gain("hit@1", (one == 1).astype(float), (two == 1).astype(float))
    yield _gain("MRR", one, two)
    if len(judged.after) >= ENOUGH:
        yield _gain("Brier", *judged.errors())


def _gain(metric: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> MetricDelta:
    p = randomisation_test(after, before)
    more = _figure(after - before)
    return MetricDelta(metric, len(before), _figure(before), _figure(after), more, p)


def _figure(values: NDArray[np.float64]) -> Figure:
    (found,) = intervals(values[:, None])
    return found
