"""log: show, tail, grep, stats."""

from __future__ import annotations

import os
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from soutu.cli.options import gallery_option, index_option, json_option, open_gallery
from soutu.cli.render import show_record, visible
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.searchlog.reader import BadLine, LogRecord, LogStats

NOTHING_FOUND = 1
PAUSE = 0.3  # seconds between two looks at a log that is followed
BROKEN = {"torn": "log-torn", "foreign": "log-foreign", "newer": "log-newer"}

_log = click.option(
    "--log", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="Read this log instead of the gallery's.",
)  # fmt: skip
_since = click.option(
    "--since", metavar="TIME", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only searches from then on, local time.",
)  # fmt: skip


@click.group()
def log() -> None:
    """What was searched for and found · 搜索日志"""


@log.command()
@click.option("--last", type=click.IntRange(1), default=10, metavar="N", help="How many (10).")
@_log
@gallery_option
@index_option
@json_option
def show(
    last: int, file: Path | None, gallery: str | None, index_dir: str | None, as_json: bool
) -> int:
    """Show the last searches in full · 显示最近的搜索"""
    found = deque(_searches(_read(_files(file, gallery, index_dir))), maxlen=last)
    for line in found:
        click.echo(_json(line) if as_json else _block(line))
    return 0 if found else _nothing()


@log.command()
@click.option("-n", "last", type=click.IntRange(0), default=10, metavar="N", help="How many (10).")
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes; Ctrl-C ends.")
@_log
@gallery_option
@index_option
@json_option
def tail(
    last: int,
    follow: bool,
    file: Path | None,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
) -> None:
    """Show the last searches, one a line · 每行一条显示最近的搜索"""
    show = _json if as_json else _short
    if not follow:
        for line in deque(_searches(_read(_files(file, gallery, index_dir))), maxlen=last):
            click.echo(show(line))
        return
    watched = file or open_gallery(gallery, index_dir, {}).journal.path
    with suppress(KeyboardInterrupt):
        for line in _searches(_followed(watched, last)):
            click.echo(show(line))


@log.command()
@click.argument("pattern")
@_since
@_log
@gallery_option
@index_option
@json_option
def grep(
    pattern: str,
    since: datetime | None,
    file: Path | None,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
) -> int:
    """Show searches whose query, variants or results match PATTERN (a regular expression) · 查找"""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as fault:
        raise click.UsageError(tr("log-pattern", pattern=pattern, fault=fault)) from fault
    count = 0
    for line in _from(_searches(_read(_files(file, gallery, index_dir))), since):
        if any(wanted.search(text) for text in _texts(line)):
            count += 1
            click.echo(_json(line) if as_json else _short(line))
    return 0 if count else _nothing()


@log.command()
@_since
@_log
@gallery_option
@index_option
@json_option
def stats(
    since: datetime | None,
    file: Path | None,
    gallery: str | None,
    index_dir: str | None,
    as_json: bool,
) -> int:
    """Show what is searched for most, in vain, and slowly · 搜索统计"""
    from soutu.searchlog.reader import log_stats as figures

    found = figures(_from(_read(_files(file, gallery, index_dir)), since))
    if as_json:
        show_record(found)
    elif found.searches:
        _show_stats(found)
    _tell_broken(Counter(found.broken))
    return 0 if found.searches else _nothing()


def _files(file: Path | None, gallery: str | None, index_dir: str | None) -> list[Path]:
    from soutu.errors import BadInput

    opened = open_gallery(gallery, index_dir, {})
    found = [file] if file else opened.journal.files()
    if not found:
        raise BadInput("log-none", file=opened.journal.path)
    return found


def _read(files: list[Path]) -> Iterator[LogRecord | BadLine]:
    from soutu.searchlog.reader import read_records

    return read_records(files)


def _searches(lines: Iterable[LogRecord | BadLine]) -> Iterator[LogRecord]:
    """The searches among ``lines``; what else there was is said at the end."""
    from soutu.searchlog.reader import BadLine

    broken: Counter[str] = Counter()
    for line in lines:
        if isinstance(line, BadLine):
            broken[line.why] += 1
        else:
            yield line
    _tell_broken(broken)


