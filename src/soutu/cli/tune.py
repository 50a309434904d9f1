"""tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.figures import print_table
from soutu.cli.language import say
from soutu.cli.options import Options, device_option, json_option, model_option
from soutu.cli.progress import progress_bar
from soutu.cli.render import show_record
from soutu.errors import BadInput

if TYPE_CHECKING:
    from soutu.evaluation.judged import Collection
    from soutu.evaluation.statistics import Figure
    from soutu.evaluation.tuning import Tuning
    from soutu.query.expand import Expander, Weights


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
    from soutu.evaluation import open_collection
    from soutu.evaluation.tuning import halves

    if bool(dev) != bool(test) or (dev and dev == test):
        raise BadInput("tune-splits")
    if dev and test:
        parts = [open_collection(folder, layout=layout, split=s, lang=lang) for s in (dev, test)]
        parts = [part.first(limit) if limit else part for part in parts]
    else:
        whole = open_collection(folder, layout=layout, lang=lang)
        parts = [*halves(whole.first(limit) if limit else whole)]
    found = _tuned(parts, settings, work, precision)
    _write(out, found)
    if as_json:
        show_record(asdict(found))
        return
    _show(found, parts, precision)
    click.echo(say("tune-written", file=out), err=True)


def _tuned(
    parts: list[Collection], settings: Options, work: Path | None, precision: float | None
) -> Tuning:
    from tempfile import TemporaryDirectory

    from soutu.assemble import DEFAULT, build_encoder, build_expander
    from soutu.config import load_config
    from soutu.evaluation import How
    from soutu.evaluation.tuning import tune

    dev, test = parts
    config = load_config(None, {**settings, "expand": True})

    def expander(weights: Weights) -> Expander | None:
        return build_expander(config, weights=weights)

    encoder = build_encoder(config.model or DEFAULT, config.device)
    with TemporaryDirectory(prefix="soutu-tune-") as beside, progress_bar("eval-encoding") as bar:
        how = How(
            fusion=config.fusion, device=config.device, work=work or Path(beside), progress=bar
        )
        return tune(dev, test, encoder, how, expander, precision)


def _write(file: Path, found: Tuning) -> None:
    from soutu.query.tuned import to_yaml

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_yaml(found.tuned), encoding="utf-8", newline="\n")
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unwritable", folder=file, reason=reason) from fault


def _show(found: Tuning, parts: list[Collection], precision: float | None) -> None:
    tuned, weights, hubs = found.tuned, found.tuned.weights, found.tuned.hubs
    dev, test = (len(part.texts) for part in parts)
    click.echo(say("tune-parts", dev=dev, test=test))
    numbers = (f"{x:g}" for x in (*vars(weights).values(), *vars(hubs).values()))
    names = ("later", "listed", "synonym", "alpha", "skewed", "growth")
    click.echo(say("tune-chosen", **dict(zip(names, numbers, strict=True))))
    codes = ("eval-queries", "tune-before", "tune-after", "tune-more")
    header = ["", *map(say, codes)]
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
        click.echo(say("tune-threshold", **least, **figures))
    else:
        click.echo(say("tune-no-threshold", wished=least["wished"]))


def _shown(figure: Figure, sign: str = "") -> str:
    value, low, high = (f"{number:{sign}.3f}" for number in vars(figure).values())
    return f"{value} ({low}–{high})"
