"""Finding damage that SQLite cannot see: rows and vectors that no longer match their checksums."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from soutu.fs import absolute
from soutu.store.sqlite.schema import FAULTS, TABLES, connect, translate_sqlite_errors
from soutu.store.sqlite.sealed import (
    KINDS_BY_TABLE,
    Row,
    Slabs,
    Text,
    is_sealed,
    key_in_words,
    select,
)
from soutu.store.sqlite.structure import structure
from soutu.store.sqlite.vectors import VectorKind


@dataclass(frozen=True)
class Damage:
    """One thing found wrong. ``table`` is a table of the database, ``key`` the row's key in
    words. ``reason`` is "structure" (of the file, told in ``key``), "unreadable" (the table
    ends here), "checksum" (the row, or its vector, is not what was written) or "vector" (the
    slab does not reach that far, or its space cannot be read). ``row`` is what was read."""

    table: str
    key: str
    reason: str
    row: Row = field(default=(), compare=False, repr=False)


def verify(home: Path) -> Iterator[Damage]:
    """Every damaged row of the index at ``home``, in one consistent state, while others may
    read and write. Reads all of it. IndexCorrupt if there is no database to be read at all."""
    home = absolute(home)
    connection = connect_raw(home)
    try:
        with translate_sqlite_errors(home):
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield from damages(connection, home)
    finally:
        connection.close()


def connect_raw(home: Path, *, writing: bool = False) -> sqlite3.Connection:
    """A connection that gives texts undecoded."""
    connection = connect(home, writing=writing)
    connection.text_factory = Text
    return connection


def damages(connection: sqlite3.Connection, home: Path) -> Iterator[Damage]:
    """As ``verify``, in the state that a raw ``connection`` sees."""
    yield from (Damage("", fault, "structure") for fault in structure(connection, home))
    for table in TABLES:
        if table not in KINDS_BY_TABLE:
            yield from damaged_rows(connection, table)
    for kind in KINDS_BY_TABLE.values():
        yield from damaged_vectors(connection, home, kind)


def damaged_rows(connection: sqlite3.Connection, table: str) -> Iterator[Damage]:
    """Of a table whose checksums cover nothing but the row."""
    try:
        for row in connection.execute(select(table)):
            if not is_sealed(table, row):
                yield Damage(table, key_in_words(table, row), "checksum", row)
    except FAULTS as error:
        yield Damage(table, str(error), "unreadable")


def damaged_vectors(
    connection: sqlite3.Connection, home: Path, kind: VectorKind
) -> Iterator[Damage]:
    """Of the slots of one kind, together with what lies there."""
    table = kind.vectors
    try:
        slabs = Slabs(connection, home)
        for row in connection.execute(f"{select(table)} ORDER BY space, slot"):
            vector = slabs.vector(kind, row[0], row[2])
            if vector is None:
                yield Damage(table, key_in_words(table, row), "vector", row)
            elif not is_sealed(table, row, vector):
                yield Damage(table, key_in_words(table, row), "checksum", row)
    except FAULTS as error:
        yield Damage(table, str(error), "unreadable")
