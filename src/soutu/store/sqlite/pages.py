"""The records in a SQLite file, page by page, without asking its trees where they are.

For a file whose trees are torn: each of our rows carries a checksum over its table's name and
its fields, so a record tells by itself which row of which table it is. The format is that of
https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from soutu.store.sqlite.sealed import Text

Value: TypeAlias = "int | float | bytes | None"

_PAGE = 4096  # what SQLite makes unless told otherwise, and Soutu does not tell
_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_FAULTS = (IndexError, KeyError, ValueError, struct.error)  # of a page that is no page


def records(path: Path) -> Iterator[tuple[int | None, tuple[Value, ...]]]:
    """(rowid, values) of each record that can be read, in the file and in what was written ahead
    of it; the rowid is None in trees that have none. Pages that are marked as free are left
    out: they hold what was deleted."""
    pages = _Pages(path)
    free = pages.free()
    for number in range(1, pages.count + 1):
        if number not in free:
            yield from _page_records(pages, number)


class _Pages:
    """Pages by number, from 1."""

    def __init__(self, path: Path) -> None:
        self._ahead = _written_ahead(path.with_name(path.name + "-wal"))
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            # An empty file cannot be mapped.
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self.count = max(-(-size // _PAGE), *self._ahead, 0)

    def __getitem__(self, number: int) -> bytes:
        """KeyError for a number that no page has."""
        if not 1 <= number <= self.count:
            raise KeyError(number)
        start = (number - 1) * _PAGE
        page = self._ahead.get(number) or self._file[start : start + _PAGE]
        return page.ljust(_PAGE, b"\0")

    def free(self) -> set[int]:
        """Numbers of the pages on the list of free ones, as far as that can be read."""
        free: set[int] = set()
        try:
            (trunk,) = struct.unpack_from(">I", self[1], 32)
            while trunk and trunk not in free:
                page = self[trunk]
                following, count = struct.unpack_from(">II", page)
                free.add(trunk)
                free.update(struct.unpack_from(f">{min(count, _PAGE // 4 - 2)}I", page, 8))
                trunk = following
        except _FAULTS:
            pass
        return free


def _written_ahead(path: Path) -> Mapping[int, bytes]:
    """The latest committed page of each number in a write-ahead log; none where there is no log."""
    data = path.read_bytes() if path.is_file() else b""
    salt = data[16:24]
    committed: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    for start in range(32, len(data) - _PAGE - 23, _PAGE + 24):
        number, size = struct.unpack_from(">II", data, start)
        if data[start + 8 : start + 16] != salt:
            break  # the rest is of an earlier round
        pending[number] = data[start + 24 : start + 24 + _PAGE]
        if size:  # this frame ends a transaction
            committed.update(pending)
            pending.clear()
    return committed


def _page_records(pages: _Pages, number: int) -> Iterator[tuple[int | None, tuple[Value, ...]]]:
    page = pages[number]
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in (_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
        return
    (count,) = struct.unpack_from(">H", page, start + 3)
    first = start + (12 if kind == _INDEX_INTERIOR else 8)
    for cell in range(min(count, (_PAGE - first) // 2)):
        (at,) = struct.unpack_from(">H", page, first + 2 * cell)
        try:
            yield _cell(pages, page, at, kind)
        except _FAULTS:
            continue


def _cell(pages: _Pages, page: bytes, at: int, kind: int) -> tuple[int | None, tuple[Value, ...]]:
    if kind == _INDEX_INTERIOR:
        at += 4  # the page below
    size, at = _varint(page, at)
    rowid = None
    if kind == _LEAF:
        rowid, at = _varint(page, at)
    most = _PAGE - 35 if kind == _LEAF else (_PAGE - 12) * 64 // 255 - 23
    if size <= most:
        return rowid, _values(page[at : at + size])
    if size > pages.count * _PAGE:
        raise ValueError(size)
    least = (_PAGE - 12) * 32 // 255 - 23
    here = least + (size - least) % (_PAGE - 4)
    here = here if here <= most else least
    parts = [page[at : at + here]]
    (following,) = struct.unpack_from(">I", page, at + here)
    missing = size - here
    while missing > 0:  # each round takes bytes away, so that a ring of pages ends too
        part = pages[following]
        parts.append(part[4 : 4 + missing])
        (following,) = struct.unpack_from(">I", part)
        missing -= _PAGE - 4
    return rowid, _values(b"".join(parts))


def _values(record: bytes) -> tuple[Value, ...]:
    end, at = _varint(record, 0)
    types = []
    while at < end:
        kind, at = _varint(record, at)
        types.append(kind)
    values = []
    for kind in types:
        value, at = _value(record, at, kind)
        values.append(value)
    return tuple(values)


def _value(record: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], at
    if kind == 7:
        return struct.unpack_from(">d", record, at)[0], at + 8
    size = _INTEGERS[kind] if kind < 12 else (kind - 12) // 2
    data = record[at : at + size]
    if len(data) < size:
        raise IndexError(at)
    if kind < 12:
        return int.from_bytes(data, "big", signed=True), at + size
    return Text(data) if kind % 2 else data, at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    value = value << 8 | data[at + 8]
    return value - 2**64 if value >> 63 else value, at + 9
