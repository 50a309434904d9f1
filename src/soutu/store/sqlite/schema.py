"""Define the tables of an index, read and write their rows, and migrate older versions.

Each row has a checksum over its own fields: SQLite's check of a file does not see a flipped letter
(``check.py``). Paths and settings are raw bytes. All writing goes through ``write``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, missing_index, write_lock
from soutu.store.base import CaptionRow

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

SCHEMA_VERSION = 4  # a format of another number must also differ in ``CREATE`` (check.py)

Field: TypeAlias = "int | str | bytes"

_NETWORK = re.compile(
    r"(nfs\d*|cifs|smb\w*|ncpfs|afs|9p|ceph|lustre|beegfs|glusterfs|davfs2?|coda"
    r"|fuse\.(sshfs|glusterfs\w*|ceph\w*|rclone|s3fs\w*|davfs2?|juicefs|smb\w*|goofys|gcsfuse))"
)

READ_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises; the second where SQLite's own words quote what is no text."""

_DISK = re.compile("disk|unable to open")
_PASSING = ("locked", "busy", "unable to open", "disk", "readonly")

TABLES: dict[str, tuple[str, ...]] = {
    "meta": ("key", "value"),
    "counters": ("name", "value"),
    "spaces": ("id", "space", "folder", "card", "since"),
    "images": ("id", "content", "width", "height", "taken"),
    "paths": ("path", "size", "mtime_ns", "image_id", "name", "ctime_ns", "inode"),
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
        name TEXT NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        checksum BLOB NOT NULL) WITHOUT ROWID""",
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

    SQLite keeps files of its own beside the database. Where these cannot be made (a read-only or a
    full disk) nobody writes meanwhile, and readers do without them.
    """
    refuse_network_storage(home)
    with translate_sqlite_errors(home):
        if os.access(home, os.W_OK):
            try:
                return _connect(home, "mode=rw", writing=writing)
            except sqlite3.OperationalError as error:
                if writing or not _DISK.search(str(error)):
                    raise
        if writing or not _has_log(home):
            return _connect(home, "mode=ro&immutable=1", writing=writing)
        try:
            return _connect(home, "mode=ro")
        except sqlite3.OperationalError as error:
            try:
                copy = Path(_copy(home).name)
            except OSError:  # no place for it either
                raise error from None
            return _connect(copy, "mode=rw")


