"""index, search, caption, info."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from soutu.cli.language import prefer_language, say
from soutu.cli.render import plain, show, show_json, show_paths, show_record

if TYPE_CHECKING:
    from soutu.gallery import Gallery
    from soutu.indexing import IndexReport
    from soutu.types import SearchResult

NOTHING_FOUND = 1

_gallery = click.option(
    "--gallery", "-g", metavar="FOLDER", help="Where the pictures are (or above)."
)
_index_dir = click.option(
    "--index", "index_dir", metavar="DIR", help="Keep the index there instead of in .soutu."
)
_model = click.option("--model", metavar="NAME", help="Model name, or the path of a bundle.")
_device = click.option("--device", metavar="NAME", help="auto, cpu, cuda, mps or coreml.")
_k = click.option("-k", type=int, metavar="N", help="How many results (5).")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")
_paths = click.option("--paths-only", is_flag=True, help="Only the paths, one a line.")
_null = click.option("--null", "-0", is_flag=True, help="With --paths-only: NUL after each path.")

Options = dict[str, object]


def _open(
    folder: str | None, index_dir: str | None, settings: Options, *, once: bool = False
) -> Gallery:
    from soutu.gallery import Gallery

    gallery = Gallery.open(folder, index=index_dir, settings=settings, once=once)
    prefer_language(gallery.config.lang)
    return gallery


@click.command()
@click.argument("folder", required=False)
@click.option("--captions", metavar="FILE", help="CSV that begins image_path,caption.")
@click.option("--encoding", metavar="NAME", help="Of the captions file, if not UTF-8.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--max-pixels", type=int, metavar="N", help="Larger pictures are left out.")
@click.option("--workers", type=int, metavar="N", help="Threads that decode (one a core).")
@click.option("--batch", type=int, metavar="N", help="Pictures encoded at once.")
@_index_dir
@_model
@_device
@_json
def index(
    folder: str | None,
    captions: str | None,
    encoding: str | None,
    dry_run: bool,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Index the pictures in FOLDER, or bring its index up to date · 建立或更新索引"""
    if dry_run:
        _show_plan(_open(folder, index_dir, settings), as_json=as_json)
        return
    with _open(folder, index_dir, settings) as gallery, _progress("indexing") as progress:
        report = gallery.index(captions, encoding=encoding, progress=progress)
    _show_report(report, gallery)
    if as_json:
        show_record(_counts(report))


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


@contextmanager
def _progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, called ``doing``; nothing where that is no terminal."""
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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(say(doing), total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


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


def _show_report(report: IndexReport, gallery: Gallery) -> None:
    for problem in (*report.failed, *report.caption_problems):
        click.echo(say("skipped", message=problem), err=True)
    counts = {name: value for name, value in _counts(report).items() if name != "generation"}
    click.echo(say("indexed", folder=gallery.root, model=gallery.model, **counts), err=True)


@click.command()
@click.argument("query", required=False)
@click.option("--image", metavar="PATH", help="Search by a picture instead of a text.")
@click.option("--where", metavar="FILTER", help="Narrow: \"folder = '2024' and width > 2000\".")
@click.option("--expand/--no-expand", default=None, help="Query expansion (on).")
@click.option("--expansions", metavar="FILE", help="YAML rules laid over the built-in ones.")
@_k
@_gallery
@_index_dir
@_model
@_device
@_json
@_paths
@_null
def search(
    query: str | None,
    image: str | None,
    where: str | None,
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
    with _open(gallery, index_dir, settings, once=True) as opened:
        result = opened.search(query, image=image, where=where)
    return _answer(result, opened, as_json=as_json, paths_only=paths_only, null=null)


@click.command()
@click.argument("image")
@_k
@_gallery
@_index_dir
@_model
@_device
@_json
def caption(
    image: str, gallery: str | None, index_dir: str | None, as_json: bool, **settings: object
) -> int:
    """Find the gallery's captions that fit the picture IMAGE · 以图找文字"""
    with _open(gallery, index_dir, settings, once=True) as opened:
        result = opened.captions(image)
    return _answer(result, opened, as_json=as_json)


def _answer(
    result: SearchResult,
    gallery: Gallery,
    *,
    as_json: bool,
    paths_only: bool = False,
    null: bool = False,
) -> int:
    if as_json:
        show_json(result)
    elif paths_only:
        show_paths(result, gallery.root, null=null)
    elif result.hits:
        show(result)
    if gallery.journal_fault:
        click.echo(say("journal-fault", fault=gallery.journal_fault), err=True)
    if not result.hits:
        code = "no-captions" if result.target == "captions" else "nothing-found"
        click.echo(say(code, folder=gallery.root), err=True)
        return NOTHING_FOUND
    return 0


@click.command()
@_gallery
@_index_dir
@_json
def info(gallery: str | None, index_dir: str | None, as_json: bool) -> None:
    """Show what the gallery holds · 显示图库信息"""
    found = _open(gallery, index_dir, {}).info()
    if as_json:
        show_record(found)
        return
    state, model = found.state, found.model
    click.echo(
        say(
            "info",
            root=found.root,
            home=found.home,
            model=model.name,
            dim=model.dim,
            languages=", ".join(model.languages) or "?",
            license=model.license or "?",
            spaces=", ".join(found.spaces),
            images=state.images,
            captions=state.captions,
            captions_file=found.captions_file or "-",
            generation=state.generation,
            size=f"{found.bytes_on_disk / 1e6:.1f}",
        )
    )


COMMANDS = (index, search, caption, info)
