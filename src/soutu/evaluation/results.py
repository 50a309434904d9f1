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
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.comparison import Difference
from soutu.evaluation.judging import Evaluation, Outcome
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.runs import FILES
from soutu.store.exchange.places import put_in_place

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


def write(folder: Path, evaluation: Evaluation) -> None:
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
        write(folder / places[name], evaluation)
    told = [{"name": name, "folder": place} for name, place in places.items()]
    rounded = [asdict(one) for one in differences]
    for one in rounded:
        one["more"] = {part: round(value, 6) for part, value in one["more"].items()}
    _write_json(folder / COMPARISON, {"trials": told, "differences": rounded})


def figures(outcome: Outcome) -> dict[str, object]:
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


def read_outcomes(folder: Path) -> tuple[Outcome, ...]:
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


def _outcome(group: tuple[str, ...], rows: list[dict[str, str]]) -> Outcome:
    direction, lang, kind, targets, unanswered = group
    return Outcome(
        direction=direction,
        lang=lang,
        kind=kind,
        queries=tuple(row["query"] for row in rows),
        answers=tuple(int(row["answers"]) for row in rows),
        values=np.array([[float(row[name]) for name in METRICS] for row in rows]),
        targets=int(targets),
        unanswered=int(unanswered),
    )
