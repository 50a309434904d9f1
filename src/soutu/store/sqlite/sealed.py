"""Reading rows as they lie in the file, and telling whether they are what was written.

Text comes as its bytes: a flipped letter may be no text any more. A text stored as a BLOB is
damage too, since no comparison would find it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.sqlite.schema import CREATE, TABLES, checksum
from soutu.store.sqlite.vectors import KINDS, VectorFile, VectorKind, card_from_json

Row: TypeAlias = "tuple[Any, ...]"
"""The columns of a table as in ``TABLES``, and the checksum."""

KINDS_BY_TABLE = {kind.vectors: kind for kind in KINDS}
_KEYS = {"image_vectors": 2, "caption_vectors": 2, "packed": 2}  # of two columns; all others of one


class Text(bytes):
    """What SQLite holds as TEXT, undecoded. For ``connection.text_factory``."""


_STORED: dict[str, type] = {"INTEGER": int, "TEXT": Text, "BLOB": bytes}


@cache
def stored_types() -> dict[str, tuple[type, ...]]:
    """How each column of each table is stored, the checksum last."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in CREATE:
            connection.execute(statement)
        return {
            table: tuple(
                _STORED[column[2]] for column in connection.execute(f"PRAGMA table_info({table})")
            )
            for table in TABLES
        }


def is_sealed(table: str, row: Row, *more: bytes) -> bool:
    """Whether ``row`` is what was written. ``more`` are the bytes its checksum covers beside."""
    types = stored_types()[table]
    if len(row) != len(types) or any(type(f) is not t for f, t in zip(row, types, strict=True)):
        return False
    *fields, seal = row
    return bool(seal == checksum(table, *fields, *more))


def select(table: str) -> str:
    """Everything in ``table``, each row as a ``Row``."""
    return f"SELECT {', '.join(TABLES[table])}, checksum FROM {table}"


def key_columns(table: str) -> tuple[str, ...]:
    return TABLES[table][: _KEYS.get(table, 1)]


def key_in_words(table: str, row: Row) -> str:
    """The key: a path as it is written, two columns with their names."""
    names = key_columns(table)
    values = [as_text(value) for value in row[: len(names)]]
    if len(names) == 1:
        return values[0]
    return " ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def as_text(value: object) -> str:
    """Any stored value as text, without loss where it is UTF-8 or nearly so."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


class Slabs:
    """The vectors that rows point to, in all spaces that can be understood."""

    def __init__(self, connection: sqlite3.Connection, home: Path) -> None:
        """DatabaseError where the spaces cannot be read."""
        self._slabs: dict[tuple[object, str], VectorFile | None] = {}
        for number, folder, card in connection.execute("SELECT id, folder, card FROM spaces"):
            for kind in KINDS:
                self._slabs[number, kind.name] = _open(home, folder, card, kind)

    def vector(self, kind: VectorKind, space: object, slot: object) -> bytes | None:
        """The bytes at ``slot``; None where there is no such thing."""
        slab = self._slabs.get((space, kind.name))
        if slab is None or not isinstance(slot, int) or slot < 0:
            return None
        try:
            return slab.take(np.array([slot], np.int64)).tobytes()
        except (IndexCorrupt, OSError, ValueError):
            return None

    def length(self, kind: VectorKind, space: int) -> int:
        """How many vectors the file has room for; 0 where there is none."""
        slab = self._slabs.get((space, kind.name))
        return len(slab) if slab is not None else 0


def _open(home: Path, folder: object, card: Any, kind: VectorKind) -> VectorFile | None:  # noqa: ANN401
    try:
        dim = card_from_json(card).dim
        if isinstance(dim, int) and dim > 0:
            return VectorFile(home / "spaces" / as_text(folder) / kind.slab, dim)
    except (OverflowError, TypeError, ValueError):  # the check of the table spaces names it
        pass
    return None
