"""eval."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.figures import show, show_differences
from soutu.cli.judging import Job, judge
from soutu.cli.language import language, say
from soutu.cli.options import device_option, json_option, model_option
from soutu.cli.render import plain, show_record
from soutu.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soutu.evaluation import Collection, Difference, Evaluation, Outcome, Trial

NONE = "none"


@dataclass(frozen=True)
class _Kept:
    """Where a result goes, and the language of its report ("none": it gets none)."""

    out: Path | None
    report: str


@click.command("eval")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--layout", metavar="NAME", help="How the collection lies there, if it is not seen.")
@click.option("--split", metavar="NAME", help="Of a collection with several (test).")
@click.option("--lang", metavar="NAME", help="Only texts in this language: zh, en …")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option("--expand/--no-expand", default=None, help="Query expansion (on).")
@click.option("--fusion", metavar="NAME", help="auto, mean (all variants), balanced or anchored.")
@click.option("--expansions", metavar="FILE", help="YAML rules laid over the built-in ones.")
@click.option("--correction", metavar="NAME", help="Of hubs: auto, on or off (off).")
@click.option("--compare", metavar="WAYS",
              help="Several ways, each against the first: raw,expand,expand+nnn.")  # fmt: skip
@click.option("--grid", type=click.Path(path_type=Path), metavar="FILE",
              help="YAML file of models, expansions, fusions and corrections.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the result.")
@click.option("--report", type=click.Choice(["zh", "en", NONE]),
              help="Its report's language (that of the messages), or none.")  # fmt: skip
@click.option("--depth", type=click.IntRange(1), default=100, metavar="N",
              help="How much of each ranking is kept (100).")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Keep the vectors there, so that the next time need not encode.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path), multiple=True, metavar="RESULT",
              help="Compare with the result kept there; may be repeated.")  # fmt: skip
@click.option("--metric", "metrics", multiple=True, default=("hit@1",), metavar="NAME",
              help="What to compare by (hit@1); may be repeated.")  # fmt: skip
@click.option("--workers", type=int, metavar="N", help="Threads that decode (one a core).")
@click.option("--batch", type=int, metavar="N", help="Pictures encoded at once.")
@model_option
@device_option
@json_option
def evaluate(
    folder: Path,
    layout: str | None,
    split: str | None,
    lang: str | None,
    limit: int | None,
    compare: str | None,
    grid: Path | None,
    out: Path | None,
    report: str | None,
    depth: int,
    work: Path | None,
    against: tuple[Path, ...],
    metrics: tuple[str, ...],
    as_json: bool,
    **settings: object,
) -> None:
    """Judge a model on the collection in DIR, both ways · 评测模型

    DIR holds pictures, texts, and which belong together: what training.collections writes,
    queries and qrels as CSV or JSON lines, Chinese-CLIP's files, Karpathy's JSON,
    Crossmodal-3600, or webdataset tars. A result that was kept with --out may stand in its
    place, to be compared --against others."""
    from soutu.evaluation import check_metrics, is_result, open_collection, read_outcomes

    check_metrics(metrics)
    trials = _trials(compare, grid, against)
    others = {str(other): read_outcomes(other) for other in against}
    if is_result(folder):
        if trials or out or report:
            raise BadInput("eval-no-collection", folder=folder)
        _tell(
            read_outcomes(folder), None, _compared(read_outcomes(folder), others, metrics), as_json
        )
        return
    if report and not out:
        raise BadInput("eval-report-out")
    collection = open_collection(folder, layout=layout, split=split, lang=lang)
    collection = collection.first(limit) if limit else collection
    settings["correction"] = settings.get("correction") or "off"
    job, kept = Job(collection, settings, work, depth), _Kept(out, report or language())
    if trials:
        _tell_trials(*_try(job, trials, metrics, kept), as_json)
    else:
        told, differences = _judge(job, others, metrics, kept)
        _tell(told.outcomes, told, differences, as_json)
    if out and not as_json:
        click.echo(say("eval-written", folder=out), err=True)


def _trials(compare: str | None, grid: Path | None, against: Sequence[Path]) -> list[Trial]:
    from soutu.evaluation import parse_trials, read_grid

    if sum(map(bool, (compare, grid, against))) > 1 and (compare or grid):
        raise BadInput("eval-either")
    return parse_trials(compare) if compare else read_grid(grid) if grid else []


def _judge(
    job: Job, others: dict[str, tuple[Outcome, ...]], metrics: Sequence[str], kept: _Kept
) -> tuple[Evaluation, list[Difference]]:
    from soutu.evaluation import Trial, result_folder, write

    with result_folder(kept.out) if kept.out else nullcontext() as made:
        (told,) = judge(job, [Trial("")], made).values()
        differences = _compared(told.outcomes, others, metrics)
        if made:
            write(made, told)
            _report(made, job.collection, {told.name: told}, differences, kept.report)
    return told, differences


def _compared(
    outcomes: Sequence[Outcome], others: dict[str, tuple[Outcome, ...]], metrics: Sequence[str]
) -> list[Difference]:
    from soutu.evaluation import compare

    return compare(outcomes, others, metrics)


def _try(
    job: Job, trials: Sequence[Trial], metrics: Sequence[str], kept: _Kept
) -> tuple[dict[str, Evaluation], list[Difference]]:
    from soutu.evaluation import against_first, result_folder, write_comparison

    with result_folder(kept.out) if kept.out else nullcontext() as made:
        named = judge(job, trials, made)
        found = {name: evaluation.outcomes for name, evaluation in named.items()}
        differences = against_first(found, metrics)
        if made:
            write_comparison(made, named, differences)
            _report(made, job.collection, named, differences, kept.report)
    return named, differences


def _report(
    made: Path,
    collection: Collection,
    named: dict[str, Evaluation],
    differences: Sequence[Difference],
    lang: str,
) -> None:
    if lang != NONE:
        from soutu.evaluation.report import Report, write_report

        write_report(made, Report(collection, named, tuple(differences), lang))


def _tell(
    outcomes: Sequence[Outcome],
    told: Evaluation | None,
    differences: Sequence[Difference],
    as_json: bool,
) -> None:
    if as_json:
        show_record({**_record(outcomes, told), "differences": tuple(map(asdict, differences))})
        return
    show(outcomes, told)
    for other in dict.fromkeys(one.other for one in differences):
        show_differences(differences, other, "eval-against")


def _tell_trials(
    named: dict[str, Evaluation], differences: Sequence[Difference], as_json: bool
) -> None:
    if as_json:
        trials = [{"name": n, **_record(told.outcomes, told)} for n, told in named.items()]
        show_record({"trials": trials, "differences": tuple(map(asdict, differences))})
        return
    for name, told in named.items():
        click.secho(plain(name), bold=True)
        show(told.outcomes, told)
    for other in dict.fromkeys(one.other for one in differences):
        show_differences(differences, other, "eval-more", first=plain(next(iter(named))))


def _record(outcomes: Sequence[Outcome], told: Evaluation | None) -> dict[str, object]:
    from soutu.evaluation import figures

    return {"settings": told.settings if told else None, "outcomes": tuple(map(figures, outcomes))}
