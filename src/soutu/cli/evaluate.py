"""eval."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.options import Options, device_option, json_option, model_option
from soutu.cli.progress import progress_bar
from soutu.cli.render import plain, show_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soutu.evaluation import Collection, Difference, Evaluation, Outcome

SHOWN = ("hit@1", "hit@5", "hit@10", "mAP")
_DIRECTIONS = {"text-to-image": "eval-text-to-image", "image-to-text": "eval-image-to-text"}


@click.command("eval")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--layout", metavar="NAME", help="How the collection lies there, if it is not seen.")
@click.option("--split", metavar="NAME", help="Of a collection with several (test).")
@click.option("--lang", metavar="NAME", help="Only texts in this language: zh, en …")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option("--expand/--no-expand", default=None, help="Query expansion (on).")
@click.option("--fusion", metavar="NAME", help="auto, mean (all variants), balanced or anchored.")
@click.option("--expansions", metavar="FILE", help="YAML rules laid over the built-in ones.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the result.")
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
    out: Path | None,
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
    from soutu.evaluation import check_metrics, compare, is_result, read_outcomes

    check_metrics(metrics)
    others = {str(other): read_outcomes(other) for other in against}
    told = None
    if is_result(folder):
        outcomes = read_outcomes(folder)
    else:
        from soutu.evaluation import open_collection

        collection = open_collection(folder, layout=layout, split=split, lang=lang)
        collection = collection.first(limit) if limit else collection
        told = _judge(collection, settings, out, depth=depth, work=work)
        outcomes = told.outcomes
    differences = compare(outcomes, others, metrics)
    if as_json:
        _show_json(outcomes, told, differences)
        return
    _show(outcomes, told)
    for other in others:
        _show_differences(differences, other)
    if out and told:
        click.echo(say("eval-written", folder=out), err=True)


def _judge(
    collection: Collection, settings: Options, out: Path | None, *, depth: int, work: Path | None
) -> Evaluation:
    from soutu.assemble import DEFAULT, build_encoder, build_expander, precision
    from soutu.config import load_config
    from soutu.evaluation import How, evaluate, result_folder, write
    from soutu.indexing.pipeline import Pace

    config = load_config(None, settings)
    model = config.model or DEFAULT
    encoder = build_encoder(model, config.device)
    pace = Pace(config.workers or 0, config.batch or 0, config.max_pixels)
    with ExitStack() as stack:
        made = stack.enter_context(result_folder(out)) if out else None
        progress = stack.enter_context(progress_bar("eval-encoding"))
        how = How(
            expander=build_expander(config),
            fusion=config.fusion,
            pace=pace,
            device=config.device,
            precision=precision(model),
            work=work,
            progress=progress,
        )
        found = evaluate(collection, encoder, how, runs=made, depth=depth)
        if made:
            write(made, found)
    return found


def _show_json(
    outcomes: Sequence[Outcome], told: Evaluation | None, differences: Sequence[Difference]
) -> None:
    from soutu.evaluation import figures

    record = {
        "settings": told.settings if told else None,
        "outcomes": tuple(map(figures, outcomes)),
        "differences": tuple(map(asdict, differences)),
    }
    show_record(record)


def _show(outcomes: Sequence[Outcome], told: Evaluation | None) -> None:
    """The figures that are looked at first; the others are in the JSON and in the files."""
    header = [*SHOWN, say("eval-median-rank")]
    rows = [
        [
            *_group(one),
            str(len(one.queries)),
            *(_figure(one, name, "{:.3f}") for name in SHOWN),
            _figure(one, "rank", "{:g}"),
        ]
        for one in outcomes
    ]
    _print_table(["", "", "", say("eval-queries"), *header], rows)
    if told:
        there, model = told.settings["collection"], told.settings["model"]
        assert isinstance(there, dict)
        assert isinstance(model, dict)
        counts = {name: there[name] for name in ("name", "layout", "pictures", "texts")}
        left_out = sum(one.unanswered for one in outcomes)
        click.echo(say("eval-judged", model=model["name"], unanswered=left_out, **counts), err=True)


def _figure(outcome: Outcome, metric: str, form: str) -> str:
    figure = outcome.figures.get(metric)
    if figure is None:
        return "-"
    value, low, high = (form.format(x) for x in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high})"


def _show_differences(differences: Sequence[Difference], other: str) -> None:
    compared = [one for one in differences if one.other == other]
    for metric in dict.fromkeys(one.metric for one in compared):
        told = {"metric": metric, "folder": plain(other), "count": len(differences)}
        click.echo(say("eval-against", **told))
        rows = [
            [
                *_group(one),
                "{:+.3f} ({:+.3f}–{:+.3f})".format(*vars(one.more).values()),
                f"p {one.p:.4f}",
                f"p {one.corrected:.4f} (Holm)",
            ]
            for one in compared
            if one.metric == metric
        ]
        _print_table(None, rows)


def _group(one: Outcome | Difference) -> tuple[str, str, str]:
    return say(_DIRECTIONS[one.direction]), plain(one.lang), plain(one.kind)


def _print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
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
