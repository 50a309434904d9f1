"""Bringing an index that an older Soutu made to the schema of this one.

One transaction under the write lock: killed at any moment, the index is as it was before. Steps
are written out with the names and columns of their time, since ``rows.TABLES`` moves on.
"""

from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from soutu.errors import IndexCorrupt, Missing, MissingIndex
from soutu.fs import DATABASE, write_lock
from soutu.store.text_search import CREATE_FTS, TABLE, available, fts_text

# The truth about a gallery: SQLite rows, each with a checksum over its own fields.
#
# SQLite's check of a file does not see a flipped letter; the checksums do
# (``store/sqlite/verify.py``).
# Paths and remembered settings are raw bytes. All writing goes through ``write``.


SCHEMA_VERSION = 3  # a format of another number must also differ in ``CREATE`` (structure.py)

Field: TypeAlias = "int | str | bytes"

READ_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
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
    with translate_sqlite_errors(home):
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
def translate_sqlite_errors(home: Path) -> Iterator[None]:
    """Turn what SQLite says about a broken, busy or full file into IndexCorrupt."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a fault of ours, not of the file
    except READ_ERRORS as error:
        code = "index-failed" if is_transient(error) else "index-damaged"
        raise IndexCorrupt(code, home=str(home), error=str(error)) from error


def is_transient(error: Exception) -> bool:
    """Whether SQLite was only kept from its work: by a lock, by permissions, by the disk."""
    message = str(error)
    return isinstance(error, sqlite3.OperationalError) and any(word in message for word in _PASSING)


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
    from soutu.store import text_search  # most who come here find tables

    return [text_search.CREATE_FTS] if text_search.available(connection) else []


def check_version(connection: sqlite3.Connection, home: Path) -> int:
    """The version of the tables. MissingIndex if there are none yet, IndexCorrupt if a newer
    Soutu made them."""
    version = version_of(connection)
    if version == 0:
        raise MissingIndex("index-missing", folder=str(home.parent))
    if version > SCHEMA_VERSION:
        raise IndexCorrupt("index-newer", home=str(home), found=version, understood=SCHEMA_VERSION)
    return version


def casefold_nfc(text: str) -> str:
    """``text`` as texts are compared: NFC, without case; bytes that are no text are question
    marks."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()).casefold()


def casefold_name(path: str) -> str:
    """The file's name in ``path``, folded."""
    return casefold_nfc(path.rpartition("/")[2])


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


def get_counter(connection: sqlite3.Connection, name: str) -> int:
    """The value of a counter; 0 where it has not begun."""
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def next_ids(connection: sqlite3.Connection, name: str, by: int = 1) -> int:
    """Count ``by`` further; returns the value before. Counters never go back, so that an id or
    a slot that an older reader knows is never given to something else."""
    before = get_counter(connection, name)
    if by:
        write(connection, "counters", [(name, before + by)])
    return before


def get_meta(connection: sqlite3.Connection, key: str) -> str | None:
    """A remembered text; None if nothing is remembered under ``key``."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0]).decode("utf-8", "surrogateescape")


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
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


# The text index in step with the captions: changed in their transaction, made anew from them.
#
# It is derived. A Python whose SQLite has no FTS5 can write all else; then the index stays behind
# until one that has it writes again.


BEHIND = "text_behind"  # remembered where captions changed and the index could not
_CAPTIONS = "SELECT id, CAST(text AS BLOB) FROM captions"  # damaged, a text may be no text
_PUT = f"INSERT INTO {TABLE} (rowid, pieces) VALUES (?, ?)"
_TAKE = f"INSERT INTO {TABLE} ({TABLE}, rowid, pieces) VALUES ('delete', ?, ?)"


def in_step(connection: sqlite3.Connection) -> bool:
    """Whether there is an index that says what the captions say; FTS5 is there."""
    return _exists(connection) and get_meta(connection, BEHIND) != "yes"


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
    connection: sqlite3.Connection, removed: Sequence[int], added: Iterable[tuple[int, str]]
) -> None:
    """Take out the captions ``gone``, which must still be in their table, and put in ``fresh``
    ones, (id, text), within the transaction that changes the captions."""
    if not available(connection):
        set_meta(connection, BEHIND, "yes")
        return
    old = select_in(connection, f"{_CAPTIONS} WHERE id IN ({{marks}})", list(removed))
    connection.executemany(_TAKE, _rows(old))
    connection.executemany(_PUT, ((id_, fts_text(text)) for id_, text in added))


def rebuild(connection: sqlite3.Connection) -> None:
    """Make the index anew from the captions, within a transaction; without FTS5, say that it
    is behind."""
    if not available(connection):
        set_meta(connection, BEHIND, "yes")
        return
    if _exists(connection):
        connection.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')")
    else:
        connection.execute(CREATE_FTS)
    connection.executemany(_PUT, _rows(connection.execute(_CAPTIONS)))
    if get_meta(connection, BEHIND) is not None:
        connection.execute("DELETE FROM meta WHERE key = ?", (BEHIND,))


def of_captions(captions: Sequence[str]) -> sqlite3.Connection:
    """An index in memory, for ``fts.ranked``: caption i is image i's. Missing without FTS5."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if not available(connection):
        raise Missing("text-no-fts5")
    connection.execute("CREATE TABLE captions (id INTEGER PRIMARY KEY, image_id INTEGER)")
    connection.execute(CREATE_FTS)
    numbers = [(number, number) for number in range(len(captions))]
    connection.executemany("INSERT INTO captions VALUES (?, ?)", numbers)
    connection.executemany(_PUT, ((i, fts_text(text)) for i, text in enumerate(captions)))
    return connection


