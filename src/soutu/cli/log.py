"""``soutu log``: show, follow, search and summarise the log of searches."""

from __future__ import annotations

import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from soutu.cli.main import (
    Flags,
    QueryCommand,
    gallery_option,
    index_option,
    json_option,
    open_gallery,
)
from soutu.cli.render import NOTHING_FOUND, sanitize, shorten, show_json, show_json_text
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.searchlog.reader import BadLine, LogRecord, LogStats

PAUSE = 0.3  # seconds between two looks at a log that is followed
BAD_LINES = {"torn": "log-torn", "foreign": "log-foreign", "newer": "log-newer"}

_log_option = click.option(
    "--log", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="Read this log instead of the gallery's.",
)  # fmt: skip
_since_option = click.option(
    "--since", metavar="TIME", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only searches since then, local time.",
)  # fmt: skip


@click.group()
def log() -> None:
    """Show and search the log of searches · 搜索日志"""


@log.command()
@click.option("--last", type=click.IntRange(1), default=10, metavar="N", help="Searches (10).")
@_log_option
@gallery_option
@index_option
@json_option
def show(last: int, file: Path | None, as_json: bool, **flags: object) -> int:
    """Show the last searches in full · 显示最近的搜索"""
    searches = deque(_searches(_read(file, flags)), maxlen=last)
    for search in searches:
        _show(search, _block, as_json=as_json)
    return 0 if searches else _nothing_found()


