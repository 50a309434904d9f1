"""Print results: as text for people, as JSON and as paths for programs; show progress."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.fs import path_bytes
from soutu.i18n import tr

if TYPE_CHECKING:
    from rich.table import Table

    from soutu.gallery import Gallery
    from soutu.types import Hit, SearchResult

NOTHING_FOUND = DIFFERENT = 1  # exit codes
MAX_LENGTH = 300  # letters of a text that are shown; --json has all
VERDICTS = {
    "present": "verdict-present", "unsure": "verdict-unsure", "absent": "verdict-absent",
}  # fmt: skip
LOG_ONLY = ("vector", "penalties", "senses")  # what the log has and --json leaves out
# Control characters, signs that change the direction of text, and lone surrogates other than the
# bytes of file names, which go out as they came in.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]"
)


class OutputError(OSError):
    """Standard output fails: its disk is full, or its reader (head, less) has left."""


class OutputStream(io.TextIOWrapper):
    """Standard output; raises OutputError where it fails."""

    def write(self, text: str) -> int:
        """Write ``text``."""
        with _output_errors():
            return super().write(text)

    def flush(self) -> None:
        """Hand over what was written."""
        with _output_errors():
            super().flush()


class ErrorStream(io.TextIOWrapper):
    """Standard error; what cannot be written is lost: there is nobody left to tell."""

    def write(self, text: str) -> int:
        """Write ``text`` if that is possible."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written if that is possible."""
        with suppress(OSError):
            super().flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):  # what is left of it goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(error.errno, error.strerror) from error


def show_answer(
    result: SearchResult,
    source: str | Path,
    gallery: Gallery | None = None,
    *,
    as_json: bool = False,
    paths_only: bool = False,
    null: bool = False,
) -> int:
    """Print the answer to a search and return the exit code; warnings go to standard error.

    ``source`` is the folder or URL that was searched, ``gallery`` the gallery if it is local.
    """
    if as_json:
        from soutu.searchlog.record import (  # numpy, which --version need not load
            to_json,
            to_record,
        )

        record = to_record(result, provenance=gallery.provenance if gallery else None)
        for name in LOG_ONLY:
            del record[name]
        show_json_text(to_json(record))
    elif paths_only:
        root = gallery.root if gallery else None
        _write_paths(
            (_usable_path(hit.path, root) for hit in result.hits), b"\0" if null else b"\n"
        )
    elif result.hits:
        show_result(result)
    show_expander_errors(result)
    if gallery and gallery.log_error:
        click.echo(tr("not-logged", error=gallery.log_error), err=True)
    if result.hits and result.min_confidence and result.confidence is None:
        click.echo(tr("confidence-unknown", folder=source), err=True)
    if result.hits:
        return 0
    if result.confidence is not None and result.confidence < result.min_confidence:
        confidence = f"{result.confidence:.0%}"
        message = tr("no-match", query=shorten(result.query.raw), confidence=confidence)
    else:
        message = _why_nothing(result, source, gallery)
    click.echo(message, err=True)
    return NOTHING_FOUND


def _why_nothing(result: SearchResult, source: str | Path, gallery: Gallery | None) -> str:
    if result.target == "captions":
        return tr("no-captions", folder=source)
    count = result.index_state.images
    if not (count and result.query.filters):
        return tr("nothing-found", folder=source)
    where = " ".join(result.query.filters)
    message = tr("filter-admits-none", count=count, folder=source, where=sanitize(where))
    near = gallery.nearest_names(where) if gallery else result.suggestions
    if near:
        message += " " + tr("filter-near", names=", ".join(map(sanitize, near)))
    return message


