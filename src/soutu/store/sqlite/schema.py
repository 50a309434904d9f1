"""Define the tables of an index, read and write their rows, and migrate older versions.

Each row has a checksum over its own fields: SQLite's check of a file does not see a flipped letter
(``check.py``). Paths and settings are raw bytes. All writing goes through ``write``.
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

SCHEMA_VERSION = 3  # a format of another number must also differ in ``CREATE`` (check.py)

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
    """Connect to the database in ``home`` (absolute); transactions are begun explicitly.

    A folder that cannot be written is opened as immutable: nobody changes it meanwhile.
    """
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
    """Turn SQLite's errors about a broken, busy or full file into IndexCorrupt."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # our own bug, not the file's
    except READ_ERRORS as error:
        code = "index-failed" if is_transient(error) else "index-damaged"
        raise IndexCorrupt(code, home=str(home), error=str(error)) from error


def is_transient(error: Exception) -> bool:
    """Whether a lock, permissions or the disk kept SQLite from its work."""
    message = str(error)
    return isinstance(error, sqlite3.OperationalError) and any(word in message for word in _PASSING)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all that is written inside, or none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables if there are none, and the text index where SQLite has FTS5."""
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
    """Return the version of the tables.

    Raises MissingIndex if there are none yet, IndexCorrupt if a newer Soutu made them.
    """
    version = version_of(connection)
    if version == 0:
        raise MissingIndex("index-missing", folder=str(home.parent))
    if version > SCHEMA_VERSION:
        raise IndexCorrupt("index-newer", home=str(home), found=version, understood=SCHEMA_VERSION)
    return version


def casefold_nfc(text: str) -> str:
    """Fold ``text`` for comparison: NFC, without case, undecodable bytes as ``?``."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()).casefold()


def casefold_name(path: str) -> str:
    """Return the file name in ``path``, folded."""
    return casefold_nfc(path.rpartition("/")[2])


def checksum(table: str, *fields: Field) -> bytes:
    """Return 8 bytes of BLAKE2b over the table's name and the fields.

    Each field is i and the number in decimal, or b and the bytes (text as UTF-8), with its length
    before the data, so that fields cannot run together.
    """
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
    """Insert ``rows`` (columns as in ``TABLES``) with checksums; replace those of the same key.

    ``covered`` are bytes stored elsewhere, one for each row, that its checksum covers too.
    """
    marks = ",".join("?" * (len(TABLES[table]) + 1))
    if covered is None:
        sealed = ((*row, checksum(table, *row)) for row in rows)
    else:
        sealed = (
            (*row, checksum(table, *row, more)) for row, more in zip(rows, covered, strict=True)
        )
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", sealed)


def get_counter(connection: sqlite3.Connection, name: str) -> int:
    """Return the value of a counter; 0 if it was never advanced."""
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def next_ids(connection: sqlite3.Connection, name: str, by: int = 1) -> int:
    """Advance a counter by ``by`` and return the value before.

    Counters never go back: an id or a slot that an older reader knows is never given away again.
    """
    before = get_counter(connection, name)
    if by:
        write(connection, "counters", [(name, before + by)])
    return before


def get_meta(connection: sqlite3.Connection, key: str) -> str | None:
    """Return the text stored under ``key``, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0]).decode("utf-8", "surrogateescape")


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Store ``value`` under ``key``; a path that is not valid Unicode survives."""
    write(connection, "meta", [(key, value.encode("utf-8", "surrogateescape"))])


