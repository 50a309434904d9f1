"""tune."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from soutu.cli.options import Options, device_option, json_option, model_option, progress_bar
from soutu.cli.render import plain, show_record
from soutu.errors import BadInput
from soutu.i18n import current_language, tr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soutu.evaluation.dataset import Dataset
    from soutu.evaluation.evaluate import Evaluation, QueryOutcomes
    from soutu.evaluation.results import Difference
    from soutu.evaluation.statistics import Figure
    from soutu.evaluation.tuning import Tuning
    from soutu.evaluation.variants import SearchVariant
    from soutu.evaluation.vectors import Progress
    from soutu.models.base import Encoder
    from soutu.query.expansion import Expander, Weights

# Figures of evaluations as tables.


SHOWN_METRICS = ("hit@1", "hit@5", "hit@10", "mAP")
_DIRECTIONS = {"text-to-image": "eval-text-to-image", "image-to-text": "eval-image-to-text"}


def format_metric(outcomes: Sequence[QueryOutcomes], told: Evaluation | None) -> None:
    """The figures that are looked at first; the others are in the JSON and in the files."""
    header = [*SHOWN_METRICS, tr("eval-median-rank")]
    rows = [
        [
            *group_of(one),
            str(len(one.queries)),
            *(_figure(one, name, "{:.3f}") for name in SHOWN_METRICS),
            _figure(one, "rank", "{:g}"),
        ]
        for one in outcomes
    ]
    print_table(["", "", "", tr("eval-queries"), *header], rows)
    if told:
        there, model = told.settings["collection"], told.settings["model"]
        assert isinstance(there, dict)
        assert isinstance(model, dict)
        counts = {name: there[name] for name in ("name", "layout", "pictures", "texts")}
        left_out = sum(one.unanswered for one in outcomes)
        click.echo(tr("eval-judged", model=model["name"], unanswered=left_out, **counts), err=True)


def _figure(outcome: QueryOutcomes, metric: str, form: str) -> str:
    figure = outcome.figures.get(metric)
    if figure is None:
        return "-"
    value, low, high = (form.format(x) for x in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high})"


def show_differences(
    differences: Sequence[Difference], other: str, heading: str, **told: object
) -> None:
    """Those with ``other``, below the sentence ``heading``."""
    compared = [one for one in differences if one.other == other]
    for metric in dict.fromkeys(one.metric for one in compared):
        told |= {"metric": metric, "other": plain(other), "count": len(differences)}
        click.echo(tr(heading, **told))
        rows = [
            [
                *group_of(one),
                "{:+.3f} ({:+.3f}–{:+.3f})".format(*vars(one.more).values()),
                f"p {one.p:.4f}",
                f"p {one.corrected:.4f} (Holm)",
            ]
            for one in compared
            if one.metric == metric
        ]
        print_table(None, rows)


def group_of(one: QueryOutcomes | Difference) -> tuple[str, str, str]:
    return tr(_DIRECTIONS[one.direction]), plain(one.lang), plain(one.kind)


def print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=header is not None, header_style="bold")
    for at in range(len(rows[0]) if rows else 0):
        table.add_column(header[at] if header else "", justify="left" if at < 3 else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # a kind may have brackets, which are no markup
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; 80 would break lines
    console.print(table)


# Evaluations as the settings ask for them.


@dataclass(frozen=True)
class EvaluationJob:
    """``settings`` are those given on the command line; ``work`` keeps vectors, ``depth`` is how
    much of each ranking is kept."""

    collection: Dataset
    settings: Options
    work: Path | None
    depth: int = 100


def run_evaluation(
    job: EvaluationJob, trials: Sequence[SearchVariant], made: Path | None
) -> dict[str, Evaluation]:
    """Each of ``trials`` by its name, in their order; runs go into the folder ``made``, if there
    is one: below it where trials have names."""
    from soutu.evaluation.results import folder_of

    found, encoders = dict[str, "Evaluation"](), dict[str, "Encoder"]()
    with ExitStack() as stack:
        work = job.work
        if work is None and len(trials) > 1:  # nothing is encoded twice
            work = Path(stack.enter_context(TemporaryDirectory(prefix="soutu-eval-")))
        progress = stack.enter_context(progress_bar("eval-encoding"))
        for number, trial in enumerate(trials, 1):
            place = made
            if made and trial.name:
                place = made / folder_of(number, trial.name)
                place.mkdir()
            one = _VariantOptions(job, work, progress, encoders)
            found[trial.name] = one.judge(trial, place)
    return found


@dataclass(frozen=True)
class _VariantOptions:
    job: EvaluationJob
    work: Path | None
    progress: Progress
    encoders: dict[str, Encoder]

    def judge(self, trial: SearchVariant, place: Path | None) -> Evaluation:
        from soutu.evaluation.evaluate import evaluate
        from soutu.evaluation.vectors import EncodeOptions
        from soutu.factory import build_encoder, build_expander, load_tuned_params, precision
        from soutu.indexing.pipeline import IndexOptions
        from soutu.models.catalog import DEFAULT
        from soutu.settings import load_settings

        config = load_settings(None, {**self.job.settings, **trial.settings})
        model = config.model or DEFAULT
        if model not in self.encoders:
            self.encoders[model] = build_encoder(model, config.device)
        how = EncodeOptions(
            expander=build_expander(config),
            fusion=config.fusion,
            correction=config.correction,
            hubs=load_tuned_params(config, self.encoders[model].info.space).hubs,
            pace=IndexOptions(config.workers or 0, config.batch or 0, config.max_pixels),
            device=config.device,
            precision=precision(model),
            work=self.work,
            progress=self.progress,
        )
        depth = self.job.depth
        return evaluate(self.job.collection, self.encoders[model], how, runs=place, depth=depth)


# eval.


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
    from soutu.evaluation.loaders import open_dataset
    from soutu.evaluation.results import check_metrics, is_result, read_outcomes

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
    collection = open_dataset(folder, layout=layout, split=split, lang=lang)
    collection = collection.first(limit) if limit else collection
    settings["correction"] = settings.get("correction") or "off"
    job, kept = (
        EvaluationJob(collection, settings, work, depth),
        _Kept(out, report or current_language()),
    )
    if trials:
        _tell_trials(*_try(job, trials, metrics, kept), as_json)
    else:
        told, differences = _judge(job, others, metrics, kept)
        _tell(told.outcomes, told, differences, as_json)
    if out and not as_json:
        click.echo(tr("eval-written", folder=out), err=True)


def _trials(compare: str | None, grid: Path | None, against: Sequence[Path]) -> list[SearchVariant]:
    from soutu.evaluation.variants import parse_variants, read_grid

    if sum(map(bool, (compare, grid, against))) > 1 and (compare or grid):
        raise BadInput("eval-either")
    return parse_variants(compare) if compare else read_grid(grid) if grid else []


def _judge(
    job: EvaluationJob,
    others: dict[str, tuple[QueryOutcomes, ...]],
    metrics: Sequence[str],
    kept: _Kept,
) -> tuple[Evaluation, list[Difference]]:
    from soutu.evaluation.results import result_folder, write_result
    from soutu.evaluation.variants import SearchVariant

    with result_folder(kept.out) if kept.out else nullcontext() as made:
        (told,) = run_evaluation(job, [SearchVariant("")], made).values()
        differences = _compared(told.outcomes, others, metrics)
        if made:
            write_result(made, told)
            _report(made, job.collection, {told.name: told}, differences, kept.report)
    return told, differences


def _compared(
    outcomes: Sequence[QueryOutcomes],
    others: dict[str, tuple[QueryOutcomes, ...]],
    metrics: Sequence[str],
) -> list[Difference]:
    from soutu.evaluation.results import compare

    return compare(outcomes, others, metrics)


def _try(
    job: EvaluationJob, trials: Sequence[SearchVariant], metrics: Sequence[str], kept: _Kept
) -> tuple[dict[str, Evaluation], list[Difference]]:
    from soutu.evaluation.results import compare_to_first, result_folder, write_comparison

    with result_folder(kept.out) if kept.out else nullcontext() as made:
        named = run_evaluation(job, trials, made)
        found = {name: evaluation.outcomes for name, evaluation in named.items()}
        differences = compare_to_first(found, metrics)
        if made:
            write_comparison(made, named, differences)
            _report(made, job.collection, named, differences, kept.report)
    return named, differences


def _report(
    made: Path,
    collection: Dataset,
    named: dict[str, Evaluation],
    differences: Sequence[Difference],
    lang: str,
) -> None:
    if lang != NONE:
        from soutu.evaluation.report import Report, write_report

        write_report(made, Report(collection, named, tuple(differences), lang))


def _tell(
    outcomes: Sequence[QueryOutcomes],
    told: Evaluation | None,
    differences: Sequence[Difference],
    as_json: bool,
) -> None:
    if as_json:
        show_record({**_record(outcomes, told), "differences": tuple(map(asdict, differences))})
        return
    format_metric(outcomes, told)
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
        format_metric(told.outcomes, told)
    for other in dict.fromkeys(one.other for one in differences):
        show_differences(differences, other, "eval-more", first=plain(next(iter(named))))


def _record(outcomes: Sequence[QueryOutcomes], told: Evaluation | None) -> dict[str, object]:
    from soutu.evaluation.results import figures

    return {"settings": told.settings if told else None, "outcomes": tuple(map(figures, outcomes))}


@click.command("tune")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dev", metavar="SPLIT", help="Choose on this split, and judge on --test.")
@click.option("--test", metavar="SPLIT", help="The other split; without both, queries are halved.")
@click.option("--layout", metavar="NAME", help="How the collection lies there, if it is not seen.")
@click.option("--lang", metavar="NAME", help="Only texts in this language: zh, en …")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option("--precision", type=click.FloatRange(0, 1), metavar="P",
              help="Choose min_confidence, too: above it, such a share is right.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("tuned.yaml"), metavar="FILE",
              help="Where to write what was chosen (tuned.yaml).")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Keep the vectors there, so that the next time need not encode.")  # fmt: skip
@model_option
@device_option
@json_option
def tune(
    folder: Path,
    dev: str | None,
    test: str | None,
    layout: str | None,
    lang: str | None,
    limit: int | None,
    precision: float | None,
    out: Path,
    work: Path | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Fit weights, hub correction and confidence to a model · 为模型调参

    They are chosen on one part of the collection's queries, and what they are worth is told
    for the other part. Settings use them by `tuned: FILE`."""
    from soutu.evaluation.loaders import open_dataset
    from soutu.evaluation.tuning import split_half

    if bool(dev) != bool(test) or (dev and dev == test):
        raise BadInput("tune-splits")
    if dev and test:
        parts = [open_dataset(folder, layout=layout, split=s, lang=lang) for s in (dev, test)]
        parts = [part.first(limit) if limit else part for part in parts]
    else:
        whole = open_dataset(folder, layout=layout, lang=lang)
        parts = [*split_half(whole.first(limit) if limit else whole)]
    found = _tuned(parts, settings, work, precision)
    _write(out, found)
    if as_json:
        show_record(asdict(found))
        return
    _show(found, parts, precision)
    click.echo(tr("tune-written", file=out), err=True)


