"""Find what is damaged in an index: database, rows, vectors, codes, the files around them.

SQLite's own check does not see a flipped letter; the rows' checksums do. Nothing is changed here:
an index is derived, and ``soutu index --rebuild`` makes a new one (``rebuild.py``).
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, HOME, REBUILD, missing_index
from soutu.store.ann import manifest_path, read_manifest
from soutu.store.sqlite import text_search
from soutu.store.sqlite.schema import (
    CREATE,
    READ_ERRORS,
    SCHEMA_VERSION,
    TABLES,
    checksum,
    connect,
    get_counter,
    is_transient,
    translate_sqlite_errors,
)
from soutu.store.sqlite.vectors import (
    KINDS,
    REVISION,
    VectorFile,
    VectorKind,
    card_from_json,
    from_tables,
    slot_counter,
)
from soutu.types import Floats, IntegrityIssue

Check: TypeAlias = "Callable[[RawIndex], Iterator[IntegrityIssue]]"

Row: TypeAlias = "tuple[Any, ...]"
"""The columns of a table as in ``TABLES``, then the checksum; TEXT as undecoded ``RawText``."""

KINDS_BY_TABLE = {kind.vectors: kind for kind in KINDS}
SPACE_FOLDER = re.compile(r"[0-9a-f]{16}(-[0-9]+)?")  # others were made by somebody else

_CODES = {
    "meta": "doctor-meta",
    "counters": "doctor-counters",
    "spaces": "doctor-spaces",
    "images": "doctor-images",
    "paths": "doctor-paths",
    "captions": "doctor-captions",
    "image_vectors": "doctor-image-vectors",
    "caption_vectors": "doctor-caption-vectors",
    "packed": "doctor-packed",
    "changes": "doctor-changes",
}
_KEY_COLUMNS = {"image_vectors": 2, "caption_vectors": 2, "packed": 2}  # all others have one
_WRITE_AHEAD = b"\x02\x02"  # at bytes 18 and 19 of the file
_LEFTOVERS = (".new", ".new-wal", ".new-shm", ".new-journal", ".tmp", ".part")
_PRIVATE = ("lock", "journal*.jsonl", "journal.key", "llm-cache.jsonl", f"{DATABASE}*")
_SETTLED = 60  # seconds after which a file is no longer being made
_NO_SPACE = "space NOT IN (SELECT id FROM spaces)"
_DANGLING = {
    "paths": "image_id NOT IN (SELECT id FROM images)",
    "captions": "image_id NOT IN (SELECT id FROM images)",
    "image_vectors": f"{_NO_SPACE} OR owner NOT IN (SELECT id FROM images)",
    "caption_vectors": f"{_NO_SPACE} OR owner NOT IN (SELECT id FROM captions)",
    "packed": _NO_SPACE,
    "meta": "key = 'space' AND CAST(value AS TEXT) NOT IN (SELECT space FROM spaces)",
}
_SHARED = "(space, slot) IN (SELECT space, slot FROM {0} GROUP BY space, slot HAVING count(*) > 1)"
_LARGEST = {
    "image": """SELECT max(n) FROM (SELECT max(id) n FROM images UNION ALL
        SELECT max(image_id) FROM paths UNION ALL SELECT max(image_id) FROM captions UNION ALL
        SELECT max(owner) FROM image_vectors)""",
    "caption": """SELECT max(n) FROM (SELECT max(id) n FROM captions UNION ALL
        SELECT max(owner) FROM caption_vectors)""",
    "change": "SELECT max(id) FROM changes",
    "generation": "SELECT max(generation) FROM changes",
    REVISION: "SELECT max(revision) FROM packed",
}


class RawText(bytes):
    """Hold SQLite's TEXT undecoded: after a flipped bit it may not be UTF-8 any more."""


