"""Reclaim the disk space of what was deleted or replaced.

An image that has lost its last path keeps its row and vectors, so that a file that comes back is
not encoded again; a vector that was replaced keeps its slot. Compaction drops both: it writes the
remaining vectors to a new folder, and one transaction switches the rows to that folder. Killed
before the commit, it leaves the index as it was; after it, compacted.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.fs import make_private_file, make_private_folder, sync_folder
from soutu.store.sqlite import text_search
from soutu.store.sqlite.schema import (
    checksum,
    next_ids,
    open_connection,
    transaction,
    translate_sqlite_errors,
    write,
)
from soutu.store.sqlite.vectors import (
    KINDS,
    REVISION,
    Space,
    VectorFile,
    VectorFileWriter,
    VectorKind,
    all_spaces,
    next_folder,
    pack,
    remove_old_generations,
    slot_counter,
)
from soutu.types import Floats, Ids

_BATCH = 4096

_ORPHAN = "id NOT IN (SELECT image_id FROM paths)"
_ORPHAN_IDS = f"id FROM images WHERE {_ORPHAN}"


@dataclass(frozen=True)
class CompactReport:
    """Report what was dropped, and the bytes on disk ``before`` and ``after``.

    ``images`` and ``captions`` had no file any more, ``vectors`` belonged to nothing.
    """

    images: int
    captions: int
    vectors: int
    before: int
    after: int


def compact(home: Path) -> CompactReport:
    """Drop what has no file and write the rest without gaps, under the write lock.

    Readers go on meanwhile. Raises IndexCorrupt where there is no room for it.
    """
    before = _size(home)
    with open_connection(home, writing=True) as connection:
        remove_old_generations(connection, home)
        images = _count(connection, "images", _ORPHAN)
        captions = _count(connection, "captions", f"image_id IN (SELECT {_ORPHAN_IDS})")
        unused = sum(_idle(connection, space, kind) for space in all_spaces(connection, home)
                   for kind in KINDS)  # fmt: skip
        if images or unused:
            _check_room(home)
            with translate_sqlite_errors(home), transaction(connection):
                _drop_orphans(connection)
                if captions:
                    text_search.rebuild(connection)
                for space in all_spaces(connection, home):
                    _move(connection, space)
                next_ids(connection, REVISION)
            pack(connection)
            connection.execute("VACUUM")
            if remove_old_generations(connection, home):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return CompactReport(images, captions, unused, before, _size(home))


def _count(connection: sqlite3.Connection, table: str, condition: str) -> int:
    sql = f"SELECT count(*) FROM {table} WHERE {condition}"
    return int(connection.execute(sql).fetchone()[0])


def _idle(connection: sqlite3.Connection, space: Space, kind: VectorKind) -> int:
    """Count the slots of ``kind`` that no row refers to."""
    name = slot_counter(space.id, kind)
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    used = _count(connection, kind.vectors, f"space = {space.id}")
    return (row[0] if row else 0) - used


def _drop_orphans(connection: sqlite3.Connection) -> None:
    lost = f"SELECT {_ORPHAN_IDS}"
    connection.execute(
        f"""DELETE FROM caption_vectors WHERE owner IN
            (SELECT id FROM captions WHERE image_id IN ({lost}))"""
    )
    connection.execute(f"DELETE FROM captions WHERE image_id IN ({lost})")
    connection.execute(f"DELETE FROM image_vectors WHERE owner IN ({lost})")
    connection.execute(f"DELETE FROM images WHERE {_ORPHAN}")


def _move(connection: sqlite3.Connection, space: Space) -> None:
    """Write the vectors of ``space`` to its next folder, in slot order, and update the rows.

    The vectors are on disk before the transaction can end.
    """
    folder = next_folder(space)
    make_private_folder(folder)
    for kind in KINDS:
        make_private_file(folder / kind.slab)
        rows = connection.execute(
            f"SELECT owner, slot FROM {kind.vectors} WHERE space = ? ORDER BY slot", (space.id,)
        )
        pairs: Ids = np.array(rows.fetchall(), dtype=np.int64).reshape(-1, 2)
        old = VectorFile(space.folder / kind.slab, space.info.dim)
        new = VectorFileWriter(folder / kind.slab, space.info.dim)
        try:
            for first in range(0, len(pairs), _BATCH):
                part = pairs[first : first + _BATCH]
                vectors = old.take(part[:, 1])
                new.write(first, vectors)
                _refer(connection, space, kind, part, (first, vectors))
        finally:
            new.close()
        # In a new folder slots begin anew.
        write(connection, "counters", [(slot_counter(space.id, kind), len(pairs))])
    sync_folder(folder)
    row = connection.execute(
        "SELECT id, space, folder, card, since FROM spaces WHERE id = ?", (space.id,)
    ).fetchone()
    write(connection, "spaces", [(*row[:2], folder.name, *row[3:])])


def _refer(
    connection: sqlite3.Connection,
    space: Space,
    kind: VectorKind,
    pairs: Ids,
    moved: tuple[int, Floats],
) -> None:
    """Point the rows to their new slots; a damaged row stays recognizable."""
    first, vectors = moved
    updates = []
    for slot, ((owner, old), vector) in enumerate(zip(pairs.tolist(), vectors, strict=True), first):
        data = vector.tobytes()
        seal = connection.execute(
            f"SELECT checksum FROM {kind.vectors} WHERE space = ? AND owner = ?", (space.id, owner)
        ).fetchone()[0]
        intact = seal == checksum(kind.vectors, space.id, owner, old, data)
        new = checksum(kind.vectors, space.id, owner, slot, data) if intact else bytes(8)
        updates.append((slot, new, space.id, owner))
    connection.executemany(
        f"UPDATE {kind.vectors} SET slot = ?, checksum = ? WHERE space = ? AND owner = ?", updates
    )


def _check_room(home: Path) -> None:
    needed = 2 * _size(home)  # the vectors, and the rows twice while they are packed
    free = shutil.disk_usage(home).free
    if free < needed:
        raise IndexCorrupt(
            "compact-space", home=str(home), needed=needed // 10**6, free=free // 10**6
        )


def _size(home: Path) -> int:
    total = 0
    for folder, _, files in os.walk(home):
        for name in files:
            total += (Path(folder) / name).stat(follow_symlinks=False).st_size
    return total
