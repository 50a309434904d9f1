"""A result folder: what was judged and how, the figures, each query's values, the runs.

config.json     model, expansion, collection, by fingerprint: equal for equal runs
metrics.json    the figures with their 95 % intervals, by direction, language and kind
per_query.csv   every query's values
*.trec *.qrels  see ``runs``

Of several ways, each has such a folder of its own, and beside them lies

comparison.json  their names and folders, and what each has more than the first

A report (``report``) may lie in either.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.dataset import TEXT_TO_IMAGE
from soutu.evaluation.evaluate import FILES, Evaluation, QueryOutcomes
from soutu.evaluation.metrics import LIBRARY, METRICS
from soutu.evaluation.statistics import Figure, holm, intervals, randomisation_test
from soutu.exchange.export import put_in_place

# Whether one evaluation is better than others, query by query.


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
    outcomes: Sequence[QueryOutcomes],
    others: Mapping[str, Sequence[QueryOutcomes]],
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


def compare_to_first(
    named: Mapping[str, Sequence[QueryOutcomes]], metrics: Sequence[str] = ("hit@1",)
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


def _group(outcome: QueryOutcomes) -> tuple[str, str, str]:
    return outcome.direction, outcome.lang, outcome.kind


def _difference(name: str, outcome: QueryOutcomes, other: QueryOutcomes, metric: str) -> Difference:
    at = METRICS.index(metric)
    # As a result folder keeps them, so that one just made is compared as it will be later.
    one, two = (np.array([float(f"{v:.9g}") for v in o.values[:, at]]) for o in (outcome, other))
    (more,) = intervals((one - two)[:, None])
    p = randomisation_test(one, two)
    return Difference(name, *_group(outcome), metric, more, p, p)


CONFIG, FIGURES, QUERIES = "config.json", "metrics.json", "per_query.csv"
COMPARISON = "comparison.json"
REPORTS = ("report.html", "report.md")
OURS = {CONFIG, FIGURES, QUERIES, COMPARISON, *REPORTS, *FILES}
_NUMBERED = re.compile(r"plot-\d+\.svg|\d+-.+", re.S)  # a report's plots; folders of several ways
_UNSAFE = re.compile(r"[^\w.+=-]+")
_GROUP = ("direction", "lang", "kind", "targets", "unanswered")
_COLUMNS = (*_GROUP, "query", "answers", *METRICS)


@contextmanager
def result_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``folder`` at the end, or leaves it
    as it was if anything fails. BadInput where ``folder`` holds anything but an earlier result,
    and where it cannot be written."""
    target = Path(os.path.realpath(folder))
    try:
        _check(target, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".soutu-eval-", dir=target.parent) as beside:
            made = Path(beside) / "new"
            made.mkdir()
            yield made
            _check(target, folder)
            put_in_place(made, target, Path(beside) / "old")
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise BadInput("eval-unwritable", folder=folder, reason=reason) from fault


def _check(target: Path, shown: Path) -> None:
    if not os.path.lexists(target):
        return
    there = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    others = {name for name in there - OURS if not _NUMBERED.fullmatch(name)}
    if there and (others or not there & {CONFIG, COMPARISON}):
        other = ", ".join(sorted(others or there)[:3])
        raise BadInput("eval-not-empty", folder=shown, found=other)
    for inner in sorted(name for name in there if (target / name).is_dir()):
        _check(target / inner, shown / inner)


def write_result(folder: Path, evaluation: Evaluation) -> None:
    """The same bytes for the same evaluation."""
    _write_json(folder / CONFIG, evaluation.settings)
    _write_json(folder / FIGURES, [figures(outcome) for outcome in evaluation.outcomes])
    with (folder / QUERIES).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for one in evaluation.outcomes:
            group = [getattr(one, name) for name in _GROUP]
            for query, answers, values in zip(one.queries, one.answers, one.values, strict=True):
                rows.writerow([*group, query, answers, *(f"{value:.9g}" for value in values)])


def folder_of(number: int, name: str) -> str:
    """Of several ways, that of the one called ``name``, counted from 1."""
    return f"{number:02}-{_UNSAFE.sub('-', name)[:80]}"


def write_comparison(
    folder: Path, named: Mapping[str, Evaluation], differences: Sequence[Difference]
) -> None:
    """Beside the folders of each, in which its runs lie already."""
    places = {name: folder_of(at, name) for at, name in enumerate(named, 1)}
    for name, evaluation in named.items():
        write_result(folder / places[name], evaluation)
    told = [{"name": name, "folder": place} for name, place in places.items()]
    rounded = [asdict(one) for one in differences]
    for one in rounded:
        one["more"] = {part: round(value, 6) for part, value in one["more"].items()}
    _write_json(folder / COMPARISON, {"trials": told, "differences": rounded})


def figures(outcome: QueryOutcomes) -> dict[str, object]:
    """The figures of one outcome as plain values, to six decimals."""
    told = {name: getattr(outcome, name) for name in _GROUP}
    rounded = {
        metric: {part: round(value, 6) for part, value in asdict(figure).items()}
        for metric, figure in outcome.figures.items()
    }
    return {**told, "queries": len(outcome.queries), "metrics": rounded}


def _write_json(file: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


def is_result(folder: Path) -> bool:
    """Whether an evaluation was written there."""
    return all((folder / name).is_file() for name in (CONFIG, FIGURES, QUERIES))


def read_outcomes(folder: Path) -> tuple[QueryOutcomes, ...]:
    """The outcomes of a result folder, from its values by query; BadInput where it is no result
    or cannot be understood."""
    if not is_result(folder):
        raise BadInput("eval-no-result", folder=folder)
    try:
        with (folder / QUERIES).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return tuple(
            _outcome(group, list(members))
            for group, members in groupby(rows, lambda row: tuple(row[name] for name in _GROUP))
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as fault:
        raise BadInput("eval-damaged", file=folder / QUERIES, fault=fault) from fault


def _outcome(group: tuple[str, ...], rows: list[dict[str, str]]) -> QueryOutcomes:
    direction, lang, kind, targets, unanswered = group
    return QueryOutcomes(
        direction=direction,
        lang=lang,
        kind=kind,
        queries=tuple(row["query"] for row in rows),
        answers=tuple(int(row["answers"]) for row in rows),
        values=np.array([[float(row[name]) for name in METRICS] for row in rows]),
        targets=int(targets),
        unanswered=int(unanswered),
    )
