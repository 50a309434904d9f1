"""Store the vectors of a gallery: one space for each model its images were encoded with.

A row of the vector file counts from the moment its SQLite transaction commits, and it is on disk
before that. The tables say exactly which slots are visible to searches, but reading them costs
about a microsecond a row. So the end of each index run also packs the answer into one blob, marked
with its revision. Where the mark is older than the rows (during a run, or after one was killed),
the tables are read instead.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sqlite3
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import IndexCorrupt, ModelMismatch
from soutu.fs import make_private_file, make_private_folder, sync_folder
from soutu.store.sqlite.schema import get_counter, get_meta, transaction, write
from soutu.store.top_k import exact_scores
from soutu.types import Bits, Floats, Ids, ModelInfo

REVISION = "revision"  # counts every transaction that changes what a search may return


@dataclass(frozen=True)
class VectorKind:
    """Describe images or captions: how they differ in the database and on disk."""

    name: str
    vectors: str  # the table of slots
    slab: str  # the file of vectors
    live: str  # the query for (owner, slot) of what has a path


IMAGES = VectorKind(
    "image",
    "image_vectors",
    "images.f32",
    """SELECT owner, slot FROM image_vectors WHERE space = ?
        AND EXISTS (SELECT 1 FROM paths WHERE image_id = owner)""",
)
CAPTIONS = VectorKind(
    "caption",
    "caption_vectors",
    "captions.f32",
    """SELECT v.owner, v.slot FROM caption_vectors v JOIN captions c ON c.id = v.owner
        WHERE v.space = ? AND EXISTS (SELECT 1 FROM paths WHERE image_id = c.image_id)""",
)
KINDS = (IMAGES, CAPTIONS)


@dataclass(frozen=True)
class VisibleRows:
    """Hold what searches may return as of ``revision``.

    ``ids`` and ``slots`` are parallel int64 arrays (n,), slots ascending.
    """

    revision: int
    ids: Ids
    slots: Ids

    def only(self, ids: Ids) -> VisibleRows:
        """Return the rows whose ids are in ``ids``."""
        chosen = np.isin(self.ids, ids)
        return VisibleRows(self.revision, self.ids[chosen], self.slots[chosen])

    def ids_at(self, slots: Ids) -> Ids:
        """Return the ids at these slots, all of which must be visible."""
        return self.ids[slots if self._no_gaps else np.searchsorted(self.slots, slots)]

    @cached_property
    def _no_gaps(self) -> bool:
        """Whether all slots are visible, so that slot i is row i."""
        return len(self.slots) == int(self.slots[-1]) + 1

    @cached_property
    def ascending(self) -> Ids:
        """Return the ids in ascending order."""
        return np.sort(self.ids)

    @cached_property
    def bits(self) -> Bits:
        """Return a bitmap: bit ``slot % 8`` of byte ``slot // 8`` is set for each slot."""
        marks = np.zeros(int(self.slots[-1]) + 1 if len(self.slots) else 0, bool)
        marks[self.slots] = True
        return np.packbits(marks, bitorder="little")


NO_ROWS = VisibleRows(-1, np.empty(0, np.int64), np.empty(0, np.int64))
"""What is searchable before anybody has looked."""


def slot_counter(space: int, kind: VectorKind) -> str:
    """Return the name of the counter that hands out slots."""
    return f"slots/{space}/{kind.name}"


def load_visible(connection: sqlite3.Connection, space: int, kind: VectorKind) -> VisibleRows:
    """Return the visible rows as the connection's transaction sees them."""
    revision = get_counter(connection, REVISION)
    row = connection.execute(
        "SELECT pairs FROM packed WHERE space = ? AND kind = ? AND revision = ?",
        (space, kind.name, revision),
    ).fetchone()
    if row is None:
        return from_tables(connection, space, kind)
    ids, slots = np.frombuffer(row[0], "<i8").reshape(2, -1)
    if len(slots) and not 0 <= slots.min() <= slots.max() < _slot_count(connection, space, kind):
        return from_tables(connection, space, kind)  # damaged, and only a copy
    return VisibleRows(revision, ids, slots)


def count_visible(connection: sqlite3.Connection, space: int, kind: VectorKind) -> int:
    """Count the visible rows without loading them."""
    row = connection.execute(
        "SELECT length(pairs) / 16 FROM packed WHERE space = ? AND kind = ? AND revision = ?",
        (space, kind.name, get_counter(connection, REVISION)),
    ).fetchone()
    if row is None:
        row = connection.execute(f"SELECT count(*) FROM ({kind.live})", (space,)).fetchone()
    return int(row[0])


def pack(connection: sqlite3.Connection) -> None:
    """Pack the visible rows of all spaces as of the current revision."""
    with transaction(connection):
        revision = get_counter(connection, REVISION)
        spaces = [row[0] for row in connection.execute("SELECT id FROM spaces")]
        fresh = set(
            connection.execute("SELECT space, kind FROM packed WHERE revision = ?", (revision,))
        )
        for space in spaces:
            for kind in KINDS:
                if (space, kind.name) not in fresh:
                    live = from_tables(connection, space, kind)
                    pairs = np.stack([live.ids, live.slots]).astype("<i8").tobytes()
                    write(connection, "packed", [(space, kind.name, revision, pairs)])


