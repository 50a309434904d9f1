"""Figures of evaluations as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.render import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soutu.evaluation import Difference, Evaluation, Outcome

SHOWN = ("hit@1", "hit@5", "hit@10", "mAP")
_DIRECTIONS = {"text-to-image": "eval-text-to-image", "image-to-text": "eval-image-to-text"}


def show(outcomes: Sequence[Outcome], told: Evaluation | None) -> None:
    """The figures that are looked at first; the others are in the JSON and in the files."""
    header = [*SHOWN, say("eval-median-rank")]
    rows = [
        [
            *group_of(one),
            str(len(one.queries)),
            *(_figure(one, name, "{:.3f}") for name in SHOWN),
            _figure(one, "rank", "{:g}"),
        ]
        for one in outcomes
    ]
    print_table(["", "", "", say("eval-queries"), *header], rows)
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


def show_differences(
    differences: Sequence[Difference], other: str, heading: str, **told: object
) -> None:
    """Those with ``other``, below the sentence ``heading``."""
    compared = [one for one in differences if one.other == other]
    for metric in dict.fromkeys(one.metric for one in compared):
        told |= {"metric": metric, "other": plain(other), "count": len(differences)}
        click.echo(say(heading, **told))
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


def group_of(one: Outcome | Difference) -> tuple[str, str, str]:
    return say(_DIRECTIONS[one.direction]), plain(one.lang), plain(one.kind)


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
