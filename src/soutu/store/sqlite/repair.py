"""Mending an index under the write lock: a copy is laid by, a torn database is put together anew,
then its rows are mended (``mending.py``) and the files beside them put in order."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from errno import EACCES
from pathlib import Path

from soutu.fs import make_private_file, unwritable, write_lock
from soutu.store.sqlite.examine import examine
from soutu.store.sqlite.folder import (
    clear,
    codes,
    leftovers,
    ownerless_folders,
    permissions,
    space_folders,
)
from soutu.store.sqlite.mending import Mending, Settings
from soutu.store.sqlite.notes import Notes
from soutu.store.sqlite.rebuild import rebuild
from soutu.store.sqlite.schema import transaction, translate_sqlite_errors
from soutu.store.sqlite.verify import connect_raw
from soutu.types import IntegrityIssue

_TORN = "doctor-structure"
_DERIVED = {
    "doctor-packed",
    "doctor-ann",
    "doctor-text",
}  # computed from the rest: no copy is worth keeping


@dataclass(frozen=True)
class Repaired:
    """``found`` is what there was to mend. ``restored`` rows are again what they were; ``removed``
    ones are gone, and written down; ``vectors`` are to be computed anew. ``kept`` are the files
    that tell: a copy of the database as it was, and what was removed. ``forgot``: the gallery
    may have had settings, such as its captions file, that it no longer knows."""

    found: tuple[IntegrityIssue, ...]
    restored: int
    removed: int
    vectors: int
    kept: tuple[Path, ...]
    forgot: bool


def repair(home: Path, settings: Settings) -> Repaired:
    """Mend all that ``examine`` finds at ``home`` (absolute). Searching may go on meanwhile.
    IndexCorrupt where another process is writing, or ``home`` cannot be written."""
    if not os.access(home, os.W_OK):
        raise unwritable(home, PermissionError(EACCES, os.strerror(EACCES)))
    with write_lock(home), translate_sqlite_errors(home):
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        notes = Notes(home / f"repair-{stamp}.jsonl")
        kept: list[Path] = []
        found, _ = examine(home)
        harm = {finding.code for finding in found if finding.harm}
        try:
            if _TORN in harm:
                kept.append(rebuild(home, stamp, notes))
            elif harm - _DERIVED:
                kept.append(_copy(home, home / f"before-repair-{stamp}.db"))
            with closing(connect_raw(home, writing=True)) as connection:
                mending = Mending(connection, home, notes)
                if harm:
                    mending.mend(settings)
                _tidy(connection, home)
        except OSError as error:
            raise unwritable(home, error) from error
        if notes.count:
            kept.append(notes.path)
        counts = (mending.restored, mending.removed, mending.vectors)
        return Repaired(tuple(found), *counts, tuple(kept), mending.forgot)


def _copy(home: Path, target: Path) -> Path:
    make_private_file(target)
    with closing(connect_raw(home)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return target


def _tidy(connection: sqlite3.Connection, home: Path) -> None:
    with transaction(connection):  # in which nobody makes a space
        for finding in list(ownerless_folders(connection, space_folders(home))):
            clear(home, finding)
    for finding in (*codes(connection, home), *leftovers(home), *permissions(home)):
        clear(home, finding)
