"""The strict reading of ``image_path,caption[,tag…]`` as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

from soutu.errors import BadCaptions

HEADER = ("image_path", "caption")


class Record(NamedTuple):
    """One row of a captions file: the line it starts on, the path as written, the text
    and the tags by column name."""

    line: int
    path: str
    text: str
    tags: dict[str, str]


def read_records(text: str, shown: str) -> Iterator[Record]:
    """The rows below the header, blank lines left out; ``shown`` names the file.

    Raises ``BadCaptions``, also midway through the rows.
    """
    if not text.strip():
        raise BadCaptions("captions-empty", file=shown)
    rows = _rows(text, shown)
    columns = _checked_header(next(rows, (1, []))[1], shown)
    tags = columns[len(HEADER) :]
    for line, row in rows:
        if len(row) != len(columns):
            raise _wrong_width(row, len(columns), line, shown)
        yield Record(line, row[0], row[1], dict(zip(tags, row[2:], strict=True)))


def _rows(text: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line it starts on."""
    # newline="" leaves line ends inside quotes as they are; strict makes a stray quote
    # an error instead of a caption that has silently swallowed the lines after it.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise BadCaptions("captions-quote", file=shown, line=line) from None
        if row:
            yield line, row
        elif line == 1:
            raise BadCaptions("captions-header", file=shown, line=1, found="")


def _checked_header(columns: list[str], shown: str) -> list[str]:
    where: dict[str, object] = {"file": shown, "line": 1}
    found = ",".join(columns)
    if "，" in found:
        raise BadCaptions("captions-header-fullwidth", **where)
    if len(columns) == 1:
        for mark, name in (("\t", "TAB"), (";", "“;”")):
            if mark in found:
                raise BadCaptions("captions-header-separator", separator=name, **where)
    if any(column != column.strip() for column in columns):
        raise BadCaptions("captions-header-space", found=found, **where)
    if tuple(columns[:2]) != HEADER:
        raise BadCaptions("captions-header", found=found, **where)
    for position, column in enumerate(columns, start=1):
        if not column:
            raise BadCaptions("captions-column-unnamed", column=position, **where)
        if columns.index(column) != position - 1:
            raise BadCaptions("captions-column-repeated", name=column, **where)
    return columns


def _wrong_width(row: list[str], expected: int, line: int, shown: str) -> BadCaptions:
    fullwidth = len(row) < expected and any("，" in field for field in row)
    return BadCaptions(
        "captions-row-fullwidth" if fullwidth else "captions-row-columns",
        file=shown,
        line=line,
        found=len(row),
        expected=expected,
    )