def _tell_broken(broken: Counter[str]) -> None:
    for why, count in sorted(broken.items()):
        click.echo(tr(BROKEN[why], count=count), err=True)


def _from(lines: Iterable[LogRecord | BadLine], since: datetime | None) -> Iterator[Any]:
    from soutu.searchlog.reader import LogRecord

    first = since.astimezone() if since else None
    for line in lines:
        if first is None or not isinstance(line, LogRecord) or line.time >= first:
            yield line


def _followed(path: Path, last: int) -> Iterator[LogRecord | BadLine]:
    """The ``last`` lines of ``path``, and whatever is appended, also after the file was set aside
    and another begun."""
    from soutu.searchlog.reader import parse_record

    file: BinaryIO | None = None
    rest, first = b"", True
    while True:
        if file is None and path.exists():
            file = path.open("rb")
        if file is None:
            time.sleep(PAUSE)
            continue
        set_aside = not _names(path, file)  # asked before all of it is read
        *whole, rest = (rest + file.read()).split(b"\n")
        if first:
            whole, first = whole[len(whole) - min(last, len(whole)) :], False
        yield from (parse_record(line, path.name) for line in whole if line.strip())
        if set_aside:
            file.close()
            file, rest = None, b""
        else:
            time.sleep(PAUSE)


def _names(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _texts(line: LogRecord) -> list[str]:
    variants = [variant.text for variant in line.variants]
    hits = [text for hit in line.hits for text in (hit.path, *hit.also, hit.caption)]
    return [line.query.raw, *line.query.filters, *variants, *hits]


def _json(line: LogRecord) -> str:
    from soutu.searchlog.record import to_json

    return to_json({name: value for name, value in line.record.items() if name != "vector"})


def _block(line: LogRecord) -> str:
    """In the form of the original's ``search_log.txt``."""
    from soutu.searchlog.record import block

    hits = [(hit.rank, hit.score, visible(hit.path), visible(hit.caption)) for hit in line.hits]
    variants = [visible(variant.text) for variant in line.variants]
    return block(line.time, visible(line.query.raw), variants, hits)


def _short(line: LogRecord) -> str:
    when = line.time.strftime("%Y-%m-%d %H:%M:%S")
    where = "".join(f" [{visible(text)}]" for text in line.query.filters)
    best = line.hits[0] if line.hits else None
    found = f"{visible(best.path)} {best.score:.4f} ({len(line.hits)})" if best else tr("log-empty")
    return f"{when}  {visible(line.query.raw)}{where}  → {found}"


def _show_stats(found: LogStats) -> None:
    targets = ", ".join(f"{name} {count}" for name, count in found.by_target.items())
    models = ", ".join(f"{visible(name)} {count}" for name, count in found.by_model.items())
    told = {"first": found.first, "last": found.last, "targets": targets, "models": models}
    click.echo(tr("log-stats", count=found.searches, **told))
    for step, times in found.times.items():
        figures = {
            "p50": f"{times.p50:.2f}",
            "p95": f"{times.p95:.2f}",
            "most": f"{times.most:.2f}",
        }
        click.echo(tr("log-times", step=f"{step.removesuffix('_ms'):<7}", **figures))
    for code, rows, form in (
        ("log-top", found.top, "{:>8.0f}"),
        ("log-nothing", found.nothing, "{:>8.0f}"),
        ("log-slow", found.slow, "{:>8.2f}"),
        ("log-disagreeing", found.disagreeing, "{:>8.2f}"),
        ("log-unsure", found.unsure, "{:>8.2f}"),
    ):
        if rows:
            click.echo(tr(code))
        for query, number in rows:
            click.echo(f"{form.format(number)}  {visible(query)}")


def _nothing() -> int:
    click.echo(tr("log-nothing-found"), err=True)
    return NOTHING_FOUND
