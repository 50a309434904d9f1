"""``soutu search``, ``caption`` and ``explain``, in a gallery here or on a server."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from soutu.cli.main import (
    QueryCommand,
    device_option,
    gallery_option,
    index_option,
    json_option,
    k_option,
    model_option,
    null_option,
    open_gallery,
    paths_option,
    store_option,
)
from soutu.cli.render import sanitize, show_answer, show_expander_errors, show_json
from soutu.errors import MissingIndex
from soutu.i18n import tr
from soutu.query.expansion import NOT_NEEDED, NOT_READ, TOO_MANY
from soutu.searchlog.record import to_record
from soutu.text import EN, language

if TYPE_CHECKING:
    from soutu.client import Client
    from soutu.search.explain import Explanation

SERVER_K = 5  # results from a server; a gallery here has a setting for it
SKIP_REASONS = {
    NOT_READ: "unused-not-read",
    NOT_NEEDED: "unused-not-needed",
    TOO_MANY: "unused-too-many",
}

server_option = click.option(
    "--server", metavar="URL", envvar="SOUTU_SERVER", help="Search on the `soutu serve` at URL."
)


@click.command(cls=QueryCommand)
@click.argument("query", required=False)
@click.option("--image", metavar="PATH", help="Search by a picture instead of a text.")
@click.option(
    "--where", metavar="FILTER", help="Filter pictures: \"folder = '2024' and width > 2000\"."
)
@click.option("--expand/--no-expand", default=None, help="Expand the query into variants (on).")
@click.option("--expansions", metavar="FILE", help="YAML rules that override the built-in ones.")
@click.option(
    "--fusion", metavar="NAME", help="Fusion of variants: auto, mean, balanced or senses."
)
@click.option("--correction", metavar="WHEN", help="Hubness correction: auto, on or off.")
@click.option("--negatives", metavar="NAME", help="Negative terms penalise or subtract.")
@click.option(
    "--min-confidence", type=float, metavar="P", help="Return nothing below this confidence, 0–1."
)
@click.option("--hybrid", metavar="WHEN", help="Match the words of captions too: auto, on or off.")
@click.option("--also", multiple=True, metavar="MODEL", help="Search with this model too.")
@server_option
@k_option
@gallery_option
@index_option
@store_option
@model_option
@device_option
@json_option
@paths_option
@null_option
def search(
    query: str | None,
    image: str | None,
    where: str | None,
    also: tuple[str, ...],
    server: str | None,
    k: int | None,
    min_confidence: float | None,
    expand: bool | None,
    as_json: bool,
    paths_only: bool,
    null: bool,
    **flags: object,
) -> int:
    """Find pictures by QUERY, Chinese or English, or by a picture · 以文或图搜图"""
    if (query is None) == (image is None):
        raise click.UsageError(tr("query-or-image"))
    if server:
        client = _open_client(server, also=also, **flags)
        result = client.search(
            query,
            image=image,
            k=SERVER_K if k is None else k,
            where=where,
            min_confidence=min_confidence,
            expand=expand is not False,
        )
        return show_answer(result, server, as_json=as_json, paths_only=paths_only, null=null)
    flags |= {"k": k, "min_confidence": min_confidence, "expand": expand}

    def search_here() -> int:
        with open_gallery({**flags}, "cli") as opened:
            result = opened.search(query, image=image, where=where, also=also)
            return show_answer(
                result, opened.root, opened, as_json=as_json, paths_only=paths_only, null=null
            )

    try:
        return search_here()
    except MissingIndex as error:
        if as_json or paths_only or not _accepts_index(error):
            raise
        from soutu.cli.index import index_first

        index_first({**flags}, chinese=language(query or "") != EN)
        return search_here()


def _accepts_index(error: MissingIndex) -> bool:
    """Whether a person at a terminal wants the folder without an index to be indexed."""
    if error.code != "index-missing":  # in a store or an index folder that was named
        return False
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return False
    return click.confirm(tr("search-offer", folder=error.fields["folder"]), err=True)


@click.command(cls=QueryCommand)
@click.argument("image")
@server_option
@k_option
@gallery_option
@index_option
@store_option
@model_option
@device_option
@json_option
def caption(
    image: str,
    server: str | None,
    k: int | None,
    as_json: bool,
    **flags: object,
) -> int:
    """Find the gallery's captions that fit the picture IMAGE · 以图找文字"""
    if server:
        client = _open_client(server, **flags)
        result = client.captions(image, k=SERVER_K if k is None else k)
        return show_answer(result, server, as_json=as_json)
    with open_gallery({**flags, "k": k}, "cli") as opened:
        return show_answer(opened.captions(image), opened.root, opened, as_json=as_json)


def _open_client(url: str, **local_options: object) -> Client:
    """Open a client of the server at ``url``; refuse options that work only on a gallery here."""
    from soutu.client import Client

    given = [name.removesuffix("_dir") for name, value in local_options.items() if value]
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(tr("client-only-here", names=names))
    return Client(url, os.environ.get("SOUTU_TOKEN", ""))


@click.command(cls=QueryCommand)
@click.argument("query")
@k_option
@gallery_option
@index_option
@model_option
@device_option
@json_option
def explain(query: str, as_json: bool, **flags: object) -> None:
    """Explain what QUERY finds and why · 解释搜索结果"""
    with open_gallery(flags) as opened:
        explanation = opened.explain(query)
    result = explanation.result
    if as_json:
        show_json({"understood": explanation.understood, "roles": explanation.roles,
                   "shares": explanation.shares, "agreement": result.agreement,
                   "fusion": result.fusion, "timings": dict(result.timings),
                   "expanders": to_record(result)["expanders"]})  # fmt: skip
    else:
        _show_explanation(explanation)
    show_expander_errors(result)


def _show_explanation(explanation: Explanation) -> None:
    result = explanation.result
    for part in explanation.understood:
        words = " ".join(f"{word}({english})" if english else word for word, english in part.words)
        fields = {"language": part.language, "length": part.length, "words": sanitize(words)}
        click.echo(tr("explain-understood", text=sanitize(part.text), **fields))
    for role in explanation.roles:
        variant = role.variant
        mark = "·" if variant.unused else "✓"
        source = " · ".join(filter(None, (variant.source, role.tower)))
        click.echo(f" {mark} {variant.weight:.2f}  {sanitize(variant.text)}  [{source}]")
        if variant.unused:
            click.echo(f"     {tr(SKIP_REASONS[variant.unused])}")
        best = ", ".join(f"{sanitize(path)} {score:.4f}" for path, score in role.found)
        click.echo(f"     → {best}")
    for trace in result.expanders:
        ms = f"{trace.ms:.2f}"
        click.echo(tr("explain-expander", name=trace.name, ms=ms, proposed=trace.proposed))
    times = ", ".join(f"{name} {value}" for name, value in result.timings.items())
    agreement = f"{result.agreement:.2f}"
    click.echo(tr("explain-fused", fusion=result.fusion, agreement=agreement, times=times))
    for share in explanation.shares:
        hit = share.hit
        parts = " ".join(f"{value:+.4f} {sanitize(text)}" for text, value in share.parts)
        click.echo(f"{hit.rank:>3}. {hit.score:.4f}  {sanitize(hit.path)}  = {parts}")
