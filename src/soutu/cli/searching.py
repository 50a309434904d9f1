"""search, caption: in a gallery here, or in one that a server serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
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
    null_option,
    open_gallery,
    paths_option,
    store_option,
)
from soutu.cli.remote import open_client, server_option
from soutu.cli.render import plain, show, show_faults, show_json, show_paths
from soutu.journal import Setup

if TYPE_CHECKING:
    from soutu.client.client import Further
    from soutu.gallery import Gallery
    from soutu.types import SearchResult

NOTHING_FOUND = 1
K = 5  # of a server; a gallery's settings say it for themselves


@dataclass(frozen=True)
class Place:
    """Where a search was made: its name for people, how it was set up, the folder that paths are
    meant from (None: one that is not here), and why it could not be logged."""

    name: str | Path
    setup: Setup = field(default_factory=Setup)
    root: Path | None = None
    journal_fault: OSError | None = None


@dataclass(frozen=True)
class Form:
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
        raise click.UsageError(say("query-or-image"))
    form = Form(as_json, paths_only, null)
    if server:
        client = open_client(
            server, {"gallery": gallery, "index": index_dir, "also": also, **settings}
        )
        further: Further = {} if expand is None else {"expand": expand}
        result = client.search(
            query, image=image, k=_or(k), where=where, min_confidence=min_confidence, **further
        )
        return _answer(result, Place(server), form)
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
        return _answer(client.captions(image, k=_or(k)), Place(server), Form(as_json))
    settings["k"] = k
    with open_gallery(gallery, index_dir, settings, "once") as opened:
        return _answer(opened.captions(image), _place(opened), Form(as_json))


def _or(k: int | None) -> int:
    return K if k is None else k


def _place(gallery: Gallery) -> Place:
    return Place(gallery.root, gallery.setup, gallery.root, gallery.journal_fault)


def _answer(result: SearchResult, place: Place, form: Form) -> int:
    if form.as_json:
        show_json(result, place.setup)
    elif form.paths_only:
        show_paths(result, place.root, null=form.null)
    elif result.hits:
        show(result)
    show_faults(result)
    if place.journal_fault:
        click.echo(say("journal-fault", fault=place.journal_fault), err=True)
    if result.min_confidence and result.confidence is None:
        click.echo(say("confidence-unknown", folder=place.name), err=True)
    if not result.hits:
        click.echo(_why_nothing(result, place), err=True)
        return NOTHING_FOUND
    return 0


def _why_nothing(result: SearchResult, place: Place) -> str:
    if result.confidence is not None and result.confidence < result.min_confidence:
        sure = f"{result.confidence:.0%}"
        return say("no-match", query=plain(result.query.raw), confidence=sure)
    code = "no-captions" if result.target == "captions" else "nothing-found"
    return say(code, folder=place.name)
