"""``soutu eval`` and ``soutu tune``: evaluate a model on a collection, and fit parameters to it."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from soutu.cli.main import Flags, device_option, json_option, model_option
from soutu.cli.render import progress_bar, sanitize, show_json, show_table
from soutu.errors import BadInput
from soutu.i18n import current_language, tr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soutu.evaluation.dataset import Dataset
    from soutu.evaluation.evaluate import Evaluation, QueryOutcomes
    from soutu.evaluation.results import Difference
    from soutu.evaluation.statistics import Figure
    from soutu.evaluation.tuning import Tuning
    from soutu.evaluation.variants import SearchVariant
    from soutu.models.base import Encoder
    from soutu.query.expansion import Expander, Weights

TABLE_METRICS = ("hit@1", "hit@5", "hit@10", "mAP")
NO_REPORT = "none"
DIRECTIONS = {"text-to-image": "eval-text-to-image", "image-to-text": "eval-image-to-text"}

_layout_option = click.option(
    "--layout", metavar="NAME", help="Layout of the collection, if it is not recognised."
)
_lang_option = click.option("--lang", metavar="LANG", help="Only texts in this language: zh, en …")
_limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures."
)
_work_option = click.option(
    "--work", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Keep vectors in FOLDER, so that the next run need not encode.",
)  # fmt: skip


@click.command("eval")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_layout_option
@click.option("--split", metavar="NAME", help="Split of the collection, if it has several (test).")
@_lang_option
@_limit_option
@click.option("--expand/--no-expand", default=None, help="Expand queries into variants (on).")
@click.option("--fusion", metavar="NAME", help="Fusion: auto, mean, balanced or senses.")
@click.option("--expansions", metavar="FILE", help="YAML rules that override the built-in ones.")
@click.option("--correction", metavar="WHEN", help="Hubness correction: auto, on or off (off).")
@click.option("--compare", metavar="VARIANTS",
              help="Compare variants with the first: raw,expand,expand+nnn.")  # fmt: skip
@click.option("--grid", type=click.Path(path_type=Path), metavar="FILE",
              help="YAML file of models, expansions, fusions and corrections.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write the result into FOLDER.")  # fmt: skip
@click.option("--report", type=click.Choice(["zh", "en", NO_REPORT]),
              help="Language of the report (that of the messages), or none.")  # fmt: skip
@click.option("--depth", type=click.IntRange(1), default=100, metavar="N",
              help="Ranks written into run files (100).")  # fmt: skip
@_work_option
@click.option("--against", type=click.Path(path_type=Path), multiple=True, metavar="RESULT",
              help="Compare with the result in this folder; repeatable.")  # fmt: skip
@click.option("--metric", "metrics", multiple=True, default=("hit@1",), metavar="NAME",
              help="Metric to compare by (hit@1); repeatable.")  # fmt: skip
@click.option("--workers", type=int, metavar="N", help="Decoding threads (one per core).")
@click.option("--batch", type=int, metavar="N", help="Pictures per batch.")
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
    **flags: object,
) -> None:
    """Evaluate a model on the collection in DIR, in both directions · 评测模型

    DIR holds pictures, texts, and which belong together: what training.collections writes,
    queries and qrels as CSV or JSON lines, Chinese-CLIP's files, Karpathy's JSON,
    Crossmodal-3600, or webdataset tars. It may also be a result written with --out, to be
    compared --against others.
    """
    from soutu.evaluation import results
    from soutu.evaluation.loaders import open_dataset
    from soutu.evaluation.variants import SearchVariant, parse_variants, read_grid

    results.check_metrics(metrics)
    if (compare and grid) or (against and (compare or grid)):
        raise BadInput("eval-either")
    variants = parse_variants(compare) if compare else read_grid(grid) if grid else []
    others = {str(other): results.read_outcomes(other) for other in against}
    if results.is_result(folder):
        if variants or out or report:
            raise BadInput("eval-no-collection", folder=folder)
        outcomes = results.read_outcomes(folder)
        _show_outcomes(outcomes, None, results.compare(outcomes, others, metrics), as_json)
        return
    if report and not out:
        raise BadInput("eval-report-out")
    dataset = open_dataset(folder, layout=layout, split=split, lang=lang)
    dataset = dataset.first(limit) if limit else dataset
    flags["correction"] = flags.get("correction") or "off"
    report_lang = report or current_language()
    with results.result_folder(out) if out else nullcontext() as target:
        named = _evaluate_variants(
            dataset, variants or [SearchVariant("")], flags, depth=depth, work=work, target=target
        )
        if variants:
            by_name = {name: evaluation.outcomes for name, evaluation in named.items()}
            differences = results.compare_to_first(by_name, metrics)
        else:
            evaluation = named.pop("")
            named = {evaluation.name: evaluation}
            differences = results.compare(evaluation.outcomes, others, metrics)
        if target and variants:
            results.write_comparison(target, named, differences)
        elif target:
            results.write_result(target, evaluation)
        if target and report_lang != NO_REPORT:
            from soutu.evaluation.report import Report, write_report

            write_report(target, Report(dataset, named, tuple(differences), report_lang))
    if variants:
        _show_variants(named, differences, as_json)
    else:
        _show_outcomes(evaluation.outcomes, evaluation, differences, as_json)
    if out and not as_json:
        click.echo(tr("eval-written", folder=out), err=True)


def _evaluate_variants(
    dataset: Dataset,
    variants: Sequence[SearchVariant],
    flags: Flags,
    *,
    depth: int,
    work: Path | None,
    target: Path | None,
) -> dict[str, Evaluation]:
    """Evaluate each variant; run files go into ``target``, or below it if variants have names."""
    from soutu.evaluation.evaluate import evaluate
    from soutu.evaluation.results import folder_of
    from soutu.evaluation.vectors import EncodeOptions
    from soutu.factory import build_encoder, build_expander
    from soutu.indexing.pipeline import IndexOptions
    from soutu.models.bundle import default_model
    from soutu.search.calibration import load_tuned_params
    from soutu.settings import load_settings

    evaluations: dict[str, Evaluation] = {}
    encoders: dict[str, Encoder] = {}
    with ExitStack() as stack:
        if work is None and len(variants) > 1:  # encode nothing twice
            work = Path(stack.enter_context(TemporaryDirectory(prefix="soutu-eval-")))
        progress = stack.enter_context(progress_bar("eval-encoding"))
        for number, variant in enumerate(variants, 1):
            runs = target
            if target and variant.name:
                runs = target / folder_of(number, variant.name)
                runs.mkdir()
            config = load_settings(None, {**flags, **variant.settings})
            model = config.model or default_model()
            if model not in encoders:
                encoders[model] = build_encoder(model, config.device)
            options = EncodeOptions(
                expander=build_expander(config),
                fusion=config.fusion,
                correction=config.correction,
                hubs=load_tuned_params(config, encoders[model]).hubs,
                indexing=IndexOptions(config.workers or 0, config.batch or 0, config.max_pixels),
                device=config.device,
                precision=getattr(encoders[model], "precision", {}),
                work=work,
                progress=progress,
            )
            evaluations[variant.name] = evaluate(
                dataset, encoders[model], options, runs=runs, depth=depth
            )
    return evaluations


def _show_outcomes(
    outcomes: Sequence[QueryOutcomes],
    evaluation: Evaluation | None,
    differences: Sequence[Difference],
    as_json: bool,
) -> None:
    if as_json:
        record = _outcomes_record(outcomes, evaluation)
        show_json({**record, "differences": tuple(map(asdict, differences))})
        return
    _show_metrics(outcomes, evaluation)
    _show_differences(differences, "eval-against")


def _show_variants(
    named: Mapping[str, Evaluation], differences: Sequence[Difference], as_json: bool
) -> None:
    if as_json:
        trials = [{"name": name, **_outcomes_record(evaluation.outcomes, evaluation)}
                  for name, evaluation in named.items()]  # fmt: skip
        show_json({"trials": trials, "differences": tuple(map(asdict, differences))})
        return
    for name, evaluation in named.items():
        click.secho(sanitize(name), bold=True)
        _show_metrics(evaluation.outcomes, evaluation)
    _show_differences(differences, "eval-more", first=sanitize(next(iter(named))))


def _outcomes_record(
    outcomes: Sequence[QueryOutcomes], evaluation: Evaluation | None
) -> dict[str, object]:
    from soutu.evaluation.results import figures

    settings = evaluation.settings if evaluation else None
    return {"settings": settings, "outcomes": tuple(map(figures, outcomes))}


def _show_metrics(outcomes: Sequence[QueryOutcomes], evaluation: Evaluation | None) -> None:
    """Print the metrics that are looked at first; JSON and result files have the others."""
    header = ["", "", "", tr("eval-queries"), *TABLE_METRICS, tr("eval-median-rank")]
    rows = [
        [
            *_group_labels(outcome),
            str(len(outcome.queries)),
            *(_metric(outcome, name, ".3f") for name in TABLE_METRICS),
            _metric(outcome, "rank", "g"),
        ]
        for outcome in outcomes
    ]
    _print_table(header, rows)
    if evaluation:
        collection, model = evaluation.settings["collection"], evaluation.settings["model"]
        assert isinstance(collection, dict)
        assert isinstance(model, dict)
        counts = {name: collection[name] for name in ("name", "layout", "pictures", "texts")}
        unanswered = sum(outcome.unanswered for outcome in outcomes)
        click.echo(
            tr("eval-judged", model=model["name"], unanswered=unanswered, **counts), err=True
        )


def _metric(outcome: QueryOutcomes, name: str, form: str) -> str:
    figure = outcome.figures.get(name)
    return "-" if figure is None else _interval(figure, form)


def _interval(figure: Figure, form: str = ".3f") -> str:
    """Return the value with its 95 % interval."""
    return f"{figure.value:{form}} ({figure.low:{form}}–{figure.high:{form}})"


def _show_differences(differences: Sequence[Difference], code: str, **fields: object) -> None:
    """Print a table for each other evaluation and metric, below message ``code``."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for difference in differences:
        groups.setdefault((difference.other, difference.metric), []).append(difference)
    for (other, metric), members in groups.items():
        count = len(differences)
        click.echo(tr(code, metric=metric, other=sanitize(other), count=count, **fields))
        rows = [
            [
                *_group_labels(difference),
                _interval(difference.more, "+.3f"),
                f"p {difference.p:.4f}",
                f"p {difference.corrected:.4f} (Holm)",
            ]
            for difference in members
        ]
        _print_table(None, rows)


