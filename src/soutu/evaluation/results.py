"""Result folders, and whether one evaluation is better than others, query by query.

config.json     model, expansion, dataset, by fingerprint: equal for equal runs
metrics.json    the figures with their 95 % intervals, by direction, language and kind
per_query.csv   every query's values
*.trec *.qrels  see ``evaluate``

Of several variants, each has such a folder of its own, and beside them lies

comparison.json  their names and folders, and what each has more than the first

A report (``report``) may lie in either.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.dataset import TEXT_TO_IMAGE
from soutu.evaluation.evaluate import RUN_FILES, Evaluation, QueryOutcomes
from soutu.evaluation.metrics import LIBRARY, METRICS
from soutu.evaluation.statistics import Figure, holm, intervals, randomisation_test
from soutu.fs import staged_folder

CONFIG, FIGURES, QUERIES = "config.json", "metrics.json", "per_query.csv"
COMPARISON = "comparison.json"
REPORTS = ("report.html", "report.md")
RESULT_FILES = {CONFIG, FIGURES, QUERIES, COMPARISON, *REPORTS, *RUN_FILES}
_NUMBERED = re.compile(r"plot-\d+\.svg|\d+-.+", re.S)  # a report's plots; folders of variants
_GROUP = ("direction", "lang", "kind", "targets", "unanswered")


@dataclass(frozen=True)
class Difference:
    """How much more one evaluation has than ``other`` by ``metric``.

    ``more`` is the paired bootstrap's figure; ``p`` that of the paired randomisation test,
    ``corrected`` by Holm for all that were compared together.
    """

    other: str
    direction: str
    lang: str
    kind: str
    metric: str
    more: Figure
    p: float
    corrected: float


def check_metrics(names: Sequence[str]) -> None:
    """Raise BadInput for a name that is none, or the rank's, whose mean says nothing."""
    for name in names:
        if name not in LIBRARY:
            raise BadInput("eval-metric", name=name, known=", ".join(LIBRARY))


def compare(
    outcomes: Sequence[QueryOutcomes],
    others: Mapping[str, Sequence[QueryOutcomes]],
    metrics: Sequence[str] = ("hit@1",),
) -> list[Difference]:
    """Compare ``outcomes`` with each of the ``others`` (by name), by ``metrics`` that have means.

    Raises BadInput where other queries were asked.
    """
    differences = []
    for name, other_outcomes in others.items():
        by_group = {_group(outcome): outcome for outcome in other_outcomes}
        for outcome in outcomes:
            if not outcome.queries:
                continue
            group = _group(outcome)
            other = by_group.get(group)
            if other is None or other.queries != outcome.queries:
                raise BadInput("eval-other-queries", folder=name, group=" ".join(group))
            for metric in metrics:
                column = METRICS.index(metric)
                # As a result folder keeps them, so that a new one compares as it will later.
                first, second = (
                    np.array([float(f"{value:.9g}") for value in o.values[:, column]])
                    for o in (outcome, other)
                )
                (more,) = intervals((first - second)[:, None])
                p = randomisation_test(first, second)
                differences.append(Difference(name, *group, metric, more, p, p))
    corrected = holm([difference.p for difference in differences])
    return [replace(d, corrected=p) for d, p in zip(differences, corrected, strict=True)]


def _group(outcome: QueryOutcomes) -> tuple[str, str, str]:
    return outcome.direction, outcome.lang, outcome.kind


def compare_to_first(
    named: Mapping[str, Sequence[QueryOutcomes]], metrics: Sequence[str] = ("hit@1",)
) -> list[Difference]:
    """Tell what each but the first has more than the first, text→image (``other`` is its name)."""
    first, *others = (
        (name, [outcome for outcome in outcomes if outcome.direction == TEXT_TO_IMAGE])
        for name, outcomes in named.items()
    )
    differences = []
    for difference in compare(first[1], dict(others), metrics):
        value, low, high = (0.0 - number for number in vars(difference.more).values())
        differences.append(replace(difference, more=Figure(value, high, low)))
    return differences


