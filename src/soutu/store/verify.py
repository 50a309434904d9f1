"""Finding damage that SQLite cannot see: rows and vectors that no longer match their checksums."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.home import absolute
from soutu.store.live import KINDS, Kind
from soutu.store.rows import TABLES, checksum, connect, guard
from soutu.store.slab import Slab
from soutu.store.spaces import card_from_json
from soutu.types import Floats

_KEYS = {"image_vectors": 2, "caption_vectors": 2, "packed": 2}  # of two columns; all others of one
_VECTORS = {kind.vectors for kind in KINDS}
_BATCH = 1024  # vectors checked in one go


@dataclass(frozen=True)
class Damage:
    """One thing found wrong. ``table`` is a table of the database, ``key`` the row's key in
    words. ``reason`` is "structure" (SQLite's own finding, which is then the key), "unreadable"
    (the table ends here), "checksum" (the row, or its vector, is not what was written) or
    "vector" (the slab does not reach that far, or its space cannot be read)."""

    table: str
    key: str
    reason: str


def verify(home: Path) -> Iterator[Damage]:
    """Every damaged row of the index at ``home``, in one consistent state, while others may
    read and write. Reads all of it. IndexCorrupt if there is no database to be read at all."""
    home = absolute(home)
    connection = connect(home)
    connection.text_factory = bytes  # a flipped letter may be no text any more
    try:
        with guard(home):
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM counters").fetchone()
        yield from _structure(connection)
        for table in TABLES:
            if table not in _VECTORS:
                yield from _plain(connection, table)
        for kind in KINDS:
            yield from _slots(connection, home, kind)
    finally:
        connection.close()


def _structure(connection: sqlite3.Connection) -> Iterator[Damage]:
    try:
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != b"ok":
                yield Damage("", line.decode("utf-8", "replace"), "structure")
    except sqlite3.DatabaseError as error:
        yield Damage("", str(error), "structure")


def _plain(connection: sqlite3.Connection, table: str) -> Iterator[Damage]:
    try:
        for row in connection.execute(_select(table)):
            if not _sealed(table, row):
                yield Damage(table, _key(table, row), "checksum")
    except sqlite3.DatabaseError as error:
        yield Damage(table, str(error), "unreadable")


def _slots(connection: sqlite3.Connection, home: Path, kind: Kind) -> Iterator[Damage]:
    slabs: dict[Any, Slab | None] = {}
    for number, folder, card in connection.execute("SELECT id, folder, card FROM spaces"):
        try:
            dim = card_from_json(card).dim
            slabs[number] = Slab(home / "spaces" / os.fsdecode(folder) / kind.slab, dim)
        except (TypeError, ValueError):  # which the check of the table spaces has named
            slabs[number] = None
    try:
        rows = connection.execute(f"{_select(kind.vectors)} ORDER BY space, slot")
        while batch := rows.fetchmany(_BATCH):
            for row in batch:
                vector = _vector(slabs.get(row[0]), row[2])
                if vector is None:
                    yield Damage(kind.vectors, _key(kind.vectors, row), "vector")
                elif not _sealed(kind.vectors, row, vector.tobytes()):
                    yield Damage(kind.vectors, _key(kind.vectors, row), "checksum")
    except sqlite3.DatabaseError as error:
        yield Damage(kind.vectors, str(error), "unreadable")


def _vector(slab: Slab | None, slot: object) -> Floats | None:
    """The row at ``slot``, if there is such a thing."""
    if slab is None or not isinstance(slot, int) or slot < 0:
        return None
    try:
        return slab.take(np.array([slot], np.int64))
    except IndexCorrupt:
        return None


def _select(table: str) -> str:
    return f"SELECT {', '.join(TABLES[table])}, checksum FROM {table}"


def _sealed(table: str, row: tuple[Any, ...], *more: bytes) -> bool:
    *fields, seal = row
    whole = all(isinstance(field, (int, bytes)) for field in fields)
    return whole and checksum(table, *fields, *more) == seal


def _key(table: str, row: tuple[Any, ...]) -> str:
    """The key in words: a path as it is written, two columns with their names."""
    count = _KEYS.get(table, 1)
    values = [os.fsdecode(v) if isinstance(v, bytes) else str(v) for v in row[:count]]
    if count == 1:
        return values[0]
    return " ".join(f"{name} {v}" for name, v in zip(TABLES[table], values, strict=False))
