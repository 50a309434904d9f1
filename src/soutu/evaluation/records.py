"""Reading judgement files line by line, each fault named by file and number."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Picture
from soutu.query.normalize import EN, ZH, language


@dataclass(frozen=True)
class Record:
    """Named values, and the place where they stand: ``queries.jsonl:12``."""

    place: str
    fields: Mapping[str, object]

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not blank; a number counts as an id. Absent or null: ``default``."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        found = str(value) if _is_id(value) else ""
        if not found.strip():
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": "…"')
        return found

    def ids(self, name: str) -> list[str]:
        """A list of ids, which are numbers or texts; it may be empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(map(_is_id, value)):
            raise BadInput("eval-field", place=self.place, field=name, form=f'"{name}": [1, …]')
        return [str(one) for one in value]


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of each line that is not blank. BadInput for a file that cannot be read and
    for a line that is no UTF-8."""
    try:
        with file.open("rb") as stream:
            for number, data in enumerate(stream, 1):
                place = f"{file}:{number}"
                try:
                    text = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as fault:
                    raise BadInput("eval-not-utf8", place=place) from fault
                if text.strip():
                    yield place, text.rstrip("\r\n")
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unreadable", file=file, reason=reason) from fault


def json_lines(file: Path) -> Iterator[Record]:
    """One JSON object a line."""
    for place, text in lines(file):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as fault:
            raise BadInput("eval-json", place=place, fault=fault) from fault
        if not isinstance(value, dict):
            raise BadInput("eval-json", place=place, fault=type(value).__name__)
        yield Record(place, value)


def csv_rows(
    file: Path, needed: tuple[str, ...], allowed: tuple[str, ...] = ()
) -> Iterator[Record]:
    """Rows below a header that begins with ``needed`` and goes on with some of ``allowed``; an
    empty cell of the latter counts as absent."""
    wanted, header = ",".join(needed), list[str]()
    for place, text in lines(file):  # a cell has no line ends in it
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as fault:
            raise BadInput("eval-quote", place=place, fault=fault) from fault
        if not header:
            known = cells[: len(needed)] == [*needed] and {*cells[len(needed) :]} <= {*allowed}
            if not known or len({*cells}) != len(cells):
                raise BadInput("eval-header", place=place, found=text[:200], wanted=wanted)
            header = cells
            continue
        if len(cells) != len(header):
            counts = {"found": len(cells), "expected": len(header)}
            raise BadInput("eval-columns", place=place, columns=",".join(header), **counts)
        optional = {*header[len(needed) :]}
        row = dict(zip(header, cells, strict=True))
        yield Record(place, {n: c for n, c in row.items() if c or n not in optional})


class Unique:
    """Ids that may be given once only."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def add(self, id: str, place: str) -> str:
        first = self._seen.setdefault(id, place)
        if first != place:
            raise BadInput("eval-repeated", place=place, id=id, first=first)
        return id

    def __contains__(self, id: str) -> bool:
        return id in self._seen


def language_of(text: str) -> str:
    """ "zh" where there is any Chinese in it, else "en"."""
    return EN if language(text) == EN else ZH


def on_disk(file: Path, id: str, place: str) -> Picture:
    """The picture in ``file``, which ``place`` names; BadInput where it is not there."""
    try:
        size = file.stat().st_size
    except OSError as fault:
        raise BadInput("eval-no-picture", place=place, picture=file) from fault
    return Picture(id, str(file), size, file.read_bytes)
