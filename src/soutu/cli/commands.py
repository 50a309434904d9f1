"""index: bring an index up to date."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.on_ray import index_records, show_embedded, spread
from soutu.cli.options import (
    Options,
    device_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
    store_option,
)
from soutu.cli.progress import progress_bar
from soutu.cli.render import plain, show_record
from soutu.cli.upkeep import show_promises
from soutu.errors import SoutuError

if TYPE_CHECKING:
    from soutu.gallery import Gallery
    from soutu.indexing import IndexReport


@click.command()
@click.argument("folder", required=False)
@click.option("--captions", metavar="FILE", help="CSV that begins image_path,caption.")
@click.option("--encoding", metavar="NAME", help="Of the captions file, if not UTF-8.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--watch", is_flag=True, help="Go on, and index again whenever something changes.")
@click.option("--max-pixels", type=int, metavar="N", help="Larger pictures are left out.")
@click.option("--workers", type=int, metavar="N", help="Decoding threads, or Ray's encoders.")
@click.option("--batch", type=int, metavar="N", help="Pictures encoded at once.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: on many cores or machines.",
)
@click.option("--address", metavar="ADDR", help="Of a Ray cluster (one on this machine).")
@click.option("--shards", metavar="DIR", help="Keep what Ray embeds as Parquet there.")
@index_option
@store_option
@model_option
@device_option
@json_option
def index(
    folder: str | None,
    captions: str | None,
    encoding: str | None,
    dry_run: bool,
    watch: bool,
    engine: str,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Index the pictures in FOLDER, or bring its index up to date · 建立或更新索引"""
    on_ray = spread(settings, engine, alone=watch or dry_run)
    if on_ray and _is_records(folder):
        index_records(str(folder), on_ray, index_dir, settings, as_json=as_json)
        return
    if dry_run:
        _show_plan(open_gallery(folder, index_dir, settings), as_json=as_json)
        return
    with open_gallery(folder, index_dir, settings) as gallery:
        if watch:
            _watch(gallery, captions, encoding, as_json=as_json)
            return
        with progress_bar("embedding" if on_ray else "indexing") as progress:
            report = gallery.index(captions, encoding=encoding, progress=progress, on_ray=on_ray)
    if on_ray:
        show_embedded(on_ray, gallery.root)
    _show_report(report, gallery, as_json=as_json)


def _is_records(folder: str | None) -> bool:
    from soutu.gallery.on_ray import is_records

    return folder is not None and is_records(folder)


def _watch(gallery: Gallery, captions: str | None, encoding: str | None, *, as_json: bool) -> None:
    """Until Ctrl-C, which is how this is meant to end."""
    click.echo(say("watching", folder=gallery.root), err=True)
    with suppress(KeyboardInterrupt):
        for done in gallery.watch(captions, encoding=encoding):
            if isinstance(done, SoutuError):
                click.echo(say("error", message=done), err=True)
            else:
                _show_report(done, gallery, as_json=as_json)
    click.echo(say("watched", folder=gallery.root), err=True)


def _show_plan(gallery: Gallery, *, as_json: bool) -> None:
    plan = gallery.plan()
    if as_json:
        counts = {"found": plan.found, "unreadable": len(plan.unreadable)}
        show_record({"encode": plan.encode, "renamed": plan.renamed, "removed": plan.removed,
                     "duplicates": plan.duplicates, **counts})  # fmt: skip
        return
    for path in plan.encode:
        click.echo(f"+ {plain(path)}")
    for old, new in plan.renamed:
        click.echo(f"→ {plain(old)} → {plain(new)}")
    for path in plan.removed:
        click.echo(f"- {plain(path)}")
    for path in plan.duplicates:
        click.echo(f"= {plain(path)}")
    counts = {name: len(getattr(plan, name)) for name in ("encode", "renamed", "removed")}
    more = {"duplicates": len(plan.duplicates), "unreadable": len(plan.unreadable)}
    click.echo(say("index-plan", folder=gallery.root, found=plan.found, **counts, **more), err=True)


def _counts(report: IndexReport) -> Options:
    return {
        "found": report.found,
        "encoded": report.encoded,
        "unchanged": report.unchanged,
        "renamed": report.renamed,
        "removed": report.removed,
        "duplicates": report.duplicates,
        "failed": len(report.failed),
        "captions": report.captions,
        "caption_problems": len(report.caption_problems),
        "generation": report.generation,
    }


def _show_report(report: IndexReport, gallery: Gallery, *, as_json: bool) -> None:
    for problem in (*report.failed, *report.caption_problems):
        click.echo(say("skipped", message=problem), err=True)
    counts = {name: value for name, value in _counts(report).items() if name != "generation"}
    click.echo(say("indexed", folder=gallery.root, model=gallery.model, **counts), err=True)
    if report.built:
        show_promises(gallery.info(), err=True)
    if as_json:
        show_record(_counts(report))