def from_tables(connection: sqlite3.Connection, space: int, kind: VectorKind) -> VisibleRows:
    """Return the visible rows as the tables have them, without the packed copy."""
    rows = connection.execute(kind.live, (space,)).fetchall()
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 2)
    order = np.argsort(pairs[:, 1])
    ids, slots = np.ascontiguousarray(pairs[order].T)
    return VisibleRows(get_counter(connection, REVISION), ids, slots)


def _slot_count(connection: sqlite3.Connection, space: int, kind: VectorKind) -> int:
    return get_counter(connection, slot_counter(space, kind))


_BLOCK_BYTES = 16 << 20  # vectors that lie scattered, copied in one go
_VALUE = np.dtype("<f4")


class VectorFile:
    """Read a file of float32 rows, which is only ever appended to, through memory-mapping.

    Row ``slot`` starts at byte ``slot * dim * 4``. Several threads may read at once.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        self._mapped: Floats = np.empty((0, dim), np.float32)
        self._step = max(1, _BLOCK_BYTES // (dim * _VALUE.itemsize))

    def __len__(self) -> int:
        """Count the rows in the file; 0 where there is no file."""
        try:
            return self._path.stat().st_size // (self._dim * _VALUE.itemsize)
        except OSError:
            return 0

    def rows(self, count: int) -> Floats:
        """Return the first ``count`` rows, float32 (count, dim), as a read-only view of the file.

        Raises IndexCorrupt if the file holds fewer.
        """
        mapped = self._mapped  # another thread may map anew meanwhile
        if count > len(mapped):
            mapped = self._mapped = self._map(count)
        return mapped[:count]

    def take(self, slots: Ids) -> Floats:
        """Return a copy of the rows at ``slots``, float32 (n, dim), in that order."""
        rows = self.rows(_end(slots))
        return np.take(rows, slots, axis=0).astype(np.float32, copy=False)

    def scan(self, vector: Floats, slots: Ids) -> Floats:
        """Score ``vector`` (dim,) against the rows at ``slots`` (n,): inner products, float32 (n,).

        Slots must ascend. Vectors are read where they lie on disk; scattered ones are copied block
        by block.
        """
        rows = self.rows(_end(slots))
        if not len(slots):
            return np.empty(0, np.float32)
        first, end = int(slots[0]), int(slots[-1]) + 1
        if end - first <= 2 * len(slots):
            # Reading a few gaps beats copying the rest. One call for all: a product per block
            # makes BLAS gather its threads for each, which took ten times longer on busy cores.
            scores: Floats = rows[first:end] @ vector
            return scores if end - first == len(slots) else scores[slots - first]
        scores = np.empty(len(slots), np.float32)
        for start in range(0, len(slots), self._step):
            part = slots[start : start + self._step]
            scores[start : start + self._step] = rows[part] @ vector
        return scores

    def exact(self, vector: Floats, slots: Ids) -> Floats:
        """Score as ``scan`` does, in any order and slower, each row independently."""
        rows = self.rows(_end(slots))
        if len(slots) <= self._step:
            return exact_scores(rows[slots], vector)
        scores = np.empty(len(slots), np.float32)
        for start in range(0, len(slots), self._step):
            part = slots[start : start + self._step]
            scores[start : start + self._step] = exact_scores(rows[part], vector)
        return scores

    def close(self) -> None:
        """Release the mapping; it ends with the last array that refers to it."""
        self._mapped = np.empty((0, self._dim), np.float32)

    def _map(self, count: int) -> Floats:
        width = self._dim * _VALUE.itemsize
        try:
            with open(self._path, "rb") as file:
                length = os.fstat(file.fileno()).st_size // width
                if length < count:
                    raise _short(self._path, length, count)
                view = mmap.mmap(file.fileno(), length * width, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise _short(self._path, 0, count) from None
        return np.frombuffer(view, _VALUE).reshape(length, self._dim)


class VectorFileWriter:
    """Write a vector file, one writer at a time, under the index's write lock."""

    def __init__(self, path: Path, dim: int) -> None:
        """Open ``path``, which must exist; raises OSError if not writable."""
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115  (closed by close)
        self._dim = dim

    def write(self, first: int, rows: Floats) -> None:
        """Write ``rows`` (n, dim) at slots ``first`` to ``first + n - 1`` and wait for the disk.

        Raises OSError if that fails, for example on a full disk.
        """
        data = memoryview(np.ascontiguousarray(rows, _VALUE).tobytes())
        self._file.seek(first * self._dim * _VALUE.itemsize)
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _end(slots: Ids) -> int:
    return int(slots.max()) + 1 if len(slots) else 0


