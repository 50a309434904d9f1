"""The truth about a gallery: SQLite rows, each with a checksum over its own fields.

SQLite's check of a file does not see a flipped letter; the checksums do (``store/verify.py``).
Paths and remembered settings are raw bytes. All writing goes through ``write``.
"""

from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.store.home import DATABASE

SCHEMA_VERSION = 3  # a format of another number must also differ in ``CREATE`` (structure.py)

Field: TypeAlias = "int | str | bytes"

FAULTS = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises; the second where SQLite's own words quote what is no text."""

_PASSING = ("locked", "busy", "unable to open", "disk", "readonly")

TABLES: dict[str, tuple[str, ...]] = {
    "meta": ("key", "value"),
    "counters": ("name", "value"),
    "spaces": ("id", "space", "folder", "card", "since"),
    "images": ("id", "content", "width", "height", "taken"),
    "paths": ("path", "size", "mtime_ns", "image_id", "name"),
    "captions": ("id", "image_id", "text", "tags", "position"),
    "image_vectors": ("space", "owner", "slot"),
    "caption_vectors": ("space", "owner", "slot"),
    "packed": ("space", "kind", "revision", "pairs"),
    "changes": ("id", "generation", "kind", "path", "other", "time"),
}
"""The columns of each table, key first; a column ``checksum`` (8 bytes) follows in each."""