@contextmanager
def result_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which takes the place of ``folder`` at the end.

    ``folder`` is left as it was if anything fails. Raises BadInput where it holds anything but an
    earlier result, and where it cannot be written.
    """
    try:
        with staged_folder(folder, _check_replaceable, ".soutu-eval-") as new:
            yield new
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput("eval-unwritable", folder=folder, reason=reason) from error


def _check_replaceable(target: Path, name: Path) -> None:
    if not os.path.lexists(target):
        return
    names = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    others = {n for n in names - RESULT_FILES if not _NUMBERED.fullmatch(n)}
    if names and (others or not names & {CONFIG, COMPARISON}):
        other = ", ".join(sorted(others or names)[:3])
        raise BadInput("eval-not-empty", folder=name, found=other)
    for inner in sorted(n for n in names if (target / n).is_dir()):
        _check_replaceable(target / inner, name / inner)


def write_result(folder: Path, evaluation: Evaluation) -> None:
    """Write an evaluation; the same bytes for the same one."""
    _write_json(folder / CONFIG, evaluation.settings)
    _write_json(folder / FIGURES, [figures(outcome) for outcome in evaluation.outcomes])
    with (folder / QUERIES).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*_GROUP, "query", "answers", *METRICS))
        for outcome in evaluation.outcomes:
            group = [getattr(outcome, name) for name in _GROUP]
            queries = zip(outcome.queries, outcome.answers, outcome.values, strict=True)
            for query, answers, values in queries:
                rows.writerow([*group, query, answers, *(f"{value:.9g}" for value in values)])


def folder_of(number: int, name: str) -> str:
    """Name the folder of a variant, counted from 1."""
    safe_name = re.sub(r"[^\w.+=-]+", "-", name)
    return f"{number:02}-{safe_name[:80]}"


def write_comparison(
    folder: Path, named: Mapping[str, Evaluation], differences: Sequence[Difference]
) -> None:
    """Write the results of all variants, in whose folders their runs lie already."""
    trials = []
    for number, (name, evaluation) in enumerate(named.items(), 1):
        trials.append({"name": name, "folder": folder_of(number, name)})
        write_result(folder / folder_of(number, name), evaluation)
    rounded = [{**asdict(d), "more": _round(d.more)} for d in differences]
    _write_json(folder / COMPARISON, {"trials": trials, "differences": rounded})


def figures(outcome: QueryOutcomes) -> dict[str, object]:
    """Return the figures of one outcome as plain values, to six decimals."""
    return {
        **{name: getattr(outcome, name) for name in _GROUP},
        "queries": len(outcome.queries),
        "metrics": {metric: _round(figure) for metric, figure in outcome.figures.items()},
    }


def _round(figure: Figure) -> dict[str, float]:
    return {part: round(value, 6) for part, value in asdict(figure).items()}


def _write_json(file: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


def is_result(folder: Path) -> bool:
    """Whether an evaluation was written there."""
    return all((folder / name).is_file() for name in (CONFIG, FIGURES, QUERIES))


def read_outcomes(folder: Path) -> tuple[QueryOutcomes, ...]:
    """Read the outcomes of a result folder from its values by query.

    Raises BadInput where it is no result or cannot be understood.
    """
    if not is_result(folder):
        raise BadInput("eval-no-result", folder=folder)
    outcomes = []
    try:
        with (folder / QUERIES).open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file, strict=True))
        for group, members in groupby(table, lambda row: tuple(row[name] for name in _GROUP)):
            rows = [*members]
            direction, lang, kind, targets, unanswered = group
            outcomes.append(
                QueryOutcomes(
                    direction=direction,
                    lang=lang,
                    kind=kind,
                    queries=tuple(row["query"] for row in rows),
                    answers=tuple(int(row["answers"]) for row in rows),
                    values=np.array([[float(row[name]) for name in METRICS] for row in rows]),
                    targets=int(targets),
                    unanswered=int(unanswered),
                )
            )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput("eval-damaged", file=folder / QUERIES, error=error) from error
    return tuple(outcomes)
