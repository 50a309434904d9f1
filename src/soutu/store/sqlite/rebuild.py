"""A database whose file is damaged, put together anew from the rows that can still be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, make_private_file, sync_folder, unwritable
from soutu.store.sqlite.folder import FRESH
from soutu.store.sqlite.notes import Notes
from soutu.store.sqlite.pages import records
from soutu.store.sqlite.schema import FAULTS, TABLES, create_tables, transaction
from soutu.store.sqlite.sealed import KINDS_BY_TABLE, Row, Slabs, Text, is_sealed, select
from soutu.store.sqlite.verify import connect_raw

_PLAIN = tuple(table for table in TABLES if table not in {*KINDS_BY_TABLE, "packed"})
_BESIDE = ("-wal", "-shm", "-journal")  # SQLite's files beside a database


def rebuild(home: Path, stamp: str, notes: Notes) -> Path:
    """Replace the database at ``home`` by one that SQLite can read, under the write lock; returns
    where the damaged one is kept. Rows that fail their checksums come along: judging them is
    the next step's (``repair.py``). OSError or DatabaseError where that cannot be done; the
    old database is then as it was."""
    damaged = _keep(home, f"{DATABASE}.damaged-{stamp}")
    fresh = home / FRESH
    _remove(fresh, "", *_BESIDE)
    make_private_file(fresh)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
        create_tables(connection)
        with transaction(connection):
            _fill(connection, home, notes)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    notes.sync()
    try:
        # What was written ahead of the old file must not be read into the new one.
        _remove(home / DATABASE, *_BESIDE)
        fresh.replace(home / DATABASE)
        sync_folder(home)
    except OSError as error:
        raise unwritable(home / DATABASE, error) from error
    return damaged


def _keep(home: Path, name: str) -> Path:
    """A copy of the database with what was written ahead of it, in SQLite's own naming."""
    for ending in ("", "-wal"):
        source, target = home / f"{DATABASE}{ending}", home / f"{name}{ending}"
        if source.is_file() and (not ending or source.stat().st_size):
            make_private_file(target)
            with open(source, "rb") as before, open(target, "r+b") as after:
                shutil.copyfileobj(before, after)
                after.flush()
                os.fsync(after.fileno())
    sync_folder(home)
    return home / name


def _remove(path: Path, *endings: str) -> None:
    for ending in endings:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _fill(fresh: sqlite3.Connection, home: Path, notes: Notes) -> None:
    """Rows that are what was written come first: no damaged one takes their place."""
    with _opened(home) as old:
        for tables in (_PLAIN, tuple(KINDS_BY_TABLE)):  # vectors need their space to be judged
            slabs = Slabs(fresh, home)
            for table in tables:
                for row in _walk(old, table):
                    if _whole(table, row, slabs):
                        _put(fresh, table, row)
            for table, row in _found(home / DATABASE, tables, slabs):
                _put(fresh, table, row)
            for table in tables:
                for row in _walk(old, table):
                    if not _whole(table, row, slabs) and not _put(fresh, table, row):
                        notes.add(table, row, "taken")


@contextmanager
def _opened(home: Path) -> Iterator[sqlite3.Connection | None]:
    """The damaged database; None where SQLite takes it for none at all."""
    try:
        connection = connect_raw(home)
    except IndexCorrupt:
        yield None
        return
    with closing(connection):
        yield connection


def _walk(old: sqlite3.Connection | None, table: str) -> Iterator[Row]:
    """The rows that SQLite gives before it gives up."""
    if old is not None:
        with suppress(*FAULTS):
            yield from old.execute(select(table))


def _found(path: Path, tables: tuple[str, ...], slabs: Slabs) -> Iterator[tuple[str, Row]]:
    """Rows of ``tables`` wherever they lie in the file."""
    for rowid, values in records(path):
        row = values if rowid is None else (rowid, *values[1:])
        for table in tables:
            if _whole(table, row, slabs):
                yield table, row


def _whole(table: str, row: Row, slabs: Slabs) -> bool:
    kind = KINDS_BY_TABLE.get(table)
    if kind is None:
        return is_sealed(table, row)
    if len(row) != len(TABLES[table]) + 1:
        return False
    vector = slabs.vector(kind, row[0], row[2])
    return vector is not None and is_sealed(table, row, vector)


def _put(fresh: sqlite3.Connection, table: str, row: Row) -> bool:
    """Insert ``row`` as it is; False where its key is taken or it is no row."""
    marks = ",".join("CAST(? AS TEXT)" if isinstance(value, Text) else "?" for value in row)
    done = fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
    return done.rowcount == 1