def _connect(home: Path, mode: str, *, writing: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{(home / DATABASE).as_uri()}?{mode}",
        uri=True,
        timeout=10,
        isolation_level=None,
        check_same_thread=False,  # each thread has its own; close() may come from another
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if not writing:
            connection.execute("PRAGMA query_only = ON")
        version_of(connection)  # makes its files, or fails
    except BaseException:
        connection.close()
        raise
    return connection


def _has_log(home: Path) -> bool:
    """Whether a writer that was killed has left what it committed beside the database."""
    try:
        return (home / f"{DATABASE}-wal").stat().st_size > 0
    except OSError:
        return False


@cache
def _copy(home: Path) -> TemporaryDirectory[str]:
    """Copy database and log to where SQLite can make its files; removed when the process ends."""
    from tempfile import TemporaryDirectory  # which few readers need

    folder = TemporaryDirectory(prefix="soutu-")
    for name in (DATABASE, f"{DATABASE}-wal"):
        shutil.copyfile(home / name, Path(folder.name) / name)
    return folder


def refuse_network_storage(home: Path, mounts: str | None = None) -> None:
    """Raise IndexCorrupt if ``home`` lies on a network file system.

    SQLite's shared memory and file locks do not hold there. ``mounts`` is the text of
    /proc/mounts, which only Linux has.
    """
    if mounts is None:
        mounts = _system_mounts()
    target = os.path.realpath(home)
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one point, the later lies on top
            best, kind = point, fields[2]
    if _NETWORK.fullmatch(kind):
        raise IndexCorrupt("index-network", home=str(home), kind=kind)


def _system_mounts() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a container without /proc: nothing to judge by
        return ""


@contextmanager
def open_connection(home: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a connection, translate its errors, and close it at the end."""
    connection = connect(home, writing=writing)
    try:
        with translate_sqlite_errors(home):
            yield connection
    finally:
        connection.close()


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
    """Create the tables if there are none; the first run makes the text index beside them."""
    if version_of(connection) == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            if version_of(connection) == 0:  # another process may have been quicker
                for statement in CREATE:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_version(connection: sqlite3.Connection, home: Path) -> int:
    """Return the version of the tables.

    Raises MissingIndex if there are none yet, IndexCorrupt if a newer Soutu made them.
    """
    version = version_of(connection)
    if version == 0:
        raise missing_index(home)
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


# --- rows as the values that callers see

CAPTION_COLUMNS = "id, image_id, text, tags"


def caption_row(row: tuple[Any, ...]) -> CaptionRow:
    """Convert a row of ``CAPTION_COLUMNS``."""
    id_, image_id, text, tags = row
    return CaptionRow(id_, image_id, text, json.loads(tags))


def ids_by_content(connection: sqlite3.Connection, contents: Sequence[bytes]) -> dict[bytes, int]:
    """Return the image ids of those content hashes that are stored."""
    sql = "SELECT content, id FROM images WHERE content IN ({marks})"
    return dict(select_in(connection, sql, list(contents)))


def without_vector(connection: sqlite3.Connection, space: int) -> list[int]:
    """Return the ids of images that have a path but no vector in ``space``, ascending."""
    rows = connection.execute(
        """SELECT DISTINCT image_id FROM paths WHERE image_id NOT IN
            (SELECT owner FROM image_vectors WHERE space = ?) ORDER BY image_id""",
        (space,),
    )
    return [row[0] for row in rows]


def captions_without_vector(connection: sqlite3.Connection, space: int) -> list[CaptionRow]:
    """Return captions of images with a path that lack a vector, in file order."""
    rows = connection.execute(
        f"""SELECT {CAPTION_COLUMNS} FROM captions WHERE id NOT IN
            (SELECT owner FROM caption_vectors WHERE space = ?)
            AND EXISTS (SELECT 1 FROM paths WHERE paths.image_id = captions.image_id)
            ORDER BY position, id""",
        (space,),
    )
    return [caption_row(row) for row in rows]


# --- migrations

MIGRATION_WAIT = 60.0  # seconds to wait for another process, which may be migrating too
_BATCH_ROWS = 10_000

# Migrations spell out names and columns as of their version, since ``TABLES`` moves on.
_PATHS_2 = """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"""
_PATHS_4 = """CREATE TABLE paths (path BLOB PRIMARY KEY, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, image_id INTEGER NOT NULL REFERENCES images,
        name TEXT NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        checksum BLOB NOT NULL) WITHOUT ROWID"""


def migrate(home: Path) -> None:
    """Bring the index at ``home`` to ``SCHEMA_VERSION``.

    All steps are one transaction under the write lock: killed at any moment, the index is as it was
    before. Raises IndexCorrupt where it cannot be written, or where an index run takes longer than
    ``MIGRATION_WAIT``.
    """
    with open_connection(home) as connection:
        version = check_version(connection, home)
    if version == SCHEMA_VERSION:
        return
    if not os.access(home, os.W_OK):
        raise IndexCorrupt("index-older", home=str(home), found=version, current=SCHEMA_VERSION)
    with (
        write_lock(home, wait=MIGRATION_WAIT),
        open_connection(home, writing=True) as connection,
        transaction(connection),
    ):
        for step in range(version_of(connection), SCHEMA_VERSION):  # others may have done them
            _STEPS[step](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")


def _names(connection: sqlite3.Connection) -> None:
    """Migrate from 1 to 2: store the folded file name of each path.

    Name patterns then need not go through Python for each of a million paths.
    """
    _widen_paths(connection, 1, _PATHS_2, lambda path, *_: (_name_of(path),))


def _name_of(path: Field) -> str:
    return casefold_name(os.fsdecode(path)) if isinstance(path, bytes) else ""


def _widen_paths(
    connection: sqlite3.Connection,
    version: int,
    definition: str,
    added: Callable[..., tuple[Field, ...]],
) -> None:
    """Add columns to the paths of ``version``; damaged rows stay recognizable."""
    # SQLite keeps the words of a definition, and doctor compares them: the new table is made
    # under its own name.
    old = f"paths_{version}"
    connection.execute(f"ALTER TABLE paths RENAME TO {old}")
    connection.execute(definition)
    rows = connection.execute(f"SELECT * FROM {old}")
    while batch := rows.fetchmany(_BATCH_ROWS):
        wider = []
        for *fields, seal in batch:
            row = (*fields, *added(*fields))
            is_intact = checksum("paths", *fields) == seal
            wider.append((*row, checksum("paths", *row) if is_intact else bytes(8)))
        marks = ", ".join("?" * len(wider[0]))
        connection.executemany(f"INSERT INTO paths VALUES ({marks})", wider)
    connection.execute(f"DROP TABLE {old}")
    connection.execute("CREATE INDEX paths_by_image ON paths (image_id)")


def _text(connection: sqlite3.Connection) -> None:
    """Migrate from 2 to 3: let captions be searched by their words."""
    connection.execute("DROP INDEX captions_by_image")
    connection.execute("CREATE INDEX captions_by_image ON captions (image_id, position, id)")
    from soutu.store.sqlite.text_search import rebuild

    rebuild(connection)  # in today's form: it is derived, and this is the last step to make it


def _status(connection: sqlite3.Connection) -> None:
    """Migrate from 3 to 4: remember ctime and inode, which no older version knew.

    The next run reads each file once, and finds what had changed in place before.
    """
    _widen_paths(connection, 3, _PATHS_4, lambda *_: (0, 0))


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _names, 2: _text, 3: _status}