@log.command()
@click.option("-n", "last", type=click.IntRange(0), default=10, metavar="N", help="Searches (10).")
@click.option("-f", "--follow", is_flag=True, help="Show new searches as they come; Ctrl-C ends.")
@_log_option
@gallery_option
@index_option
@json_option
def tail(
    last: int,
    follow: bool,
    file: Path | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Show the last searches, one a line · 每行一条显示最近的搜索"""
    searches: Iterable[LogRecord]
    if follow:
        searches = _searches(_follow(file or open_gallery(flags).search_log.path, last))
    else:
        searches = deque(_searches(_read(file, flags)), maxlen=last)
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        for search in searches:
            _show(search, _line, as_json=as_json)


@log.command(cls=QueryCommand)
@click.argument("pattern")
@_since_option
@_log_option
@gallery_option
@index_option
@json_option
def grep(
    pattern: str,
    since: datetime | None,
    file: Path | None,
    as_json: bool,
    **flags: object,
) -> int:
    """Show searches whose query, variants or results match PATTERN (a regular expression) · 查找"""
    try:
        regex = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise click.UsageError(tr("log-pattern", pattern=pattern, error=error)) from error
    count = 0
    for search in _since(_searches(_read(file, flags)), since):
        if any(regex.search(text) for text in _texts(search)):
            count += 1
            _show(search, _line, as_json=as_json)
    return 0 if count else _nothing_found()


@log.command()
@_since_option
@_log_option
@gallery_option
@index_option
@json_option
def stats(
    since: datetime | None,
    file: Path | None,
    as_json: bool,
    **flags: object,
) -> int:
    """Show the most frequent, the failed and the slow searches · 搜索统计"""
    from soutu.searchlog.reader import log_stats

    summary = log_stats(_since(_read(file, flags), since))
    if as_json:
        show_json(summary)
    elif summary.searches:
        _show_stats(summary)
    _warn_of_bad_lines(summary.broken)
    return 0 if summary.searches else _nothing_found()


def _read(file: Path | None, flags: Flags) -> Iterator[LogRecord | BadLine]:
    from soutu.errors import BadInput
    from soutu.searchlog.reader import read_records

    search_log = open_gallery(flags).search_log
    files = [file] if file else search_log.files()
    if not files:
        raise BadInput("log-none", file=search_log.path)
    return read_records(files)


def _searches(lines: Iterable[LogRecord | BadLine]) -> Iterator[LogRecord]:
    """Yield the searches among ``lines``; warn of the other lines at the end."""
    from soutu.searchlog.reader import BadLine

    bad_lines: Counter[str] = Counter()
    for line in lines:
        if isinstance(line, BadLine):
            bad_lines[line.why] += 1
        else:
            yield line
    _warn_of_bad_lines(bad_lines)


def _warn_of_bad_lines(counts: Mapping[str, int]) -> None:
    for reason, count in sorted(counts.items()):
        click.echo(tr(BAD_LINES[reason], count=count), err=True)


def _since(lines: Iterable[LogRecord | BadLine], since: datetime | None) -> Iterator[Any]:
    from soutu.searchlog.reader import LogRecord

    start = since.astimezone() if since else None
    for line in lines:
        if start is None or not isinstance(line, LogRecord) or line.time >= start:
            yield line


def _follow(path: Path, last: int) -> Iterator[LogRecord | BadLine]:
    """Yield the ``last`` lines of ``path`` and all that are appended, across rotations."""
    from soutu.searchlog.reader import parse_record

    file: BinaryIO | None = None
    rest, first = b"", True
    while True:
        if file is None and path.exists():
            file = path.open("rb")
        if file is None:
            time.sleep(PAUSE)
            continue
        rotated = not _is_open_file(path, file)  # before reading, so that nothing is missed
        *lines, rest = (rest + file.read()).split(b"\n")
        if first:
            lines, first = lines[len(lines) - min(last, len(lines)) :], False
        yield from (parse_record(line, path.name) for line in lines if line.strip())
        if rotated:
            file.close()
            file, rest = None, b""
        else:
            time.sleep(PAUSE)


def _is_open_file(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _texts(search: LogRecord) -> list[str]:
    variants = [variant.text for variant in search.variants]
    hits = [text for hit in search.hits for text in (hit.path, *hit.also, hit.caption)]
    return [search.query.raw, *search.query.filters, *variants, *hits]


def _show(search: LogRecord, form: Callable[[LogRecord], str], *, as_json: bool) -> None:
    if not as_json:
        click.echo(form(search))
        return
    from soutu.searchlog.record import to_json

    record = {name: value for name, value in search.record.items() if name != "vector"}
    show_json_text(to_json(record))


def _block(search: LogRecord) -> str:
    """Format a search as the original demo's ``search_log.txt`` does."""
    from soutu.searchlog.record import format_search

    hits = [(hit.rank, hit.score, sanitize(hit.path), sanitize(hit.caption)) for hit in search.hits]
    variants = [sanitize(variant.text) for variant in search.variants]
    return format_search(search.time, sanitize(search.query.raw), variants, hits)


def _line(search: LogRecord) -> str:
    moment = search.time.strftime("%Y-%m-%d %H:%M:%S")
    filters = "".join(f" [{sanitize(text)}]" for text in search.query.filters)
    answer = tr("log-empty")
    if search.hits:
        best = search.hits[0]
        answer = f"{sanitize(best.path)} {best.score:.4f} ({len(search.hits)})"
    return f"{moment}  {shorten(search.query.raw)}{filters}  → {answer}"


def _show_stats(summary: LogStats) -> None:
    targets = ", ".join(f"{name} {count}" for name, count in summary.by_target.items())
    models = ", ".join(f"{sanitize(name)} {count}" for name, count in summary.by_model.items())
    period = {"first": summary.first, "last": summary.last}
    click.echo(tr("log-stats", count=summary.searches, targets=targets, models=models, **period))
    for step, times in summary.times.items():
        p50, p95, maximum = (f"{ms:.2f}" for ms in (times.p50, times.p95, times.most))
        step = f"{step.removesuffix('_ms'):<7}"
        click.echo(tr("log-times", step=step, p50=p50, p95=p95, maximum=maximum))
    for code, rows, form in (
        ("log-top", summary.top, "{:>8.0f}"),
        ("log-nothing", summary.nothing, "{:>8.0f}"),
        ("log-slow", summary.slow, "{:>8.2f}"),
        ("log-disagreeing", summary.disagreeing, "{:>8.2f}"),
        ("log-unsure", summary.unsure, "{:>8.2f}"),
    ):
        if rows:
            click.echo(tr(code))
        for query, number in rows:
            click.echo(f"{form.format(number)}  {sanitize(query)}")


def _nothing_found() -> int:
    click.echo(tr("log-nothing-found"), err=True)
    return NOTHING_FOUND
