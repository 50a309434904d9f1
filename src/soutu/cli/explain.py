"""explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.options import (
    device_option,
    gallery_option,
    index_option,
    json_option,
    k_option,
    model_option,
    open_gallery,
)
from soutu.cli.render import plain, show_faults, show_record
from soutu.journal import entry
from soutu.query.choose import NOT_NEEDED, NOT_READ, TOO_MANY

if TYPE_CHECKING:
    from soutu.gallery.explain import Explanation


_REASONS = {
    NOT_READ: "unused-not-read", NOT_NEEDED: "unused-not-needed", TOO_MANY: "unused-too-many",
}  # fmt: skip


@click.command()
@click.argument("query")
@k_option
@gallery_option
@index_option
@model_option
@device_option
@json_option
def explain(
    query: str, gallery: str | None, index_dir: str | None, as_json: bool, **settings: object
) -> None:
    """Say why QUERY finds what it finds · 解释搜索结果"""
    with open_gallery(gallery, index_dir, settings) as opened:
        found = opened.explain(query)
    if as_json:
        show_record({"understood": found.understood, "roles": found.roles, "shares": found.shares,
                     "agreement": found.result.agreement, "fusion": found.result.fusion,
                     "timings": dict(found.result.timings),
                     "expanders": entry(found.result)["expanders"]})  # fmt: skip
    else:
        _show(found)
    show_faults(found.result)


def _show(found: Explanation) -> None:
    for one in found.understood:
        words = " ".join(f"{word}({english})" if english else word for word, english in one.words)
        told = {"language": one.language, "length": one.length, "words": plain(words)}
        click.echo(say("explain-understood", text=plain(one.text), **told))
    for role in found.roles:
        variant = role.variant
        mark = "·" if variant.unused else "✓"
        click.echo(f" {mark} {variant.weight:.2f}  {plain(variant.text)}  [{variant.source}]")
        if variant.unused:
            click.echo(f"     {say(_REASONS[variant.unused])}")
        shown = ", ".join(f"{plain(path)} {score:.4f}" for path, score in role.found)
        click.echo(f"     → {shown}")
    for ran in found.result.expanders:
        ms = f"{ran.ms:.2f}"
        click.echo(say("explain-expander", name=ran.name, ms=ms, proposed=ran.proposed))
    times = ", ".join(f"{name} {value}" for name, value in found.result.timings.items())
    agreement = f"{found.result.agreement:.2f}"
    click.echo(say("explain-fused", fusion=found.result.fusion, agreement=agreement, times=times))
    for share in found.shares:
        hit = share.hit
        parts = " ".join(f"{value:+.4f} {plain(text)}" for text, value in share.parts)
        click.echo(f"{hit.rank:>3}. {hit.score:.4f}  {plain(hit.path)}  = {parts}")