def select_in(
    connection: sqlite3.Connection, sql: str, values: Sequence[Field]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of ``sql``, whose ``{marks}`` stands in an IN (…), for any ``values``."""
    for start in range(0, len(values), 500):  # old builds of SQLite take no more than 999
        part = values[start : start + 500]
        yield from connection.execute(sql.format(marks=",".join("?" * len(part))), part)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version; 0 for an empty database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


# The text index is derived from the captions and changed in their transaction. A Python whose
# SQLite has no FTS5 can write all else; the index stays behind until one with FTS5 writes again.
BEHIND = "text_behind"  # set where captions changed and the index could not
_CAPTIONS = "SELECT id, CAST(text AS BLOB) FROM captions"  # damaged, a text may be no text
_PUT = f"INSERT INTO {TABLE} (rowid, pieces) VALUES (?, ?)"
_TAKE = f"INSERT INTO {TABLE} ({TABLE}, rowid, pieces) VALUES ('delete', ?, ?)"


def in_step(connection: sqlite3.Connection) -> bool:
    """Whether a text index exists and is up to date; requires FTS5."""
    return _exists(connection) and get_meta(connection, BEHIND) != "yes"


def require(connection: sqlite3.Connection) -> None:
    """Raise Missing where captions cannot be searched by their words."""
    if not available(connection):
        raise Missing("text-no-fts5")
    if not in_step(connection):
        raise Missing("text-behind")


def catch_up(connection: sqlite3.Connection) -> None:
    """Create the text index before a run if it is missing or behind."""
    if available(connection) and not in_step(connection):
        with transaction(connection):
            rebuild(connection)


def follow(
    connection: sqlite3.Connection, removed: Sequence[int], added: Iterable[tuple[int, str]]
) -> None:
    """Remove the captions ``removed`` from the text index and add ``added``, pairs of (id, text).

    Call it in the transaction that changes the captions, before ``removed`` leave their table.
    """
    if not available(connection):
        set_meta(connection, BEHIND, "yes")
        return
    old = select_in(connection, f"{_CAPTIONS} WHERE id IN ({{marks}})", list(removed))
    connection.executemany(_TAKE, _rows(old))
    connection.executemany(_PUT, ((id_, fts_text(text)) for id_, text in added))


def rebuild(connection: sqlite3.Connection) -> None:
    """Rebuild the text index, within a transaction; without FTS5, mark it as behind."""
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
    """Index captions in memory, caption i as image i's; raises Missing without FTS5."""
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
    """Describe what is wrong with the text index; "" where nothing is, or without FTS5.

    FTS5 can check itself only where it can write, and only against a table of its own. So its
    tables are copied to a temporary database, beside the pieces of the captions.
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
            with closing(sqlite3.connect(path)) as copy:  # reopened: FTS5 caches what it wrote
                copy.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('integrity-check')")
        except READ_ERRORS as error:
            if is_transient(error):
                raise
            return str(error)
    return ""


def _decode_row(row: Sequence[object]) -> list[object]:
    """Decode text that ``connection`` may give undecoded, as a subclass of bytes."""
    return [v.decode() if isinstance(v, bytes) and type(v) is not bytes else v for v in row]


def _rows(captions: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for id_, text in captions:
        yield id_, fts_text(text.decode("utf-8", "replace"))


def _exists(connection: sqlite3.Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(sql, (TABLE,)).fetchone() is not None


MIGRATION_WAIT = 60.0  # seconds to wait for another process, which may be migrating too
_BATCH_ROWS = 10_000

# Migrations spell out names and columns as of their version, since ``TABLES`` moves on.
_PATHS_2 = """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"""


def migrate(home: Path, version: int) -> None:
    """Migrate the index at ``home`` from ``version`` to ``SCHEMA_VERSION``.

    All steps are one transaction under the write lock: killed at any moment, the index is as it was
    before. Raises IndexCorrupt where it cannot be written, or where an index run takes longer than
    ``MIGRATION_WAIT``.
    """
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
    """Migrate from 1 to 2: store the folded file name of each path.

    Name patterns then need not go through Python for each of a million paths.
    """
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
    """Return the name and the new checksum; a damaged row stays recognizable."""
    name = casefold_name(os.fsdecode(fields[0])) if isinstance(fields[0], bytes) else ""
    intact = checksum("paths", *fields) == seal
    return name, checksum("paths", *fields, name) if intact else bytes(8)


def _text(connection: sqlite3.Connection) -> None:
    """Migrate from 2 to 3: let captions be searched by their words."""
    connection.execute("DROP INDEX captions_by_image")
    connection.execute("CREATE INDEX captions_by_image ON captions (image_id, position, id)")
    rebuild(connection)  # in today's form: it is derived, and this is the last step to make it


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _names, 2: _text}
