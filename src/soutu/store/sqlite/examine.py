"""Everything that can be found wrong with an index, by one check after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.fs import DATABASE
from soutu.store import text_search
from soutu.store.sqlite import schema
from soutu.store.sqlite.folder import (
    codes,
    leftovers,
    ownerless_folders,
    permissions,
    slab_files,
    space_folders,
)
from soutu.store.sqlite.orphans import low_counters, orphans
from soutu.store.sqlite.schema import (
    FAULTS,
    TABLES,
    get_counter,
    is_transient,
    translate_sqlite_errors,
)
from soutu.store.sqlite.vectors import KINDS, from_tables
from soutu.store.sqlite.verify import Damage, connect_raw, damages
from soutu.types import IntegrityIssue

_CODES = {
    "": "doctor-structure",
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


@dataclass(frozen=True)
class _Sight:
    """One consistent state of an index. ``connection`` gives texts undecoded; ``folders`` were
    listed before it began to look."""

    home: Path
    connection: sqlite3.Connection
    folders: dict[str, bool]


def _packed(sight: _Sight) -> Iterator[IntegrityIssue]:
    """Packed answers that are not what the tables say."""
    revision = get_counter(sight.connection, "revision")
    sql = "SELECT pairs FROM packed WHERE space = ? AND kind = ? AND revision = ?"
    for (space,) in sight.connection.execute("SELECT id FROM spaces").fetchall():
        for kind in KINDS:
            row = sight.connection.execute(sql, (space, kind.name, revision)).fetchone()
            if row is None:
                continue
            live = from_tables(sight.connection, space, kind)
            if row[0] != np.stack([live.ids, live.slots]).astype("<i8").tobytes():
                yield IntegrityIssue("doctor-packed", "packed", f"space {space} kind {kind.name}")


def _text(sight: _Sight) -> Iterator[IntegrityIssue]:
    """A text index that does not say what the captions say."""
    if wrong := schema.text_index_error(sight.connection):
        yield IntegrityIssue("doctor-text", text_search.TABLE, detail=wrong)


Check: TypeAlias = Callable[[_Sight], Iterator[IntegrityIssue]]

DERIVED: tuple[Check, ...] = (_packed, _text, lambda sight: codes(sight.connection, sight.home))
"""What is computed from rows and vectors, and could be computed anew: one check for each kind."""

CHECKS: tuple[Check, ...] = (
    lambda sight: (_found(damage) for damage in damages(sight.connection, sight.home)),
    lambda sight: slab_files(sight.connection, sight.home),
    lambda sight: orphans(sight.connection),
    lambda sight: low_counters(sight.connection),
    *DERIVED,
    lambda sight: ownerless_folders(sight.connection, sight.folders),
    lambda sight: leftovers(sight.home),
    lambda sight: permissions(sight.home),
)


def examine(home: Path) -> tuple[list[IntegrityIssue], Mapping[str, int]]:
    """What is wrong with the index at ``home`` (absolute), and how many rows of each table were
    looked at. Others may read and write meanwhile. MissingIndex where there is none,
    IndexCorrupt where SQLite is kept from reading or the index is that of a newer Soutu."""
    if not (home / DATABASE).is_file():
        raise MissingIndex("index-missing", folder=str(home.parent))
    folders = space_folders(home)
    try:
        connection = connect_raw(home)
    except IndexCorrupt as fault:
        if fault.code != "index-damaged":
            raise
        return [_torn(fault.fields["fault"])], {}
    with closing(connection), translate_sqlite_errors(home):
        connection.execute("BEGIN")
        found = _checked(_Sight(home, connection, folders))
        return found, {table: _count(connection, table) for table in TABLES}


def _checked(sight: _Sight) -> list[IntegrityIssue]:
    found: dict[IntegrityIssue, None] = {}  # a set that keeps its order
    for check in CHECKS:
        try:
            for finding in check(sight):
                found[finding] = None
        except FAULTS as fault:
            if is_transient(fault):
                raise
            found[_torn(fault)] = None
        except (OverflowError, TypeError, ValueError):
            if not any(finding.harm for finding in found):
                raise  # no damaged value to blame
    return list(found)


def _torn(fault: object, where: str = DATABASE) -> IntegrityIssue:
    return IntegrityIssue(_CODES[""], where, detail=str(fault))


def _found(damage: Damage) -> IntegrityIssue:
    if damage.reason in ("structure", "unreadable"):
        return _torn(damage.key, f"{DATABASE}: {damage.table}" if damage.table else DATABASE)
    return IntegrityIssue(_CODES[damage.table], damage.table, damage.key)


def _count(connection: sqlite3.Connection, table: str) -> int:
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except FAULTS:
        return 0
