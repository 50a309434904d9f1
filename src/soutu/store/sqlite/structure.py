"""Whether the database file is built as it should be: its header, its tables, its pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.fs import DATABASE
from soutu.store import text_search
from soutu.store.sqlite.schema import CREATE, FAULTS, SCHEMA_VERSION, is_transient
from soutu.store.sqlite.sealed import as_text

_WRITE_AHEAD = b"\x02\x02"  # at bytes 18 and 19 of the file
_DEFINITIONS = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"


def structure(connection: sqlite3.Connection, home: Path) -> Iterator[str]:
    """What is wrong with the file, in SQLite's words or ours. MissingIndex where nothing was
    ever written, IndexCorrupt for the index of a newer Soutu and where SQLite is kept from
    reading (``passes``)."""
    try:
        there = {as_text(name): as_text(sql) for name, sql in connection.execute(_DEFINITIONS)}
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except FAULTS as error:
        if is_transient(error):
            raise
        yield str(error)
        return
    indexed = any(name.startswith(text_search.TABLE) for name in there)  # it may be made later
    wrong = [
        name
        for name, sql in definitions().items()
        if there.get(name) != sql and (indexed or not name.startswith(text_search.TABLE))
    ]
    if not there and not version and not any((home / "spaces").glob("*/*")):
        raise MissingIndex("index-missing", folder=str(home.parent))
    if version > SCHEMA_VERSION and wrong:
        raise IndexCorrupt("index-newer", home=str(home), found=version, understood=SCHEMA_VERSION)
    yield from (f"the definition of {name}" for name in wrong)
    if version != SCHEMA_VERSION:
        yield f"format {version} instead of {SCHEMA_VERSION}"
    with open(home / DATABASE, "rb") as file:
        if file.read(20)[18:] != _WRITE_AHEAD:
            yield "the header (bytes 18 and 19)"
    try:
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != b"ok" and b"FTS5" not in line:  # examine.py looks at that by itself
                yield as_text(line)
    except FAULTS as error:
        yield str(error)


@cache
def definitions() -> dict[str, str]:
    """Each table and index as SQLite writes it down."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in (
            *CREATE,
            *([text_search.CREATE_FTS] if text_search.available(connection) else []),
        ):
            connection.execute(statement)
        return dict(connection.execute(_DEFINITIONS))
