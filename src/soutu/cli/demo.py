"""``soutu demo``: index and search the package's own pictures with its own model, offline."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from soutu.cli.render import sanitize, show_result
from soutu.i18n import tr
from soutu.images.scan import demo_data, sample_queries
from soutu.models.bundle import DEMO, PHOTO

PICTURE = "images/005.jpg"


@click.command()
@click.option("--keep", metavar="FOLDER", help="Keep the demo gallery in FOLDER.")
def demo(keep: str | None) -> int:
    """Index 50 drawn pictures and run ten sample queries, offline · 离线演示"""
    if keep:
        return _play(Path(keep))
    with tempfile.TemporaryDirectory(prefix="soutu-demo-") as folder:
        return _play(Path(folder))


def _play(folder: Path) -> int:
    from soutu.gallery import LOG_FILE, Gallery

    shutil.copytree(demo_data() / "images", folder / "images", dirs_exist_ok=True)
    shutil.copyfile(demo_data() / "captions.csv", folder / "captions.csv")
    with Gallery.open(folder, model=DEMO, index=folder / ".soutu") as gallery:
        report = gallery.index(folder / "captions.csv")
        click.echo(tr("demo-indexed", found=report.files, model=gallery.model, photo=PHOTO))
        right = 0
        queries = sample_queries()
        for query, answers in queries:
            result = gallery.search(query, k=3)
            hit = result.hits[0].path in answers
            right += hit
            click.secho(f"\n{'✓' if hit else '✗'} {sanitize(query)}", bold=True)
            show_result(result)
        click.secho(f"\n{PICTURE} →", bold=True)
        show_result(gallery.captions(folder / PICTURE, k=3))
        click.echo("\n" + tr("demo-result", right=right, total=len(queries)))
        log = (gallery.home / LOG_FILE).read_text(encoding="utf-8").splitlines()
        click.echo(tr("demo-log", lines=len(log), start=log[-1][:150]))
    return 0
