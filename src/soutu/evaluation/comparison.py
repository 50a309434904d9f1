"""Whether one evaluation is better than others, query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.judged import TEXT_TO_IMAGE
from soutu.evaluation.judging import Outcome
from soutu.evaluation.metrics import LIBRARY, METRICS
from soutu.evaluation.statistics import Figure, holm, intervals, randomisation_test


@dataclass(frozen=True)
class Difference:
    """How much more one evaluation has than ``other`` by ``metric``, with its 95 % interval
    (paired bootstrap); ``p`` of the paired randomisation test, ``corrected`` by Holm for all that
    were compared together."""

    other: str
    direction: str
    lang: str
    kind: str
    metric: str
    more: Figure
    p: float
    corrected: float


def check_metrics(names: Sequence[str]) -> None:
    """BadInput for a name that is none, or the rank's, whose mean says nothing."""
    for name in names:
        if name not in LIBRARY:
            raise BadInput("eval-metric", name=name, known=", ".join(LIBRARY))


def compare(
    outcomes: Sequence[Outcome],
    others: Mapping[str, Sequence[Outcome]],
    metrics: Sequence[str] = ("hit@1",),
) -> list[Difference]:
    """``outcomes`` against each of the ``others`` (by name), by each of ``metrics``, which have
    means. BadInput where other queries were asked."""
    found = []
    for name, there in others.items():
        known = {_group(outcome): outcome for outcome in there}
        for outcome in [one for one in outcomes if one.queries]:
            other = known.get(_group(outcome))
            if other is None or other.queries != outcome.queries:
                raise BadInput("eval-other-queries", folder=name, group=" ".join(_group(outcome)))
            found += [_difference(name, outcome, other, metric) for metric in metrics]
    corrected = holm([one.p for one in found])
    return [replace(one, corrected=p) for one, p in zip(found, corrected, strict=True)]


def against_first(
    named: Mapping[str, Sequence[Outcome]], metrics: Sequence[str] = ("hit@1",)
) -> list[Difference]:
    """What each but the first has more than the first, text→image (``other`` is its name)."""
    first, *_ = named
    searched = {
        name: [one for one in outcomes if one.direction == TEXT_TO_IMAGE]
        for name, outcomes in named.items()
    }
    others = {name: outcomes for name, outcomes in searched.items() if name != first}
    return [_turned(one) for one in compare(searched[first], others, metrics)]


def _turned(one: Difference) -> Difference:
    value, low, high = (0.0 - number for number in vars(one.more).values())
    return replace(one, more=Figure(value, high, low))


def _group(outcome: Outcome) -> tuple[str, str, str]:
    return outcome.direction, outcome.lang, outcome.kind


def _difference(name: str, outcome: Outcome, other: Outcome, metric: str) -> Difference:
    at = METRICS.index(metric)
    # As a result folder keeps them, so that one just made is compared as it will be later.
    one, two = (np.array([float(f"{v:.9g}") for v in o.values[:, at]]) for o in (outcome, other))
    (more,) = intervals((one - two)[:, None])
    p = randomisation_test(one, two)
    return Difference(name, *_group(outcome), metric, more, p, p)
