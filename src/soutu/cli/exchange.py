"""import, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from soutu.cli.options import (
    device_option,
    gallery_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
    progress_bar,
)
from soutu.cli.render import show_record
from soutu.exchange import EXPORTS, FORMATS
from soutu.i18n import tr

_imported = click.option(
    "--format", "form", type=click.Choice(FORMATS), help="What lies there, if not recognised."
)
_exported = click.option(
    "--format", "form", type=click.Choice(EXPORTS), default="npy", help="Of the files (npy)."
)
_workers = click.option("--workers", type=int, metavar="N", help="Threads that read (one a core).")


@click.command("import")
@click.argument("path")
@_imported
@_workers
@gallery_option
@index_option
@model_option
@json_option
def import_(
    path: str,
    form: str | None,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Index the embeddings in PATH, without encoding again · 导入已有向量"""
    with (
        open_gallery(gallery, index_dir, settings) as opened,
        progress_bar("importing") as progress,
    ):
        report = opened.import_embeddings(path, form=form, progress=progress)
        captions_file = opened.store.get_meta("captions_file")
    counts = asdict(report)
    folder = opened.root
    click.echo(tr("imported", folder=folder, model=opened.model, **counts), err=True)
    if report.absent:
        click.echo(tr("imported-absent", folder=folder, absent=report.absent), err=True)
    if report.silent:
        click.echo(tr("imported-silent", folder=folder, silent=report.silent), err=True)
    if report.captions and captions_file:
        click.echo(tr("imported-file", file=captions_file), err=True)
    if as_json:
        show_record(counts)


@click.command("export")
@click.argument("folder", metavar="DIR")
@_exported
@gallery_option
@index_option
@model_option
@device_option
@json_option
def export(
    folder: str,
    form: str,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Write the gallery's embeddings into DIR, for use elsewhere · 导出向量"""
    with open_gallery(gallery, index_dir, settings) as opened:
        report = opened.export_embeddings(Path(folder), form=form)
        model = opened.model
    files = ", ".join(report.files)
    click.echo(tr("exported", folder=folder, rows=report.rows, model=model, files=files), err=True)
    if report.uncaptioned:
        click.echo(tr("exported-uncaptioned", count=report.uncaptioned), err=True)
    if report.not_encoded:
        click.echo(tr("exported-not-encoded", count=report.not_encoded), err=True)
    if as_json:
        show_record(report)
