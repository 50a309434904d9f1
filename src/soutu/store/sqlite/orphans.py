"""Rows that are each what was written, and yet do not fit together: what they point to is not
there, two claim one place, a counter would give a number twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from soutu.store.sqlite.schema import write
from soutu.store.sqlite.sealed import KINDS_BY_TABLE, Slabs, as_text, key_columns
from soutu.store.sqlite.vectors import KINDS, REVISION, slot_counter
from soutu.types import IntegrityIssue

_NO_SPACE = "space NOT IN (SELECT id FROM spaces)"
_SHARED = "(space, slot) IN (SELECT space, slot FROM {0} GROUP BY space, slot HAVING count(*) > 1)"

OWNERLESS: Mapping[str, str] = {
    "paths": "image_id NOT IN (SELECT id FROM images)",
    "captions": "image_id NOT IN (SELECT id FROM images)",
    "image_vectors": f"{_NO_SPACE} OR owner NOT IN (SELECT id FROM images)",
    "caption_vectors": f"{_NO_SPACE} OR owner NOT IN (SELECT id FROM captions)",
    "packed": _NO_SPACE,
    "meta": "key = 'space' AND CAST(value AS TEXT) NOT IN (SELECT space FROM spaces)",
}
"""Which rows of a table belong to something that is not there. Captions come before their vectors,
so that in this order one pass over all removes what follows from what."""

SHARED: Mapping[str, str] = {table: _SHARED.format(table) for table in KINDS_BY_TABLE}
"""Which vectors lie where another one lies."""

_LARGEST = {
    "image": (
        "SELECT max(id) FROM images",
        "SELECT max(image_id) FROM paths",
        "SELECT max(image_id) FROM captions",
        "SELECT max(owner) FROM image_vectors",
    ),
    "caption": ("SELECT max(id) FROM captions", "SELECT max(owner) FROM caption_vectors"),
    "change": ("SELECT max(id) FROM changes",),
    "generation": ("SELECT max(generation) FROM changes",),
    REVISION: ("SELECT max(revision) FROM packed",),
}


def orphans(connection: sqlite3.Connection) -> Iterator[IntegrityIssue]:
    """Rows without what they belong to, and vectors in one place."""
    for code, conditions in (("doctor-ownerless", OWNERLESS), ("doctor-shared", SHARED)):
        for table, condition in conditions.items():
            columns = key_columns(table)
            sql = f"SELECT {', '.join(columns)} FROM {table} WHERE {condition}"
            for row in connection.execute(sql):
                shown = " ".join(
                    f"{name} {as_text(value)}" for name, value in zip(columns, row, strict=True)
                )
                yield IntegrityIssue(code, table, shown)


def low_counters(connection: sqlite3.Connection) -> Iterator[IntegrityIssue]:
    """Counters that would give an id or a slot a second time."""
    least = least_counters(connection)
    for name, value in least.items():
        if _counted(connection, name) < value:
            seen = f"{_counted(connection, name)} < {value}"
            yield IntegrityIssue("doctor-counter-low", "counters", name, seen)


def least_counters(connection: sqlite3.Connection) -> dict[str, int]:
    """What each counter must have reached, by the rows there are."""
    least = {
        name: max(_number(connection, sql) for sql in queries) for name, queries in _LARGEST.items()
    }
    for (space,) in connection.execute("SELECT id FROM spaces"):
        for kind in KINDS:
            sql = f"SELECT max(slot) + 1 FROM {kind.vectors} WHERE space = {space}"
            least[slot_counter(space, kind)] = _number(connection, sql)
    return least


def raise_counters(connection: sqlite3.Connection, home: Path) -> None:
    """Let no number be given twice, also where counters or the rows that they counted are lost."""
    least = least_counters(connection)
    slabs = Slabs(connection, home)
    for (space,) in connection.execute("SELECT id FROM spaces"):
        for kind in KINDS:
            if not _known(connection, name := slot_counter(space, kind)):
                least[name] = max(least[name], slabs.length(kind, space))
    if not _known(connection, REVISION):
        # Each change of what is searchable writes at least one line of history, so that the
        # history's length is never behind the revision: one seen before must not come again.
        least[REVISION] = max(least[REVISION], least["change"])
    low = {name: value for name, value in least.items() if _counted(connection, name) < value}
    write(connection, "counters", low.items())


def _known(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT 1 FROM counters WHERE name = ?", (name,)).fetchone()
    return found is not None


def _counted(connection: sqlite3.Connection, name: str) -> int:
    return _number(connection, "SELECT value FROM counters WHERE name = ?", name)


def _number(connection: sqlite3.Connection, sql: str, *values: str) -> int:
    found = connection.execute(sql, values).fetchone()
    return found[0] if found and isinstance(found[0], int) else 0
