"""Bringing an index that an older Soutu made to the schema of this one.

One transaction under the write lock: killed at any moment, the index is as it was before. Steps
are written out with the names and columns of their time, since ``rows.TABLES`` moves on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from soutu.errors import IndexCorrupt
from soutu.store.lock import write_lock
from soutu.store.rows import SCHEMA_VERSION, checksum, connect, folded_name, guard, transaction
from soutu.store.text_index import rebuild

PATIENCE = 60.0  # seconds to wait for another process that is about the same thing
_ROWS = 10_000

_PATHS_2 = """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"""


def migrate(home: Path, found: int) -> None:
    """Bring the index at ``home`` from version ``found`` to ``SCHEMA_VERSION``. IndexCorrupt where
    it cannot be written, or where an index run goes on for longer than ``PATIENCE``."""
    if not os.access(home, os.W_OK):
        raise IndexCorrupt("index-older", home=str(home), found=found, wanted=SCHEMA_VERSION)
    with write_lock(home, patience=PATIENCE):
        connection = connect(home, writing=True)
        try:
            with guard(home), transaction(connection):
                version = int(connection.execute("PRAGMA user_version").fetchone()[0])
                for step in range(version, SCHEMA_VERSION):  # another process may have done them
                    _STEPS[step](connection)
                    connection.execute(f"PRAGMA user_version = {step + 1}")
        finally:
            connection.close()


def _names(connection: sqlite3.Connection) -> None:
    """From 1 to 2: each path has its file's name beside it, folded, so that a name pattern need
    not go through Python for each of a million paths."""
    # SQLite keeps the words of a definition, and doctor compares them: the new table is made
    # under its own name.
    connection.execute("ALTER TABLE paths RENAME TO paths_1")
    connection.execute(_PATHS_2)
    rows = connection.execute("SELECT path, size, mtime_ns, image_id, checksum FROM paths_1")
    while batch := rows.fetchmany(_ROWS):
        connection.executemany(
            "INSERT INTO paths VALUES (?, ?, ?, ?, ?, ?)",
            [(*fields, *_named(fields, seal)) for *fields, seal in batch],
        )
    connection.execute("DROP TABLE paths_1")
    connection.execute("CREATE INDEX paths_by_image ON paths (image_id)")


def _named(fields: list[bytes | int], seal: bytes) -> tuple[str, bytes]:
    """The name, and the new seal; a row that was damaged stays one that is seen to be."""
    name = folded_name(os.fsdecode(fields[0])) if isinstance(fields[0], bytes) else ""
    whole = checksum("paths", *fields) == seal
    return name, checksum("paths", *fields, name) if whole else bytes(8)


def _text(connection: sqlite3.Connection) -> None:
    """From 2 to 3: captions can be searched by their words."""
    connection.execute("DROP INDEX captions_by_image")
    connection.execute("CREATE INDEX captions_by_image ON captions (image_id, position, id)")
    rebuild(connection)  # as it is made today: it is derived, and this step the last to make it


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _names, 2: _text}