def _short(path: Path, length: int, expected: int) -> IndexCorrupt:
    return IndexCorrupt("index-slab-short", file=str(path), found=length, expected=expected)


DEFAULT = "space"  # the setting that names the space last indexed with


@dataclass(frozen=True)
class Space:
    """Describe one space of the gallery: its number in the tables, its folder, its model."""

    id: int
    folder: Path
    info: ModelInfo


def add_space(connection: sqlite3.Connection, home: Path, card: ModelInfo) -> Space:
    """Return the space of ``card``; create it if it is missing, and store the card last used.

    Raises ModelMismatch if the space has vectors of another length.
    """
    with transaction(connection):
        existing = _rows(connection, home).get(card.space)
        if existing is not None and existing.info.dim != card.dim:
            raise ModelMismatch(
                "space-dim", home=str(home), space=card.space, found=existing.info.dim, dim=card.dim
            )
        if existing is not None and existing.info == card:
            return existing
        last = connection.execute("SELECT max(id) FROM spaces").fetchone()[0] or 0
        number = existing.id if existing else last + 1
        name = existing.folder.name if existing else folder_name(card.space)
        folder = home / "spaces" / name
        make_private_folder(folder.parent)
        make_private_folder(folder)
        for kind in KINDS:
            make_private_file(folder / kind.slab)
        sync_folder(folder)
        since = connection.execute("SELECT since FROM spaces WHERE id = ?", (number,)).fetchone()
        when = since[0] if since else datetime.now(timezone.utc).isoformat(timespec="seconds")
        write(connection, "spaces", [(number, card.space, name, _to_json(card), when)])
    return Space(number, folder, card)


def folder_name(space: str) -> str:
    """Return the folder name of a space, whose own name may have any letters and length."""
    from hashlib import blake2b

    return blake2b(space.encode(), digest_size=8).hexdigest()


def find_space(connection: sqlite3.Connection, home: Path, space: str | None) -> Space:
    """Return the space called ``space``.

    None is the one last indexed with, or the first if no run has ended yet. Raises ModelMismatch,
    which lists the known spaces, if it is missing.
    """
    known = _rows(connection, home)
    name = space or get_meta(connection, DEFAULT) or next(iter(known), "")
    if name not in known:
        raise ModelMismatch(
            "space-absent",
            home=str(home),
            space=name or "-",
            known=", ".join(f"{s.info.name} ({n})" for n, s in known.items()) or "-",
            folder=get_meta(connection, "root") or str(home.parent),
        )
    return known[name]


def folder_of(connection: sqlite3.Connection, home: Path, space: Space) -> Path:
    """Return the folder of the vectors of ``space`` in the state the connection sees."""
    row = connection.execute("SELECT folder FROM spaces WHERE id = ?", (space.id,)).fetchone()
    return home / "spaces" / row[0] if row else space.folder


def first_name(folder: str) -> str:
    """Return a folder's name before any compaction: without ``-2``, ``-3`` and so on."""
    return folder.partition("-")[0]


def next_folder(space: Space) -> Path:
    """Return the folder that replaces this one: ``NAME-2`` after ``NAME``, then ``NAME-3``."""
    name, _, number = space.folder.name.partition("-")
    return space.folder.with_name(f"{name}-{int(number or 1) + 1}")


def remove_old_generations(connection: sqlite3.Connection, home: Path) -> bool:
    """Remove the folders that newer ones replaced, or that were unfinished when a run was killed.

    Returns False while a reader may still use one. Folders that belong to no space are left alone.
    """
    current = {space.folder for space in all_spaces(connection, home)}
    names = {first_name(folder.name) for folder in current}
    left = [
        folder
        for folder in (home / "spaces").glob("*")
        if folder not in current and first_name(folder.name) in names
    ]
    if not left:
        return True
    # A full checkpoint is done when every reader sees the latest state.
    connection.execute("PRAGMA busy_timeout = 1000")
    busy = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 10000")
    if busy:
        return False
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def all_spaces(connection: sqlite3.Connection, home: Path) -> list[Space]:
    """Return every space, in the order of first use."""
    return list(_rows(connection, home).values())


def _rows(connection: sqlite3.Connection, home: Path) -> dict[str, Space]:
    rows = connection.execute("SELECT id, space, folder, card FROM spaces ORDER BY id")
    try:
        return {
            space: Space(number, home / "spaces" / folder, card_from_json(card))
            for number, space, folder, card in rows
        }
    except (TypeError, ValueError) as error:
        raise IndexCorrupt("index-damaged", home=str(home), error=str(error)) from error


def _to_json(card: ModelInfo) -> str:
    return json.dumps(asdict(card), ensure_ascii=False, sort_keys=True)


def card_from_json(text: str | bytes) -> ModelInfo:
    """Parse a stored card; fields that a later version added are ignored.

    Raises TypeError or ValueError for what is no card.
    """
    known = {field.name for field in fields(ModelInfo)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in dict(json.loads(text)).items()
        if key in known
    }
    return ModelInfo(**values)