def _tuned(
    parts: list[Dataset], settings: Options, work: Path | None, precision: float | None
) -> Tuning:
    from tempfile import TemporaryDirectory

    from soutu.evaluation.tuning import tune
    from soutu.evaluation.vectors import EncodeOptions
    from soutu.factory import build_encoder, build_expander
    from soutu.models.catalog import DEFAULT
    from soutu.settings import load_settings

    dev, test = parts
    config = load_settings(None, {**settings, "expand": True})

    def expander(weights: Weights) -> Expander | None:
        return build_expander(config, weights=weights)

    encoder = build_encoder(config.model or DEFAULT, config.device)
    with TemporaryDirectory(prefix="soutu-tune-") as beside, progress_bar("eval-encoding") as bar:
        how = EncodeOptions(
            fusion=config.fusion, device=config.device, work=work or Path(beside), progress=bar
        )
        return tune(dev, test, encoder, how, expander, precision)


def _write(file: Path, found: Tuning) -> None:
    from soutu.search.calibration import to_yaml

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_yaml(found.tuned), encoding="utf-8", newline="\n")
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unwritable", folder=file, reason=reason) from fault


def _show(found: Tuning, parts: list[Dataset], precision: float | None) -> None:
    tuned, weights, hubs = found.tuned, found.tuned.weights, found.tuned.hubs
    dev, test = (len(part.texts) for part in parts)
    click.echo(tr("tune-parts", dev=dev, test=test))
    numbers = (f"{x:g}" for x in (*vars(weights).values(), *vars(hubs).values()))
    names = ("later", "listed", "synonym", "alpha", "skewed", "growth")
    click.echo(tr("tune-chosen", **dict(zip(names, numbers, strict=True))))
    codes = ("eval-queries", "tune-before", "tune-after", "tune-more")
    header = ["", *map(tr, codes)]
    rows = [
        [one.metric, str(one.queries), _shown(one.before), _shown(one.after),
         _shown(one.more, "+"), f"p {one.corrected:.4f}"]
        for one in found.gains
    ]  # fmt: skip
    print_table([*header, "Holm"], rows)
    if precision is None:
        return
    least = {"least": f"{tuned.min_confidence:g}", "wished": f"{precision:g}"}
    if found.precision and found.recall:
        figures = {"precision": _shown(found.precision), "recall": _shown(found.recall)}
        click.echo(tr("tune-threshold", **least, **figures))
    else:
        click.echo(tr("tune-no-threshold", wished=least["wished"]))


def _shown(figure: Figure, sign: str = "") -> str:
    value, low, high = (f"{number:{sign}.3f}" for number in vars(figure).values())
    return f"{value} ({low}–{high})"
