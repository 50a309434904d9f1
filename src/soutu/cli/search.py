"""explain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.options import (
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
from soutu.cli.render import plain, show_faults, show_json, show_paths, show_record, show_result
from soutu.i18n import tr
from soutu.query.expansion import NOT_NEEDED, NOT_READ, TOO_MANY
from soutu.searchlog.record import Provenance, to_record

if TYPE_CHECKING:
    from soutu.client import Client
    from soutu.gallery import Gallery
    from soutu.search.explain import Explanation
    from soutu.types import SearchResult

# Searching a gallery that a server serves.


server_option = click.option(
    "--server", metavar="URL", envvar="SOUTU_SERVER", help="Ask the `soutu serve` at URL instead."
)
TOKEN = "SOUTU_TOKEN"


def open_client(url: str, said: Mapping[str, object]) -> Client:
    """A client of the server at ``url``. ``said`` are options that a server cannot be told."""
    from soutu.client import Client

    names = ["--" + name.replace("_", "-") for name, value in said.items() if value]
    if names:
        raise click.UsageError(tr("client-only-here", names=", ".join(names)))
    return Client(url, os.environ.get(TOKEN, ""))


# search, caption: in a gallery here, or in one that a server serves.


NOTHING_FOUND = 1
K = 5  # of a server; a gallery's settings say it for themselves


@dataclass(frozen=True)
class SearchTarget:
    """Where a search was made: its name for people, how it was set up, the folder that paths are
    meant from (None: one that is not here), and why it could not be logged."""

    name: str | Path
    setup: Provenance = field(default_factory=Provenance)
    root: Path | None = None
    journal_fault: OSError | None = None


@dataclass(frozen=True)
class OutputFormat:
    """How results are to be shown."""

    as_json: bool = False
    paths_only: bool = False
    null: bool = False


@click.command()
@click.argument("query", required=False)
@click.option("--image", metavar="PATH", help="Search by a picture instead of a text.")
@click.option("--where", metavar="FILTER", help="Narrow: \"folder = '2024' and width > 2000\".")
@click.option("--expand/--no-expand", default=None, help="Query expansion (on).")
@click.option("--expansions", metavar="FILE", help="YAML rules laid over the built-in ones.")
@click.option("--fusion", metavar="NAME", help="auto, mean (all), balanced, anchored or senses.")
@click.option("--correction", metavar="WHEN", help="Hold hubs back: auto, on or off.")
@click.option("--negatives", metavar="HOW", help="What a minus does: penalise or subtract.")
@click.option("--min-confidence", type=float, metavar="P", help="Less sure (0 to 1): no match.")
@click.option("--hybrid", metavar="NAME", help="Captions' words count too: auto, on or off.")
@click.option("--also", multiple=True, metavar="MODEL", help="Ask this model too (repeatable).")
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
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
    paths_only: bool,
    null: bool,
    **settings: object,
) -> int:
    """Find pictures by QUERY, Chinese or English, or by a picture · 以文或图搜图"""
    if (query is None) == (image is None):
        raise click.UsageError(tr("query-or-image"))
    form = OutputFormat(as_json, paths_only, null)
    if server:
        client = open_client(
            server, {"gallery": gallery, "index": index_dir, "also": also, **settings}
        )
        result = client.search(
            query, image=image, k=_or(k), where=where, min_confidence=min_confidence,
            expand=expand is not False,
        )  # fmt: skip
        return _answer(result, SearchTarget(server), form)
    settings |= {"k": k, "min_confidence": min_confidence, "expand": expand}
    with open_gallery(gallery, index_dir, settings, "once") as opened:
        result = opened.search(query, image=image, where=where, also=also)
        return _answer(result, _place(opened), form)


@click.command()
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
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> int:
    """Find the gallery's captions that fit the picture IMAGE · 以图找文字"""
    if server:
        client = open_client(server, {"gallery": gallery, "index": index_dir, **settings})
        return _answer(
            client.captions(image, k=_or(k)), SearchTarget(server), OutputFormat(as_json)
        )
    settings["k"] = k
    with open_gallery(gallery, index_dir, settings, "once") as opened:
        return _answer(opened.captions(image), _place(opened), OutputFormat(as_json))


def _or(k: int | None) -> int:
    return K if k is None else k


def _place(gallery: Gallery) -> SearchTarget:
    return SearchTarget(gallery.root, gallery.setup, gallery.root, gallery.journal_fault)


def _answer(result: SearchResult, place: SearchTarget, form: OutputFormat) -> int:
    if form.as_json:
        show_json(result, place.setup)
    elif form.paths_only:
        show_paths(result, place.root, null=form.null)
    elif result.hits:
        show_result(result)
    show_faults(result)
    if place.journal_fault:
        click.echo(tr("journal-fault", fault=place.journal_fault), err=True)
    if result.min_confidence and result.confidence is None:
        click.echo(tr("confidence-unknown", folder=place.name), err=True)
    if not result.hits:
        click.echo(_why_nothing(result, place), err=True)
        return NOTHING_FOUND
    return 0


def _why_nothing(result: SearchResult, place: SearchTarget) -> str:
    if result.confidence is not None and result.confidence < result.min_confidence:
        sure = f"{result.confidence:.0%}"
        return tr("no-match", query=plain(result.query.raw), confidence=sure)
    code = "no-captions" if result.target == "captions" else "nothing-found"
    return tr(code, folder=place.name)


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
                     "expanders": to_record(found.result)["expanders"]})  # fmt: skip
    else:
        _show(found)
    show_faults(found.result)


def _show(found: Explanation) -> None:
    for one in found.understood:
        words = " ".join(f"{word}({english})" if english else word for word, english in one.words)
        told = {"language": one.language, "length": one.length, "words": plain(words)}
        click.echo(tr("explain-understood", text=plain(one.text), **told))
    for role in found.roles:
        variant = role.variant
        mark = "·" if variant.unused else "✓"
        click.echo(f" {mark} {variant.weight:.2f}  {plain(variant.text)}  [{variant.source}]")
        if variant.unused:
            click.echo(f"     {tr(_REASONS[variant.unused])}")
        shown = ", ".join(f"{plain(path)} {score:.4f}" for path, score in role.found)
        click.echo(f"     → {shown}")
    for ran in found.result.expanders:
        ms = f"{ran.ms:.2f}"
        click.echo(tr("explain-expander", name=ran.name, ms=ms, proposed=ran.proposed))
    times = ", ".join(f"{name} {value}" for name, value in found.result.timings.items())
    agreement = f"{found.result.agreement:.2f}"
    click.echo(tr("explain-fused", fusion=found.result.fusion, agreement=agreement, times=times))
    for share in found.shares:
        hit = share.hit
        parts = " ".join(f"{value:+.4f} {plain(text)}" for text, value in share.parts)
        click.echo(f"{hit.rank:>3}. {hit.score:.4f}  {plain(hit.path)}  = {parts}")
