"""Choose settings on some of a dataset's queries and judge them on the others.

On the development part: the weights of the lexicon's variants, then α of the hub correction, by
the mean reciprocal rank of text→image searches (the mean over languages and kinds); then the
calibration of confidence, and, where a precision is given, the threshold for it. Where a choice
changes nothing the default stays. Of the development part no figure is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from soutu.errors import BadInput
from soutu.evaluation.absence import (
    MIN_ANSWERS,
    CalibrationData,
    calibration_data,
    find_threshold,
    fit_thresholds,
    refit,
)
from soutu.evaluation.dataset import TEXT_TO_IMAGE, Dataset, judgements
from soutu.evaluation.evaluate import rank_blocks
from soutu.evaluation.statistics import (
    Figure,
    holm,
    import_bootstrap,
    intervals,
    randomisation_test,
    ratio,
)
from soutu.evaluation.vectors import DatasetVectors, EncodeOptions, encode_dataset
from soutu.indexing.baseline import encode_probes, probe_texts
from soutu.models.base import Encoder
from soutu.query.expansion import WEIGHTS, Expander, Weights
from soutu.search.calibration import (
    DEFAULT_HUB_CORRECTION,
    MIN_IMAGES,
    ON,
    HubCorrection,
    TunedParams,
    correct_query,
    correction_alpha,
    default_params,
)

STEPS = (0.25, 0.5, 1.0)
ALPHAS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
SEED = 0


@dataclass(frozen=True)
class MetricDelta:
    """A ``metric`` of the test part with the defaults and as tuned, and the difference.

    ``p`` is that of the paired randomisation test, ``corrected`` by Holm. Of "Brier" less is
    better: the mean squared error of the confidence that something is there, by query.
    """

    metric: str
    queries: int
    before: Figure
    after: Figure
    more: Figure
    p: float
    corrected: float = 1.0


@dataclass(frozen=True)
class Tuning:
    """What was chosen, and what it is worth on the test part.

    ``precision`` of the answers above the threshold, and the share of what is there that is above
    it (``recall``); None where no threshold was found.
    """

    tuned: TunedParams
    gains: tuple[MetricDelta, ...]
    precision: Figure | None = None
    recall: Figure | None = None


def split_half(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split the queries of each language and kind in halves, with a fixed seed.

    Both are asked of the same pictures. Raises BadInput where there are too few.
    """
    rng = np.random.default_rng(SEED)
    first: set[str] = set()
    for group in judgements(dataset):
        if group.direction == TEXT_TO_IMAGE:
            order = rng.permutation(len(group.queries))
            first |= {group.queries[i] for i in order[: len(order) // 2]}
    judged = [text for text in dataset.texts if text.right]
    dev = replace(dataset, texts=tuple(text for text in judged if text.id in first))
    test = replace(dataset, texts=tuple(text for text in judged if text.id not in first))
    if not dev.texts:
        raise BadInput("tune-few", name=dataset.name)
    return dev, test


def tune(
    dev: Dataset,
    test: Dataset,
    encoder: Encoder,
    options: EncodeOptions,
    expander: Callable[[Weights], Expander | None],
    precision: float | None = None,
) -> Tuning:
    """Choose on ``dev``, judge on ``test``.

    ``options`` are used with the expander that ``expander`` builds of each choice of weights.
    Without a ``precision`` no threshold is chosen: a strict one hides most of what is there.
    """
    import_bootstrap()
    if min(len(dev.pictures), len(test.pictures)) < MIN_IMAGES:
        raise BadInput("tune-small", name=dev.name, fewest=MIN_IMAGES)

    def encode(part: Dataset, weights: Weights) -> DatasetVectors:
        return encode_dataset(
            part, encoder, replace(options, expander=expander(weights), correction=ON)
        )

    weights, vectors = _choose_weights(dev, encode)
    hubs = _choose_hubs(dev, vectors)
    bank = encode_probes(encoder, probe_texts(encoder.info.languages))
    queries, hits = calibration_data(dev, vectors, bank)
    default = default_params(getattr(encoder, "confidence", {}))
    tuned = replace(default, space=encoder.info.space, weights=weights, hubs=hubs)
    threshold = None
    if len(queries) >= MIN_ANSWERS:
        tuned = replace(tuned, any=refit(queries, default.any), this=refit(hits, default.this))
        p = queries.probabilities(tuned.any)
        thresholds = fit_thresholds(p, queries.right, queries.images)
        tuned = replace(tuned, thresholds=thresholds)
        if precision is not None:
            threshold = find_threshold(p, queries.right, precision)
            tuned = replace(tuned, min_confidence=threshold or 0.0)

    before, after = encode(test, WEIGHTS), encode(test, weights)
    alpha_before = correction_alpha(before.reference, "auto", DEFAULT_HUB_CORRECTION)
    alpha_after = correction_alpha(after.reference, "auto", hubs)
    first = np.concatenate(reciprocal_ranks(test, before, alpha_before))
    second = np.concatenate(reciprocal_ranks(test, after, alpha_after))
    gains = [
        _delta("hit@1", (first == 1).astype(float), (second == 1).astype(float)),
        _delta("MRR", first, second),
    ]
    data_before, _ = calibration_data(test, before, bank)
    data_after, _ = calibration_data(test, after, bank)
    if len(data_after) >= MIN_ANSWERS:
        errors = [
            data.by_query((data.probabilities(calibration) - data.right) ** 2)
            / data.by_query(np.ones(len(data)))
            for data, calibration in ((data_before, default.any), (data_after, tuned.any))
        ]
        gains.append(_delta("Brier", *errors))
    corrected = holm([gain.p for gain in gains])
    gains = [replace(gain, corrected=p) for gain, p in zip(gains, corrected, strict=True)]
    tuning = Tuning(tuned, tuple(gains))
    return _judge_threshold(tuning, data_after, threshold) if threshold else tuning


def _judge_threshold(tuning: Tuning, data: CalibrationData, threshold: float) -> Tuning:
    above = data.probabilities(tuning.tuned.any) >= threshold
    both, answered, present = (
        data.by_query(values.astype(float)) for values in (above & data.right, above, data.right)
    )
    return replace(tuning, precision=ratio(both, answered), recall=ratio(both, present))


def _choose_weights(
    dev: Dataset, encode: Callable[[Dataset, Weights], DatasetVectors]
) -> tuple[Weights, DatasetVectors]:
    """Choose the best weights; of equals the default, of others the first."""
    best, vectors = WEIGHTS, encode(dev, WEIGHTS)
    if encode(dev, Weights(*(STEPS[0] for _ in range(3)))).variants == vectors.variants:
        return best, vectors  # nothing that is searched for has such a weight
    highest = _mean(reciprocal_ranks(dev, vectors, 0.0))
    for choice in product(STEPS, repeat=3):
        tried = encode(dev, Weights(*choice))
        if (mean := _mean(reciprocal_ranks(dev, tried, 0.0))) > highest + 1e-9:
            best, vectors, highest = Weights(*choice), tried, mean
    return best, vectors


def _choose_hubs(dev: Dataset, vectors: DatasetVectors) -> HubCorrection:
    """Choose α, and on which side of this gallery's skewness the threshold lies, no more."""
    reference = vectors.reference
    assert reference is not None
    means = {alpha: _mean(reciprocal_ranks(dev, vectors, alpha)) for alpha in ALPHAS}
    alpha = max(ALPHAS, key=lambda alpha: (round(means[alpha], 9), -alpha))
    if alpha:
        below = math.floor(reference.skewness * 10) / 10
        return HubCorrection(alpha, min(DEFAULT_HUB_CORRECTION.skewed, below), growth=0.0)
    above = math.floor(reference.skewness * 10 + 1) / 10
    return HubCorrection(DEFAULT_HUB_CORRECTION.alpha, max(DEFAULT_HUB_CORRECTION.skewed, above))


def reciprocal_ranks(
    dataset: Dataset, vectors: DatasetVectors, alpha: float
) -> list[NDArray[np.float64]]:
    """Return 1 / the rank of each query's first right picture, text→image, by group."""
    corrected = correct_query(vectors.texts, vectors.reference, alpha)
    groups = []
    for group in judgements(dataset):
        if group.direction == TEXT_TO_IMAGE and group.queries:
            targets = vectors.pictures[group.columns]
            blocks = rank_blocks(corrected[group.rows], targets, group.right, 1)
            groups.append(1 / np.concatenate([block.first for block in blocks]))
    return groups


def _mean(groups: list[NDArray[np.float64]]) -> float:
    return float(np.mean([group.mean() for group in groups]))


def _delta(metric: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> MetricDelta:
    table = np.column_stack([before, after, after - before])
    first, second, more = intervals(table)
    p = randomisation_test(after, before)
    return MetricDelta(metric, len(before), first, second, more, p)
