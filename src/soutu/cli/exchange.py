"""``soutu import`` and ``soutu export``: embeddings from and for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from soutu.cli.main import (
    device_option,
    gallery_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
)
from soutu.cli.render import progress_bar, show_json
from soutu.exchange import EXPORTS, FORMATS
from soutu.i18n import tr


@click.command("import")
@click.argument("path")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Format of PATH, if it is not recognised."
)
@click.option("--workers", type=int, metavar="N", help="Reading threads (one per core).")
@gallery_option
@index_option
@model_option
@json_option
def import_(
    path: str,
    form: str | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Index the embeddings in PATH without encoding again · 导入已有向量"""
    with (
        open_gallery(flags) as opened,
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
        show_json(counts)


@click.command("export")
@click.argument("folder", metavar="DIR")
@click.option(
    "--format", "form", type=click.Choice(EXPORTS), default="npy", help="Format to write (npy)."
)
@gallery_option
@index_option
@model_option
@device_option
@json_option
def export(
    folder: str,
    form: str,
    as_json: bool,
    **flags: object,
) -> None:
    """Write the gallery's embeddings into DIR · 导出向量"""
    with open_gallery(flags) as opened:
        report = opened.export_embeddings(Path(folder), form=form)
        model = opened.model
    files = ", ".join(report.files)
    click.echo(tr("exported", folder=folder, rows=report.rows, model=model, files=files), err=True)
    if report.uncaptioned:
        click.echo(tr("exported-uncaptioned", count=report.uncaptioned), err=True)
    if report.not_encoded:
        click.echo(tr("exported-not-encoded", count=report.not_encoded), err=True)
    if as_json:
        show_json(report)