CREATE = (
    """CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL,
        checksum BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL,
        checksum BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE spaces (id INTEGER PRIMARY KEY, space TEXT NOT NULL UNIQUE,
        folder TEXT NOT NULL, card TEXT NOT NULL, since TEXT NOT NULL, checksum BLOB NOT NULL)""",
    """CREATE TABLE images (id INTEGER PRIMARY KEY, content BLOB NOT NULL UNIQUE,
        width INTEGER NOT NULL, height INTEGER NOT NULL, taken TEXT NOT NULL,
        checksum BLOB NOT NULL)""",
    """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX paths_by_image ON paths (image_id)",
    """CREATE TABLE captions (id INTEGER PRIMARY KEY,
        image_id INTEGER NOT NULL REFERENCES images, text TEXT NOT NULL, tags TEXT NOT NULL,
        position INTEGER NOT NULL, checksum BLOB NOT NULL)""",
    "CREATE INDEX captions_by_image ON captions (image_id, position, id)",
    """CREATE TABLE image_vectors (space INTEGER NOT NULL, owner INTEGER NOT NULL,
        slot INTEGER NOT NULL, checksum BLOB NOT NULL,
        PRIMARY KEY (space, owner)) WITHOUT ROWID""",
    """CREATE TABLE caption_vectors (space INTEGER NOT NULL, owner INTEGER NOT NULL,
        slot INTEGER NOT NULL, checksum BLOB NOT NULL,
        PRIMARY KEY (space, owner)) WITHOUT ROWID""",
    """CREATE TABLE packed (space INTEGER NOT NULL, kind TEXT NOT NULL,
        revision INTEGER NOT NULL, pairs BLOB NOT NULL, checksum BLOB NOT NULL,
        PRIMARY KEY (space, kind))""",
    """CREATE TABLE changes (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL,
        kind TEXT NOT NULL, path BLOB NOT NULL, other BLOB NOT NULL, time TEXT NOT NULL,
        checksum BLOB NOT NULL)""",
)


def connect(home: Path, *, writing: bool = False) -> sqlite3.Connection:
    """A connection to the rows at ``home`` (absolute); transactions are begun by hand.
    A folder that cannot be written is read as it stands: nobody changes it beneath us."""
    frozen = not os.access(home, os.W_OK)
    mode = "?mode=ro&immutable=1" if frozen else "?mode=rw"
    with guard(home):
        connection = sqlite3.connect(
            (home / DATABASE).as_uri() + mode,
            uri=True,
            timeout=10,
            isolation_level=None,
            check_same_thread=False,  # each thread has its own; close() may come from another
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            if not writing:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def guard(home: Path) -> Iterator[None]:
    """Turn what SQLite says about a broken, busy or full file into IndexCorrupt."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a fault of ours, not of the file
    except FAULTS as error:
        code = "index-failed" if passes(error) else "index-damaged"
        raise IndexCorrupt(code, home=str(home), fault=str(error)) from error


def passes(error: Exception) -> bool:
    """Whether SQLite was only kept from its work: by a lock, by permissions, by the disk."""
    said = str(error)
    return isinstance(error, sqlite3.OperationalError) and any(word in said for word in _PASSING)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside is committed at its end, or none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables unless there are some, and the text index where SQLite has FTS5."""
    if version_of(connection) == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            if version_of(connection) == 0:  # another process may have been quicker
                for statement in (*CREATE, *_text_index(connection)):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _text_index(connection: sqlite3.Connection) -> list[str]:
    from soutu.store import fts  # most who come here find tables

    return [fts.CREATE] if fts.available(connection) else []


def check_version(connection: sqlite3.Connection, home: Path) -> int:
    """The version of the tables. MissingIndex if there are none yet, IndexCorrupt if a newer
    Soutu made them."""
    version = version_of(connection)
    if version == 0:
        raise MissingIndex("index-missing", folder=str(home.parent))
    if version > SCHEMA_VERSION:
        raise IndexCorrupt("index-newer", home=str(home), found=version, understood=SCHEMA_VERSION)
    return version


def folded(text: str) -> str:
    """``text`` as texts are compared: NFC, without case; bytes that are no text are question
    marks."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()).casefold()


def folded_name(path: str) -> str:
    """The file's name in ``path``, folded."""
    return folded(path.rpartition("/")[2])


def checksum(table: str, *fields: Field) -> bytes:
    """8 bytes of BLAKE2b over the table's name and the fields: i and the number in decimal, or
    b and the bytes (text as UTF-8), each preceded by its length so that fields cannot run
    together."""
    from hashlib import blake2b  # readers never need it, and it costs them milliseconds

    digest = blake2b(digest_size=8)
    for field in (table, *fields):
        if isinstance(field, int):
            kind, data = "i", str(field).encode()
        else:
            kind, data = "b", field.encode() if isinstance(field, str) else field
        digest.update(f"{kind}{len(data)}:".encode())
        digest.update(data)
    return digest.digest()


def write(
    connection: sqlite3.Connection,
    table: str,
    rows: Iterable[tuple[Field, ...]],
    *,
    covered: Iterable[bytes] | None = None,
) -> None:
    """Insert ``rows`` (columns as in ``TABLES``) or replace those of the same key, sealed.
    ``covered`` are bytes kept elsewhere, one for each row, that its checksum covers too."""
    marks = ",".join("?" * (len(TABLES[table]) + 1))
    if covered is None:
        sealed = ((*row, checksum(table, *row)) for row in rows)
    else:
        sealed = (
            (*row, checksum(table, *row, more)) for row, more in zip(rows, covered, strict=True)
        )
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", sealed)


def counter(connection: sqlite3.Connection, name: str) -> int:
    """The value of a counter; 0 where it has not begun."""
    found = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(found[0]) if found else 0


def advance(connection: sqlite3.Connection, name: str, by: int = 1) -> int:
    """Count ``by`` further; returns the value before. Counters never go back, so that an id or
    a slot that an older reader knows is never given to something else."""
    before = counter(connection, name)
    if by:
        write(connection, "counters", [(name, before + by)])
    return before


def setting(connection: sqlite3.Connection, key: str) -> str | None:
    """A remembered text; None if nothing is remembered under ``key``."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if found is None else bytes(found[0]).decode("utf-8", "surrogateescape")


def set_setting(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Remember ``value``; a path that is no valid Unicode survives."""
    write(connection, "meta", [(key, value.encode("utf-8", "surrogateescape"))])


def select_in(
    connection: sqlite3.Connection, sql: str, values: Sequence[Field]
) -> Iterator[tuple[Any, ...]]:
    """Rows of ``sql``, whose ``{marks}`` stands in an IN (…), for any number of ``values``."""
    for start in range(0, len(values), 500):  # old builds of SQLite take no more than 999
        part = values[start : start + 500]
        yield from connection.execute(sql.format(marks=",".join("?" * len(part))), part)


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