class RawIndex:
    """Read rows and vectors as they lie on disk, in one consistent state."""

    def __init__(self, home: Path, database: Path | None = None) -> None:
        """Open the index at ``home``; its database may lie in another folder.

        Raises IndexCorrupt if the database cannot be opened.
        """
        self.home = home
        self.connection = connect(database or home)
        self.connection.text_factory = RawText
        self._files: dict[tuple[object, str], VectorFile | None] | None = None
        try:
            with translate_sqlite_errors(home):
                self.connection.execute("BEGIN")
                self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def rows(self, table: str, order: str = "") -> Iterator[tuple[Row, bool]]:
        """Yield each row of ``table``, and whether it (and the vector at its slot) is intact.

        Raises one of ``READ_ERRORS`` where the file cannot be read further.
        """
        kind = KINDS_BY_TABLE.get(table)
        sql = f"SELECT {', '.join(TABLES[table])}, checksum FROM {table} {order}"
        for row in self.connection.execute(sql):
            if kind is None:
                yield row, _is_intact(table, row)
                continue
            vector = self.vector(kind, row[0], row[2])
            yield row, vector is not None and _is_intact(table, row, vector.tobytes())

    def vector(self, kind: VectorKind, space: object, slot: object) -> Floats | None:
        """Return the float32 (dim,) vector at ``slot``; None where there is none."""
        file = self.vector_files().get((space, kind.name))
        if file is None or not isinstance(slot, int) or slot < 0:
            return None
        try:
            vector: Floats = file.rows(slot + 1)[slot]
            return vector
        except (IndexCorrupt, OSError, ValueError):
            return None

    def vector_files(self) -> dict[tuple[object, str], VectorFile | None]:
        """Return the file of each (space, kind); None for an unreadable space."""
        if self._files is None:
            rows = self.connection.execute("SELECT id, folder, card FROM spaces")
            self._files = {
                (number, kind.name): self._vector_file(folder, card, kind)
                for number, folder, card in rows
                for kind in KINDS
            }
        return self._files

    def _vector_file(self, folder: object, card: Any, kind: VectorKind) -> VectorFile | None:  # noqa: ANN401
        try:
            dim = card_from_json(card).dim
            if isinstance(dim, int) and dim > 0:
                return VectorFile(self.home / "spaces" / as_text(folder) / kind.slab, dim)
        except (OverflowError, TypeError, ValueError):  # the check of the table names it
            pass
        return None


def check_index(home: Path) -> tuple[list[IntegrityIssue], dict[str, int]]:
    """Check the whole index, while others may read and write it.

    Parameters
    ----------
    home
        The index's folder, absolute.

    Returns
    -------
    tuple
        What is wrong, and how many rows of each table were looked at.

    Raises
    ------
    MissingIndex
        There is none.
    IndexCorrupt
        SQLite is kept from reading (a lock, permissions), or a newer Soutu made the index.
    """
    if not (home / DATABASE).is_file():
        raise missing_index(home)
    folders = _space_folders(home)  # before the rows: a run makes the folder first
    try:
        index = RawIndex(home)
    except IndexCorrupt as error:
        if error.code != "index-damaged":
            raise
        return [structure_issue(error.fields["error"])], {}
    issues: dict[IntegrityIssue, None] = {}  # a set that keeps its order
    with closing(index), translate_sqlite_errors(home):
        checks: list[Check] = [*_CHECKS, partial(_unknown_folders, folders=folders)]
        for check in checks:
            try:
                issues.update(dict.fromkeys(check(index)))
            except READ_ERRORS as error:
                if is_transient(error):
                    raise
                issues[structure_issue(error)] = None
            except (OverflowError, TypeError, ValueError):
                if not any(issue.harm for issue in issues):
                    raise  # no damaged value to blame
        return list(issues), {table: _count(index.connection, table) for table in TABLES}


def wrong_definitions(index: RawIndex) -> tuple[int, list[str]]:
    """Return the schema's version, and the names of tables that this version defines differently.

    Raises MissingIndex where nothing was ever written, IndexCorrupt for a newer Soutu's index.
    """
    definitions = {
        as_text(name): as_text(sql) for name, sql in index.connection.execute(_DEFINITIONS)
    }
    (version,) = index.connection.execute("PRAGMA user_version").fetchone()
    has_fts = any(
        name.startswith(text_search.TABLE) for name in definitions
    )  # it may be made later
    wrong = [
        name
        for name, sql in _reference_schema()[0].items()
        if definitions.get(name) != sql and (has_fts or not name.startswith(text_search.TABLE))
    ]
    if not definitions and not version and not any((index.home / "spaces").glob("*/*")):
        raise missing_index(index.home)
    if version > SCHEMA_VERSION and wrong:
        fields = {"found": version, "understood": SCHEMA_VERSION}
        raise IndexCorrupt("index-newer", home=str(index.home), **fields)
    return version, wrong


def structure_issue(error: object, table: str = "") -> IntegrityIssue:
    """Report that the database file, or this table of it, cannot be read."""
    where = f"{DATABASE}: {table}" if table else DATABASE
    return IntegrityIssue("doctor-structure", where, detail=str(error))