def show_result(result: SearchResult) -> None:
    """Print the hits, best first, below the variants that were searched for."""
    used = [variant.text for variant in result.variants if not variant.unused]
    width = max((len(sanitize(hit.path)) for hit in result.hits), default=0)
    lines = [_hit_line(hit, width) for hit in result.hits]
    confidence = "" if result.confidence is None else f"p {result.confidence:.0%}"
    verdict = f": {tr(VERDICTS[result.verdict])}" if result.verdict else ""
    if used != [result.query.raw.strip()] and result.variants:
        figures = ", ".join(filter(None, (f"‖m‖ {result.agreement:.2f}", confidence)))
        click.secho(f"{_query_line(result)}  ({figures}){verdict}", dim=True)
    elif confidence:
        click.secho(f"{shorten(result.query.raw)}  ({confidence}){verdict}", dim=True)
    for line in lines:
        click.echo(line)


def sanitize(text: str) -> str:
    """Return ``text`` on one line, with � for characters that could command a terminal."""
    return _UNPRINTABLE.sub("�", text)


def shorten(text: str) -> str:
    """Return the beginning of ``text``, sanitized."""
    return sanitize(text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…")


def _query_line(result: SearchResult) -> str:
    """Return the variants of each term, between the signs and weights of the terms."""
    parts = []
    for index, term in enumerate(result.query.terms):
        used = [v.text for v in result.variants if v.term == index and not v.unused]
        weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
        sign = "- " if term.weight < 0 else "+ " if index else ""
        parts.append(sign + weight + " · ".join(map(shorten, used or [term.value])))
    return " ".join(parts)


def _hit_line(hit: Hit, width: int) -> str:
    further = f" (+{len(hit.also)})" if hit.also else ""
    confidence = "" if hit.confidence is None else f" {hit.confidence:>4.0%}"
    path = f"{sanitize(hit.path) + further:<{width}}"
    return f"{hit.rank:>3}. {hit.score:.4f}{confidence}  {path}  {shorten(hit.caption)}".rstrip()


def _usable_path(path: str, root: Path | None) -> str:
    """Return a path that can be used from the working directory, and is no option anywhere."""
    if root:
        absolute = root / path
        try:
            path = str(absolute.relative_to(Path.cwd()))
        except (OSError, ValueError):  # that directory is gone, or elsewhere
            path = str(absolute)
    return f"./{path}" if path.startswith("-") else path


def show_expander_errors(result: SearchResult) -> None:
    """Warn of expanders that failed; the search went on without them."""
    for trace in result.expanders:
        if trace.error:
            message = tr("expander-fault", name=trace.name, message=trace.error)
            click.echo(sanitize(message), err=True)


def show_json(record: object) -> None:
    """Print a dataclass, or a dict with some in it, as one line of JSON; paths become text."""
    from soutu.searchlog.record import to_json

    show_json_text(to_json(_plain_value(record)))


def show_json_text(text: str) -> None:
    """Print a line of JSON."""
    click.echo(_encode_json(text))


def _plain_value(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_value(asdict(value))
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain_value(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _encode_json(text: str) -> str:
    """Return JSON as standard output can carry it: escaped unless that is UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if text.isascii() or codecs.lookup(encoding).name == "utf-8":
        return text
    return re.sub("[^\x00-\x7f]", _escape_json, text)


def _escape_json(letter: re.Match[str]) -> str:
    units = letter[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _write_paths(paths: Iterable[str], end: bytes) -> None:
    """Write paths as the bytes that name the files."""
    data = b"".join(path_bytes(path) + end for path in paths)
    sys.stdout.flush()
    with _output_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def format_duration(hours: float) -> str:
    """Format hours as minutes, hours or days."""
    if hours < 2:
        return tr("plan-minutes", count=f"{hours * 60:.1f}")
    if hours < 72:
        return tr("plan-hours", count=f"{hours:.1f}")
    return tr("plan-days", count=f"{hours / 24:,.1f}")


def show_table(table: Table, width: int) -> None:
    """Print ``table``; ``width`` is that of a pipe, where 80 columns would break lines."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = width
    console.print(table)


@contextmanager
def progress_bar(code: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, labelled with message ``code``; nothing without a terminal."""
    if not sys.stderr.isatty():
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
        task = bar.add_task(tr(code), total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
