"""Damaged rows, mended in one transaction: what can be proven is put right, what can be had
again goes, and what is lost is written down before. One index run brings the rest back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from soutu.store.sqlite import schema
from soutu.store.sqlite.flipped import restored
from soutu.store.sqlite.folder import make_slabs, space_folders
from soutu.store.sqlite.notes import Notes
from soutu.store.sqlite.orphans import OWNERLESS, SHARED, raise_counters
from soutu.store.sqlite.schema import (
    TABLES,
    Field,
    checksum,
    get_counter,
    get_meta,
    next_ids,
    set_meta,
    transaction,
    write,
)
from soutu.store.sqlite.sealed import (
    KINDS_BY_TABLE,
    Row,
    Slabs,
    Text,
    is_sealed,
    key_columns,
    select,
)
from soutu.store.sqlite.vectors import REVISION, card_from_json, first_name, folder_name, pack
from soutu.store.sqlite.verify import damaged_rows, damaged_vectors

Settings: TypeAlias = "Callable[[Sequence[str]], Mapping[str, str]]"
"""Given the names of the folders of vectors: what else is known of a gallery's settings."""

_PLAIN = tuple(table for table in TABLES if table not in {*KINDS_BY_TABLE, "packed"})
_NEEDED = ("root", "model")  # settings without which the next index run would need to be told
_SANE = 1 << 53  # a damaged counter beyond it is not believed


@dataclass
class Mending:
    """One repair, on a raw ``connection`` that can write. Counts what it does."""

    connection: sqlite3.Connection
    home: Path
    notes: Notes
    restored: int = 0
    removed: int = 0
    vectors: int = 0
    forgot: bool = False  # settings that nothing else tells, such as the captions file
    _counted: dict[str, int] = field(default_factory=dict)  # what damaged counters said

    def mend(self, settings: Settings) -> None:
        """All of it or, if it raises, nothing. DatabaseError, OSError."""
        with transaction(self.connection):
            for table in _PLAIN:
                for damage in list(damaged_rows(self.connection, table)):
                    self._mend_row(table, damage.row)
            self.connection.execute("DELETE FROM packed")
            for kind in KINDS_BY_TABLE.values():
                for damage in list(damaged_vectors(self.connection, self.home, kind)):
                    self._remove(kind.vectors, damage.row, damage.reason)
            for conditions in (SHARED, OWNERLESS):
                for table, condition in conditions.items():
                    sql = f"{select(table)} WHERE {condition}"
                    for row in self.connection.execute(sql).fetchall():
                        self._remove(table, row, "ownerless")
            schema.rebuild(self.connection)
            self._raise_counters()
            self._set_anew(settings)
            self._tell()
            make_slabs(self.connection, self.home)
            self.notes.sync()
        pack(self.connection)
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _mend_row(self, table: str, row: Row) -> None:
        fields = restored(table, row)
        if fields is None and table == "spaces" and (fields := self._plausible_space(row)):
            self.notes.add(table, row, "sealed anew")
        if fields is None:
            self._remove(table, row, "checksum")
            return
        self._delete(table, row)
        if self._insert(table, fields):
            self.restored += 1
        else:  # its place has been taken since
            self._note(table, row, "taken")

    def _remove(self, table: str, row: Row, why: str) -> None:
        self._delete(table, row)
        if table in KINDS_BY_TABLE:  # the picture or the caption is there to be encoded again
            self.vectors += 1
            return
        self._note(table, row, why)
        if table == "meta" and row[0] not in (b"root", b"model", b"space"):
            self.forgot = True
        if table == "counters" and isinstance(row[0], bytes) and isinstance(row[1], int):
            self._counted[row[0].decode("utf-8", "replace")] = row[1]

    def _note(self, table: str, row: Row, why: str) -> None:
        self.notes.add(table, row, why)
        self.removed += 1

    def _delete(self, table: str, row: Row) -> None:
        names = key_columns(table)
        test = " AND ".join(
            f"{name} IS {_mark(value)}" for name, value in zip(names, row, strict=False)
        )
        self.connection.execute(f"DELETE FROM {table} WHERE {test}", row[: len(names)])

    def _insert(self, table: str, fields: tuple[Field, ...]) -> bool:
        marks = ",".join("?" * (len(fields) + 1))
        sealed = (*fields, checksum(table, *fields))
        sql = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"
        return self.connection.execute(sql, sealed).rowcount == 1

    def _plausible_space(self, row: Row) -> tuple[Field, ...] | None:
        """The fields of a space of which more than a bit is wrong, if name, folder and card
        agree and a vector fits: a wrong length would stand in the way of every later run."""
        number, *texts, _ = row
        if not all(isinstance(text, bytes) for text in texts):
            return None
        try:
            space, folder, card, since = (text.decode() for text in texts)
            agree = card_from_json(card).space == space and folder_name(space) == first_name(folder)
        except (TypeError, ValueError):
            return None
        if not agree or not self._some_vector_fits(number):
            return None
        return number, space, folder, card, since

    def _some_vector_fits(self, space: int) -> bool:
        slabs = Slabs(self.connection, self.home)
        for table, kind in KINDS_BY_TABLE.items():
            for row in self.connection.execute(f"{select(table)} WHERE space = ?", (space,)):
                vector = slabs.vector(kind, space, row[2])
                if vector is not None and is_sealed(table, row, vector):
                    return True
        return False

    def _raise_counters(self) -> None:
        """After all rows: a number that was given is never given again, as far as one can know."""
        for name, value in self._counted.items():
            # Not of slots, which are places in a file: there the file's length says it.
            if not name.startswith("slots/") and get_counter(self.connection, name) < value < _SANE:
                write(self.connection, "counters", [(name, value)])
        raise_counters(self.connection, self.home)

    def _set_anew(self, settings: Settings) -> None:
        absent = [key for key in _NEEDED if get_meta(self.connection, key) is None]
        known = settings(sorted(space_folders(self.home))) if absent else {}
        self.forgot |= len(absent) == len(_NEEDED)  # all settings are gone
        for key in absent:
            if key in known:
                set_meta(self.connection, key, known[key])

    def _tell(self) -> None:
        """Readers let go of what they know, and the history says why."""
        next_ids(self.connection, REVISION)
        generation = next_ids(self.connection, "generation") + 1
        first = next_ids(self.connection, "change") + 1
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        told = (first, generation, "repaired", b"", self.notes.path.name.encode(), now)
        write(self.connection, "changes", [told])


def _mark(value: object) -> str:
    """The place of a raw value in a statement: a text that is none cannot be given as one."""
    return "CAST(? AS TEXT)" if isinstance(value, Text) else "?"