def row_issue(table: str, row: Row) -> IntegrityIssue:
    """Report that this row, or its vector, is damaged."""
    return IntegrityIssue(_CODES[table], table, _row_key(table, row))


def as_text(value: object) -> str:
    """Return a stored value as text, without loss where it is UTF-8 or nearly so."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@cache
def _reference_schema() -> tuple[dict[str, str], dict[str, list[type]]]:
    """Return each definition as SQLite stores it, and the types of all columns."""
    types: dict[str, type] = {"INTEGER": int, "TEXT": RawText, "BLOB": bytes}
    with closing(sqlite3.connect(":memory:")) as connection:
        fts = [text_search.CREATE_FTS] if text_search.available(connection) else []
        for statement in (*CREATE, *fts):
            connection.execute(statement)
        columns = {
            table: [types[row[2]] for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in TABLES
        }
        return dict(connection.execute(_DEFINITIONS)), columns


_DEFINITIONS = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"


def _is_intact(table: str, row: Row, *covered: bytes) -> bool:
    """Whether ``row`` is what was written; ``covered`` is what else its checksum covers.

    A TEXT that became a BLOB has the same checksum, but no comparison would find it.
    """
    return list(map(type, row)) == _reference_schema()[1][table] and row[-1] == checksum(
        table, *row[:-1], *covered
    )


def _row_key(table: str, row: Row) -> str:
    names = TABLES[table][: _KEY_COLUMNS.get(table, 1)]
    values = [as_text(value) for value in row[: len(names)]]
    if len(names) == 1:
        return values[0]
    return " ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _structure(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check the file's header, tables and pages."""
    version, wrong = wrong_definitions(index)
    yield from (structure_issue(f"the definition of {name}") for name in wrong)
    if version != SCHEMA_VERSION:
        yield structure_issue(f"format {version} instead of {SCHEMA_VERSION}")
    with open(index.home / DATABASE, "rb") as file:
        if file.read(20)[18:] != _WRITE_AHEAD:
            yield structure_issue("the header (bytes 18 and 19)")
    for (line,) in index.connection.execute("PRAGMA integrity_check"):
        if line != b"ok" and b"FTS5" not in line:  # of which ``_text_index`` says more
            yield structure_issue(as_text(line))