def _group_labels(group: QueryOutcomes | Difference) -> tuple[str, str, str]:
    return tr(DIRECTIONS[group.direction]), sanitize(group.lang), sanitize(group.kind)


def _print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=header is not None, header_style="bold")
    for index in range(len(rows[0]) if rows else 0):
        name = header[index] if header else ""
        table.add_column(name, justify="left" if index < 3 else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # a kind may have brackets, which are not markup
    show_table(table, width=160)


@click.command("tune")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dev", metavar="SPLIT", help="Fit on this split, evaluate on --test.")
@click.option("--test", metavar="SPLIT", help="The other split; without both, queries are halved.")
@_layout_option
@_lang_option
@_limit_option
@click.option("--precision", type=click.FloatRange(0, 1), metavar="P",
              help="Also choose min_confidence for this precision.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("tuned.yaml"), metavar="FILE",
              help="Write the parameters into FILE (tuned.yaml).")  # fmt: skip
@_work_option
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
    **flags: object,
) -> None:
    """Fit weights, hubness correction and confidence to a model · 为模型调参

    Parameters are chosen on one part of the collection's queries and evaluated on the other.
    The setting `tuned: FILE` applies them.
    """
    from soutu.evaluation.loaders import open_dataset
    from soutu.evaluation.tuning import split_half

    if bool(dev) != bool(test) or (dev and dev == test):
        raise BadInput("tune-splits")
    splits = (dev, test) if dev and test else (None,)
    datasets = [open_dataset(folder, layout=layout, split=s, lang=lang) for s in splits]
    datasets = [dataset.first(limit) if limit else dataset for dataset in datasets]
    parts = datasets if len(datasets) == 2 else [*split_half(datasets[0])]
    tuning = _tune(parts, flags, work, precision)
    _write_params(out, tuning)
    if as_json:
        show_json(tuning)
        return
    _show_tuning(tuning, parts, precision)
    click.echo(tr("tune-written", file=out), err=True)


