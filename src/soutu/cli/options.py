"""How far a long run is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from soutu.i18n import prefer_language, tr

if TYPE_CHECKING:
    from soutu.gallery import Gallery

# Options that several commands share, and opening the gallery that they name.


gallery_option = click.option(
    "--gallery", "-g", metavar="FOLDER", help="Where the pictures are (or above)."
)
index_option = click.option(
    "--index", "index_dir", metavar="DIR", help="Keep the index there instead of in .soutu."
)
store_option = click.option(
    "--store", metavar="URL", help="Vectors in Milvus: milvus://HOST:19530/NAME or FILE.db."
)
model_option = click.option("--model", metavar="NAME", help="Model name, or the path of a bundle.")
device_option = click.option("--device", metavar="NAME", help="auto, cpu, cuda, mps or coreml.")
k_option = click.option("-k", type=int, metavar="N", help="How many results (5).")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
paths_option = click.option("--paths-only", is_flag=True, help="Only the paths, one a line.")
null_option = click.option(
    "--null", "-0", is_flag=True, help="With --paths-only: NUL after each path."
)

Options = dict[str, object]


def open_gallery(
    folder: str | None, index_dir: str | None, settings: Options, use: str = "some"
) -> Gallery:
    from soutu.gallery import Gallery, Use

    gallery = Gallery.open(folder, index=index_dir, settings=settings, use=Use(use))
    prefer_language(gallery.config.lang)
    return gallery


@contextmanager
def progress_bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, called ``doing``; nothing where that is no terminal."""
    if not sys.stderr.isatty():  # no need to import what would draw it
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(tr(doing), total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
