"""replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.log import BROKEN
from soutu.cli.options import (
    device_option,
    gallery_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
)
from soutu.cli.render import show_record, visible
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.searchlog.replay import Cause, Replay, ReplayedSearch
    from soutu.types import IndexState

DIFFERENT = 1
SHOWN = 10  # searches that are listed; --json has all
_LEFT_OUT = {
    **BROKEN,
    "hashed": "replay-hashed",
    "array": "replay-array",
    "picture-gone": "replay-picture-gone",
    "failed": "replay-failed",
}
_CAUSES = {
    "model": "replay-model",
    "index": "replay-index",
    "expansion": "replay-expansion",
    "settings": "replay-settings",
    "reference": "replay-reference",
    "version": "replay-version",
    "picture": "replay-picture",
    "fault": "replay-fault",
    "unknown": "replay-unknown",
}
_WHAT = {
    "added": "replay-added",
    "changed": "replay-changed",
    "renamed": "replay-renamed",
    "removed": "replay-removed",
    "captions": "replay-captions",
    "vectors": "replay-vectors",
    "repaired": "replay-repaired",
    "older": "replay-older",
    "other": "replay-other",
    "space": "replay-space",
    "weights": "replay-weights",
    "package": "replay-package",
    "rules": "replay-rules",
    "lexicon": "replay-lexicon",
}


@click.command()
@click.argument("log", required=False, type=click.Path(path_type=Path))
@click.option("--against", metavar="MODEL", help="Compare the gallery's model with this one.")
@click.option("-k", type=click.IntRange(1), metavar="N", help="Compare the first N results.")
@click.option("--expansions", metavar="FILE", help="YAML rules laid over the built-in ones.")
@gallery_option
@index_option
@model_option
@device_option
@json_option
def replay(
    log: Path | None,
    against: str | None,
    k: int | None,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> int:
    """Run the searches in LOG again, and say what differs and why · 重放搜索日志

    Without LOG, the gallery's own. Exit code 0: every answer is the same; 1: some differ, or none
    could be compared. With --against, two models are compared on the logged queries; the gallery
    must be indexed with both."""
    with open_gallery(gallery, index_dir, settings) as opened:
        done = opened.replay(log, against=against, k=k)
    if as_json:
        show_record(done)
    elif against:
        _show_models(done, opened.model)
    else:
        _show(done)
    for why, count in done.left_out.items():
        places = ", ".join(map(visible, done.places[why]))
        click.echo(tr(_LEFT_OUT[why], count=count) + f" ({places})", err=True)
    if not done.searches:
        click.echo(tr("replay-none"), err=True)
    return DIFFERENT if done.different or not done.searches else 0


def _show(done: Replay) -> None:
    figures = {"count": done.searches, "same": done.same, "drift": _figure(done.drift, "{:.1e}")}
    click.echo(tr("replay-done", **figures))
    if done.different:
        moved = {"overlap": _figure(done.overlap), "correlation": _figure(done.correlation)}
        click.echo(tr("replay-moved", **moved))
    for counted in done.causes:
        click.echo(_cause(counted.cause, counted.searches))
    for one in done.different[:SHOWN]:
        click.echo(_line(one))
    if len(done.different) > SHOWN:
        click.echo(tr("replay-more", count=len(done.different) - SHOWN))


def _show_models(done: Replay, model: str) -> None:
    moved = {"overlap": _figure(done.overlap), "correlation": _figure(done.correlation)}
    names = {"model": model, "against": done.against}
    click.echo(tr("replay-models", count=done.searches, same=done.same, **names, **moved))
    for one in sorted(done.different, key=lambda one: one.overlap or 0)[:SHOWN]:
        click.echo(_line(one))


def _cause(cause: Cause, searches: int) -> str:
    what = tr(_WHAT[cause.what], count=cause.count) if cause.what in _WHAT else cause.what
    told = {"what": what, "before": _state(cause.before), "now": _state(cause.now)}
    paths = ", ".join(map(visible, cause.paths)) + (", …" if cause.count > len(cause.paths) else "")
    text = tr(_CAUSES[cause.kind], **told) + (f" ({paths})" if paths else "")
    effect = tr("replay-effect", count=searches) if searches else tr("replay-no-effect")
    return f"- {text} — {effect}"


def _state(told: str | IndexState) -> str:
    if isinstance(told, str):
        return visible(told)
    counts = {"generation": told.generation, "images": told.images, "captions": told.captions}
    return tr("replay-state", **counts)


def _line(one: ReplayedSearch) -> str:
    moved = {"overlap": _figure(one.overlap), "correlation": _figure(one.correlation)}
    kinds = ", ".join(dict.fromkeys(cause.kind for cause in one.causes))
    told = tr("replay-line", query=visible(one.query), place=visible(one.place), **moved)
    return f"  {told}" + (f"  [{kinds}]" if kinds else "")


def _figure(value: float | None, form: str = "{:.3f}") -> str:
    return "-" if value is None else form.format(value)
