"""Captions files: which text belongs to which picture of a folder.

A format turns bytes into ``Record`` values (``csv_records`` does it for CSV); what
happens to a record, whatever it was read from, is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadCaptions
from soutu.sources.csv_records import Record, read_records
from soutu.sources.encodings import text_of
from soutu.sources.images import check_root, has_image_suffix
from soutu.sources.names import LeavesRoot, Names
from soutu.sources.regular import NotRegular, TooLong, read_regular

MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Caption:
    """One text of one picture. ``path`` is relative to the root, POSIX, spelt as on the
    disk; ``line`` is where the row starts, from 1; ``tags`` holds the further columns."""

    path: str
    text: str
    line: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class CaptionFile:
    """The captions in file order, and the rows that were skipped, each with its reason."""

    rows: tuple[Caption, ...]
    problems: tuple[BadCaptions, ...]


def read_captions(file: Path, root: Path, *, encoding: str | None = None) -> CaptionFile:
    """Read a captions file strictly; ``encoding`` None means UTF-8 with or without BOM.

    Paths are looked up beside the captions file first and below ``root`` second. What
    puts the whole file in doubt (encoding, header, separators, columns, a path outside
    ``root``) raises ``BadCaptions`` with file, line and cure. A row that only fails
    itself (no such picture, no text, a repetition) is skipped and put in ``problems``.
    """
    check_root(root)
    shown = str(file)
    text = text_of(_bytes_of(file), shown, encoding)
    names = Names(root, beside=file.parent)
    rows: list[Caption] = []
    problems: list[BadCaptions] = []
    for row in _checked(read_records(text, shown), names, shown):
        if isinstance(row, Caption):
            rows.append(row)
        else:
            problems.append(row)
    return CaptionFile(tuple(rows), tuple(problems))


def _bytes_of(file: Path) -> bytes:
    try:
        return read_regular(file, MAX_BYTES)
    except FileNotFoundError:
        raise BadCaptions("captions-missing", file=str(file)) from None
    except NotRegular:
        raise BadCaptions("captions-not-file", file=str(file)) from None
    except TooLong:
        raise BadCaptions("captions-too-large", file=str(file), limit=MAX_BYTES) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadCaptions("captions-unreadable", file=str(file), reason=reason) from error


def _checked(
    records: Iterable[Record], names: Names, shown: str
) -> Iterator[Caption | BadCaptions]:
    first_lines: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for line, name, text, tags in records:
        where: dict[str, object] = {"file": shown, "line": line}
        if not name.strip():
            yield BadCaptions("captions-no-path", **where)
            continue
        try:
            path = names.find(name)
        except LeavesRoot:
            raise BadCaptions("captions-outside", path=name, **where) from None
        if path is None:
            yield BadCaptions("captions-no-image", path=name, **where)
        elif not has_image_suffix(path):
            yield BadCaptions("captions-not-image", path=name, **where)
        elif not text.strip():
            yield BadCaptions("captions-no-text", path=name, **where)
        else:
            first = first_lines.setdefault((path, text, tuple(tags.values())), line)
            if first != line:
                yield BadCaptions("captions-repeated", path=name, first=first, **where)
            else:
                yield Caption(path, text, line, tags)