def _rows(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check every row and every vector against its checksum."""
    for table in TABLES:
        try:
            order = "ORDER BY space, slot" if table in KINDS_BY_TABLE else ""
            yield from (
                row_issue(table, row) for row, intact in index.rows(table, order) if not intact
            )
        except READ_ERRORS as error:
            if is_transient(error):
                raise
            yield structure_issue(error, table)


def _slabs(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check that the vector files exist and reach to the last slot in use."""
    for number, name in index.connection.execute("SELECT id, folder FROM spaces"):
        for kind in KINDS:
            sql = f"""SELECT max(slot) + 1 FROM {kind.vectors}
                WHERE space = ? AND typeof(slot) = 'integer'"""
            needed = index.connection.execute(sql, (number,)).fetchone()[0] or 0
            file = index.vector_files().get((number, kind.name))
            length = 0 if file is None else len(file)
            path = f"spaces/{as_text(name)}/{kind.slab}"
            # os.path: False for a name that no file can have.
            if length < needed or not os.path.isfile(index.home / path):  # noqa: PTH113
                yield IntegrityIssue("doctor-slab", path, detail=f"{length} < {needed}")


def _references(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check that references resolve, and that no two vectors share a slot."""
    shared = {table: _SHARED.format(table) for table in KINDS_BY_TABLE}
    for code, conditions in (("doctor-ownerless", _DANGLING), ("doctor-shared", shared)):
        for table, condition in conditions.items():
            names = TABLES[table][: _KEY_COLUMNS.get(table, 1)]
            sql = f"SELECT {', '.join(names)} FROM {table} WHERE {condition}"
            for row in index.connection.execute(sql):
                key = " ".join(f"{n} {as_text(v)}" for n, v in zip(names, row, strict=True))
                yield IntegrityIssue(code, table, key)


def _counters(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check that no counter would give out an id or a slot a second time."""
    queries = dict(_LARGEST)
    for (space,) in index.connection.execute("SELECT id FROM spaces"):
        for kind in KINDS:
            sql = f"SELECT max(slot) + 1 FROM {kind.vectors} WHERE space = {space}"
            queries[slot_counter(space, kind)] = sql
    for name, sql in queries.items():
        used = index.connection.execute(sql).fetchone()[0]
        sql = "SELECT value FROM counters WHERE name = ? AND typeof(value) = 'integer'"
        (value,) = index.connection.execute(sql, (name,)).fetchone() or (0,)
        if isinstance(used, int) and value < used:
            yield IntegrityIssue("doctor-counter-low", "counters", name, f"{value} < {used}")


def _visible_rows(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check that the packed copies agree with the tables."""
    revision = get_counter(index.connection, REVISION)
    sql = "SELECT pairs FROM packed WHERE space = ? AND kind = ? AND revision = ?"
    for (space,) in index.connection.execute("SELECT id FROM spaces").fetchall():
        for kind in KINDS:
            row = index.connection.execute(sql, (space, kind.name, revision)).fetchone()
            if row is not None:
                live = from_tables(index.connection, space, kind)
                if row[0] != np.stack([live.ids, live.slots]).astype("<i8").tobytes():
                    key = f"space {space} kind {kind.name}"
                    yield IntegrityIssue("doctor-packed", "packed", key)


def _text_index(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check that the text index agrees with the captions."""
    if error := text_search.text_index_error(index.connection):
        yield IntegrityIssue("doctor-text", text_search.TABLE, detail=error)


def _codes(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Check the manifests of codes, and the files that they name."""
    for (name,) in index.connection.execute("SELECT folder FROM spaces"):
        folder = index.home / "spaces" / as_text(name)
        for kind in KINDS:
            detail = ""
            try:
                manifest = read_manifest(folder, kind.name)
                if manifest is None or manifest.is_whole(folder):
                    continue
                detail = manifest.file
            except IndexCorrupt:
                pass
            path = manifest_path(folder, kind.name).relative_to(index.home).as_posix()
            yield IntegrityIssue("doctor-ann", path, detail=detail)


def _leftovers(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Find what killed runs left behind."""
    home = index.home
    for path in sorted((*home.glob("*"), *home.glob("spaces/*/*"))):
        temporary = path.name.endswith(_LEFTOVERS) and path.is_file()
        if (temporary or path == home / REBUILD) and _settled(path):
            where = path.relative_to(home).as_posix()
            yield IntegrityIssue("doctor-leftover", where, harm=False)


def _permissions(index: RawIndex) -> Iterator[IntegrityIssue]:
    """Find what others than the owner may read or change.

    A folder that the user named (``--index DIR``) is theirs to open; what lies in it is not.
    """
    if os.name == "nt":
        return
    home = index.home
    folders = [home] if home.name == HOME else []
    files = {path for pattern in _PRIVATE for path in home.glob(pattern)}
    for path in (*folders, *sorted({*files, *home.glob("spaces"), *home.glob("spaces/**/*")})):
        try:
            mode = path.lstat().st_mode
        except OSError:  # gone since it was listed
            continue
        if not stat.S_ISLNK(mode) and mode & 0o077:
            where, detail = path.relative_to(home).as_posix(), f"{stat.S_IMODE(mode):04o}"
            yield IntegrityIssue("doctor-open", where, detail=detail, harm=False)


_CHECKS: tuple[Check, ...] = (
    _structure,
    _rows,
    _slabs,
    _references,
    _counters,
    _visible_rows,
    _text_index,
    _codes,
    _leftovers,
    _permissions,
)


def _space_folders(home: Path) -> list[str]:
    """Return the folders of vectors, but not that of a space that is just being created.

    A run makes the folder before the row, and fills it only after.
    """
    return sorted(
        folder.name
        for folder in (home / "spaces").glob("*")
        if SPACE_FOLDER.fullmatch(folder.name)
        and folder.is_dir()
        and (_settled(folder) or any(file.stat().st_size for file in folder.glob("*.f32")))
    )


def _unknown_folders(index: RawIndex, folders: list[str]) -> Iterator[IntegrityIssue]:
    """Find those of ``folders`` that no row refers to."""
    rows = index.connection.execute("SELECT folder FROM spaces")
    known = {as_text(name) for (name,) in rows}
    for name in folders:
        if name not in known:
            yield IntegrityIssue("doctor-folder", f"spaces/{name}", harm=False)


def _settled(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _SETTLED
    except OSError:  # gone already
        return False


def _count(connection: sqlite3.Connection, table: str) -> int:
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except READ_ERRORS:
        return 0