def _tune(
    parts: Sequence[Dataset], flags: Flags, work: Path | None, precision: float | None
) -> Tuning:
    from soutu.evaluation.tuning import tune
    from soutu.evaluation.vectors import EncodeOptions
    from soutu.factory import build_encoder, build_expander
    from soutu.models.bundle import default_model
    from soutu.settings import load_settings

    config = load_settings(None, {**flags, "expand": True})

    def expander(weights: Weights) -> Expander | None:
        return build_expander(config, weights=weights)

    encoder = build_encoder(config.model or default_model(), config.device)
    with TemporaryDirectory(prefix="soutu-tune-") as temp, progress_bar("eval-encoding") as bar:
        options = EncodeOptions(
            fusion=config.fusion, device=config.device, work=work or Path(temp), progress=bar
        )
        dev, test = parts
        return tune(dev, test, encoder, options, expander, precision)


def _write_params(file: Path, tuning: Tuning) -> None:
    from soutu.search.calibration import to_yaml

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_yaml(tuning.tuned), encoding="utf-8", newline="\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInput("eval-unwritable", folder=file, reason=reason) from error


def _show_tuning(tuning: Tuning, parts: Sequence[Dataset], precision: float | None) -> None:
    tuned = tuning.tuned
    dev, test = (len(part.texts) for part in parts)
    click.echo(tr("tune-parts", dev=dev, test=test))
    params = (*vars(tuned.weights).values(), *vars(tuned.hubs).values())
    names = ("later", "listed", "synonym", "alpha", "skewed", "growth")
    click.echo(tr("tune-chosen", **{n: f"{x:g}" for n, x in zip(names, params, strict=True)}))
    codes = ("eval-queries", "tune-before", "tune-after", "tune-more")
    rows = [
        [gain.metric, str(gain.queries), _interval(gain.before), _interval(gain.after),
         _interval(gain.more, "+.3f"), f"p {gain.corrected:.4f}"]
        for gain in tuning.gains
    ]  # fmt: skip
    _print_table(["", *map(tr, codes), "Holm"], rows)
    if precision is None:
        return
    if tuning.precision and tuning.recall:
        figures = {"precision": _interval(tuning.precision), "recall": _interval(tuning.recall)}
        threshold = f"{tuned.min_confidence:g}"
        click.echo(tr("tune-threshold", threshold=threshold, target=f"{precision:g}", **figures))
    else:
        click.echo(tr("tune-no-threshold", target=f"{precision:g}"))
