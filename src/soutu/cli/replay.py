"""``soutu replay``: run logged searches again and report what differs and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.log import BAD_LINES
from soutu.cli.main import (
    device_option,
    gallery_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
)
from soutu.cli.render import DIFFERENT, sanitize, show_json
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.searchlog.replay import Cause, Replay, ReplayedSearch
    from soutu.types import IndexState

MAX_LISTED = 10  # searches; --json has all
SKIP_REASONS = {
    **BAD_LINES,
    "hashed": "replay-hashed",
    "array": "replay-array",
    "picture-gone": "replay-picture-gone",
    "failed": "replay-failed",
}
CAUSES = {
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
DETAILS = {
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
    as_json: bool,
    **flags: object,
) -> int:
    """Run the searches in LOG again; report what differs and why · 重放搜索日志

    Without LOG, replay the gallery's own log. Exit code 0: all answers are the same; 1: some
    differ, or none could be compared. With --against, compare two models on the logged queries;
    the gallery must be indexed with both.
    """
    with open_gallery(flags) as opened:
        done = opened.replay(log, against=against, k=k)
    if as_json:
        record = asdict(done)
        for search in record["different"]:
            search["fault"] = search.pop("error")
        show_json(record)
    elif against:
        _show_models(done, opened.model)
    else:
        _show(done)
    for reason, count in done.left_out.items():
        places = ", ".join(map(sanitize, done.places[reason]))
        click.echo(tr(SKIP_REASONS[reason], count=count) + f" ({places})", err=True)
    if not done.searches:
        click.echo(tr("replay-none"), err=True)
    return DIFFERENT if done.different or not done.searches else 0


def _show(done: Replay) -> None:
    drift = _figure(done.drift, "{:.1e}")
    click.echo(tr("replay-done", count=done.searches, same=done.same, drift=drift))
    if done.different:
        click.echo(tr("replay-moved", **_agreement(done)))
    for counted in done.causes:
        click.echo(_cause(counted.cause, counted.searches))
    for search in done.different[:MAX_LISTED]:
        click.echo(_line(search))
    if len(done.different) > MAX_LISTED:
        click.echo(tr("replay-more", count=len(done.different) - MAX_LISTED))


def _show_models(done: Replay, model: str) -> None:
    counts = {"count": done.searches, "same": done.same}
    click.echo(tr("replay-models", model=model, against=done.against, **counts, **_agreement(done)))
    for search in sorted(done.different, key=lambda search: search.overlap or 0)[:MAX_LISTED]:
        click.echo(_line(search))


def _cause(cause: Cause, searches: int) -> str:
    what = tr(DETAILS[cause.what], count=cause.count) if cause.what in DETAILS else cause.what
    text = tr(CAUSES[cause.kind], what=what, before=_state(cause.before), now=_state(cause.now))
    if cause.paths:
        more = ", …" if cause.count > len(cause.paths) else ""
        text += f" ({', '.join(map(sanitize, cause.paths))}{more})"
    effect = tr("replay-effect", count=searches) if searches else tr("replay-no-effect")
    return f"- {text} — {effect}"


def _state(state: str | IndexState) -> str:
    if isinstance(state, str):
        return sanitize(state)
    counts = {"images": state.images, "captions": state.captions}
    return tr("replay-state", generation=state.generation, **counts)


def _line(search: ReplayedSearch) -> str:
    query, source = sanitize(search.query), sanitize(search.place)
    text = tr("replay-line", query=query, source=source, **_agreement(search))
    kinds = ", ".join(dict.fromkeys(cause.kind for cause in search.causes))
    return f"  {text}" + (f"  [{kinds}]" if kinds else "")


def _agreement(rankings: Replay | ReplayedSearch) -> dict[str, str]:
    return {"overlap": _figure(rankings.overlap), "correlation": _figure(rankings.correlation)}


def _figure(value: float | None, form: str = "{:.3f}") -> str:
    return "-" if value is None else form.format(value)
