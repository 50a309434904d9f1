"""The text index in step with the captions: changed in their transaction, made anew from them.

It is derived. A Python whose SQLite has no FTS5 can write all else; then the index stays behind
until one that has it writes again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from soutu.errors import Missing
from soutu.store.fts import CREATE, TABLE, available, indexed
from soutu.store.rows import FAULTS, passes, select_in, set_setting, setting, transaction

BEHIND = "text_behind"  # remembered where captions changed and the index could not
_CAPTIONS = "SELECT id, CAST(text AS BLOB) FROM captions"  # damaged, a text may be no text
_PUT = f"INSERT INTO {TABLE} (rowid, pieces) VALUES (?, ?)"
_TAKE = f"INSERT INTO {TABLE} ({TABLE}, rowid, pieces) VALUES ('delete', ?, ?)"
_OWN_COPY = "CREATE VIRTUAL TABLE {} USING fts5(pieces, tokenize='porter ascii')"


def in_step(connection: sqlite3.Connection) -> bool:
    """Whether there is an index that says what the captions say; FTS5 is there."""
    return _exists(connection) and setting(connection, BEHIND) != "yes"


def require(connection: sqlite3.Connection) -> None:
    """Missing where captions cannot be searched by their words."""
    if not available(connection):
        raise Missing("text-no-fts5")
    if not in_step(connection):
        raise Missing("text-behind")


def catch_up(connection: sqlite3.Connection) -> None:
    """Before a run: make the index if it is not there or is behind."""
    if available(connection) and not in_step(connection):
        with transaction(connection):
            rebuild(connection)


def follow(
    connection: sqlite3.Connection, gone: Sequence[int], fresh: Iterable[tuple[int, str]]
) -> None:
    """Take out the captions ``gone``, which must still be in their table, and put in ``fresh``
    ones, (id, text), within the transaction that changes the captions."""
    if not available(connection):
        set_setting(connection, BEHIND, "yes")
        return
    old = select_in(connection, f"{_CAPTIONS} WHERE id IN ({{marks}})", list(gone))
    connection.executemany(_TAKE, _rows(old))
    connection.executemany(_PUT, ((id_, indexed(text)) for id_, text in fresh))


def rebuild(connection: sqlite3.Connection) -> None:
    """Make the index anew from the captions, within a transaction; without FTS5, say that it
    is behind."""
    if not available(connection):
        set_setting(connection, BEHIND, "yes")
        return
    if _exists(connection):
        with closing(sqlite3.connect(":memory:")) as empty:  # FTS5 would drop no damaged one
            empty.execute(CREATE)
            _lay_over(empty, connection)
        connection.execute(f"DROP TABLE {TABLE}")
    connection.execute(CREATE)
    connection.executemany(_PUT, _rows(connection.execute(_CAPTIONS)))
    if setting(connection, BEHIND) is not None:
        connection.execute("DELETE FROM meta WHERE key = ?", (BEHIND,))


def of_captions(captions: Sequence[str]) -> sqlite3.Connection:
    """An index in memory, for ``fts.ranked``: caption i is image i's. Missing without FTS5."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if not available(connection):
        raise Missing("text-no-fts5")
    connection.execute("CREATE TABLE captions (id INTEGER PRIMARY KEY, image_id INTEGER)")
    connection.execute(CREATE)
    numbers = [(number, number) for number in range(len(captions))]
    connection.executemany("INSERT INTO captions VALUES (?, ?)", numbers)
    connection.executemany(_PUT, ((i, indexed(text)) for i, text in enumerate(captions)))
    return connection


def fault(connection: sqlite3.Connection) -> str:
    """What is wrong with the index; "" where nothing is, or where there is no FTS5 to tell.
    FTS5 compares a copy of the index with the pieces of the captions, in a database of its own:
    to be asked, it must be able to write."""
    if not available(connection):
        return ""
    if not in_step(connection):
        (captions,) = connection.execute("SELECT EXISTS (SELECT 1 FROM captions)").fetchone()
        return "behind the captions" if captions else ""
    import tempfile  # which no search needs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            copy.execute(_OWN_COPY.format(TABLE))
            with transaction(copy):
                try:
                    _lay_over(connection, copy)
                    said = _rows(connection.execute(_CAPTIONS))
                    copy.executemany(f"INSERT INTO {TABLE}_content VALUES (?, ?)", said)
                except FAULTS as error:
                    if passes(error):
                        raise
                    return str(error)
        with closing(sqlite3.connect(path)) as copy:  # anew: FTS5 keeps in mind what it wrote
            try:
                copy.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('integrity-check')")
            except sqlite3.DatabaseError as error:
                return str(error)
    return ""


def _lay_over(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Give the index in ``target`` the rows that FTS5 keeps for the one in ``source``."""
    for part, columns in (("data", 2), ("idx", 3), ("docsize", 2), ("config", 2)):
        target.execute(f"DELETE FROM {TABLE}_{part}")
        marks = ",".join("?" * columns)
        rows = source.execute(f"SELECT * FROM {TABLE}_{part}")
        target.executemany(f"INSERT INTO {TABLE}_{part} VALUES ({marks})", _plain(rows))


def _plain(rows: Iterable[Sequence[object]]) -> Iterator[list[object]]:
    """Text as text again: ``connection`` may give it undecoded."""
    for row in rows:
        yield [v.decode() if isinstance(v, bytes) and type(v) is not bytes else v for v in row]


def _rows(captions: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for id_, text in captions:
        yield id_, indexed(text.decode("utf-8", "replace"))


def _exists(connection: sqlite3.Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(sql, (TABLE,)).fetchone() is not None