def text_index_error(connection: sqlite3.Connection) -> str:
    """Say what is wrong with the text index; "" where nothing is, or where there is no FTS5.

    FTS5 can be asked only where it can write, and compares only with a table of its own: so a
    copy of its tables is put beside the captions' pieces in a temporary database.
    """
    if not available(connection):
        return ""
    if not in_step(connection):
        (captions,) = connection.execute("SELECT EXISTS (SELECT 1 FROM captions)").fetchone()
        return "behind the captions" if captions else ""
    import tempfile  # which no search needs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.db"
        try:
            with closing(sqlite3.connect(path)) as copy, copy:
                copy.execute(CREATE_FTS.replace("content='', ", ""))
                for part, columns in (("data", 2), ("idx", 3), ("docsize", 2), ("config", 2)):
                    copy.execute(f"DELETE FROM {TABLE}_{part}")
                    rows = map(_decode_row, connection.execute(f"SELECT * FROM {TABLE}_{part}"))
                    marks = ",".join("?" * columns)
                    copy.executemany(f"INSERT INTO {TABLE}_{part} VALUES ({marks})", rows)
                texts = _rows(connection.execute(_CAPTIONS))
                copy.executemany(f"INSERT INTO {TABLE}_content VALUES (?, ?)", texts)
            with closing(sqlite3.connect(path)) as copy:  # anew: FTS5 keeps in mind what it wrote
                copy.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('integrity-check')")
        except READ_ERRORS as error:
            if is_transient(error):
                raise
            return str(error)
    return ""


def _decode_row(row: Sequence[object]) -> list[object]:
    """Make text text again: ``connection`` may give it undecoded, as a subclass of bytes."""
    return [v.decode() if isinstance(v, bytes) and type(v) is not bytes else v for v in row]


def _rows(captions: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for id_, text in captions:
        yield id_, fts_text(text.decode("utf-8", "replace"))


def _exists(connection: sqlite3.Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(sql, (TABLE,)).fetchone() is not None


MIGRATION_WAIT = 60.0  # seconds to wait for another process that is about the same thing
_BATCH_ROWS = 10_000

_PATHS_2 = """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"""


def migrate(home: Path, version: int) -> None:
    """Bring the index at ``home`` from version ``found`` to ``SCHEMA_VERSION``. IndexCorrupt where
    it cannot be written, or where an index run goes on for longer than ``MIGRATION_WAIT``."""
    if not os.access(home, os.W_OK):
        raise IndexCorrupt("index-older", home=str(home), found=version, current=SCHEMA_VERSION)
    with write_lock(home, wait=MIGRATION_WAIT):
        connection = connect(home, writing=True)
        try:
            with translate_sqlite_errors(home), transaction(connection):
                current = int(connection.execute("PRAGMA user_version").fetchone()[0])
                for step in range(current, SCHEMA_VERSION):  # another process may have done them
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
    while batch := rows.fetchmany(_BATCH_ROWS):
        connection.executemany(
            "INSERT INTO paths VALUES (?, ?, ?, ?, ?, ?)",
            [(*fields, *_migrate_path(fields, seal)) for *fields, seal in batch],
        )
    connection.execute("DROP TABLE paths_1")
    connection.execute("CREATE INDEX paths_by_image ON paths (image_id)")


def _migrate_path(fields: list[bytes | int], seal: bytes) -> tuple[str, bytes]:
    """The name, and the new seal; a row that was damaged stays one that is seen to be."""
    name = casefold_name(os.fsdecode(fields[0])) if isinstance(fields[0], bytes) else ""
    intact = checksum("paths", *fields) == seal
    return name, checksum("paths", *fields, name) if intact else bytes(8)


def _text(connection: sqlite3.Connection) -> None:
    """From 2 to 3: captions can be searched by their words."""
    connection.execute("DROP INDEX captions_by_image")
    connection.execute("CREATE INDEX captions_by_image ON captions (image_id, position, id)")
    rebuild(connection)  # as it is made today: it is derived, and this step the last to make it


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _names, 2: _text}
