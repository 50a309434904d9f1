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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import IndexCorrupt, ModelMismatch
from soutu.fs import make_private_file, make_private_folder, sync_folder
from soutu.store.ann import Ann, Candidates, file_signature
from soutu.store.scoring import exact_scores, rescoring_candidates, top_k
from soutu.store.sqlite.schema import get_counter, get_meta, select_in, transaction, write
from soutu.types import Bits, Filter, Floats, Ids, ModelInfo, Ranking

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


def slots_of(
    connection: sqlite3.Connection, space: int, kind: VectorKind, ids: Sequence[int]
) -> dict[int, int]:
    """Return the slots of those of ``ids`` that have a vector in ``space``."""
    sql = f"SELECT owner, slot FROM {kind.vectors} WHERE space = {space} AND owner IN ({{marks}})"
    return dict(select_in(connection, sql, [int(id_) for id_ in ids]))


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


# A code is scanned in the time in which a thirtieth of a scattered vector is read and scored.
SCATTERED = 30
MORE = 4  # times as many candidates where the first were too few
FILTERS = 8  # whose answers are kept, for a person who pages through them


@dataclass(frozen=True)
class IndexView:
    """Hold one state of one kind of vectors, whose files lie in ``folder``.

    ``ann`` covers the slots below ``ann.manifest.slots``; which of them are visible is for ``live``
    to say. ``stamp`` is the signature of the files that ``ann`` was loaded from.
    """

    live: VisibleRows
    folder: Path
    slab: VectorFile
    ann: Ann | None = None
    stamp: tuple[int, int] | None = None

    @cached_property
    def covered(self) -> int:
        """Count the visible slots that the codes cover; those after them are newer."""
        return self._count_covered(self.live)

    def search(self, query: Floats, k: int, among: VisibleRows | None = None) -> Ranking:
        """Rank the best ``k`` of all rows, or of those in ``among``."""
        live = self.live if among is None else among
        if k < 1 or not len(live.ids):
            return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
        covered = self.covered if among is None else self._count_covered(live)
        candidates = self._candidates(query, k, live, covered, narrowed=among is not None)
        if candidates is None:
            slots, ids, scores = live.slots, live.ids, self.slab.scan(query, live.slots)
        else:
            slots, ids, scores = candidates.slots, live.ids_at(candidates.slots), candidates.scores
            if covered < len(live.slots):  # what the codes do not cover yet is scored too
                later = live.slots[covered:]
                scores = np.concatenate([scores, self.slab.scan(query, later)])
                slots = np.concatenate([slots, later])
                ids = np.concatenate([ids, live.ids[covered:]])
        near = rescoring_candidates(scores, k, query)
        slots, ids = slots[near], ids[near]
        return top_k(exact_scores(self.slab.rows(_end(slots)), query, slots), ids, k)

    def _count_covered(self, live: VisibleRows) -> int:
        return int(np.searchsorted(live.slots, self.ann.manifest.slots)) if self.ann else 0

    def _candidates(
        self, query: Floats, k: int, live: VisibleRows, covered: int, *, narrowed: bool
    ) -> Candidates | None:
        """Return the covered slots worth scoring; None where all are to be scored."""
        level = self.ann.level(k) if self.ann else None
        if self.ann is None or level is None:
            return None
        bits = None if covered == self.ann.manifest.slots else live.bits
        if narrowed:
            # What a filter admits may lie far from the query: in lists that are rarely scanned,
            # and where many have nearly the same score. So nothing was tuned for it, and to scan
            # all lists twice costs more than more candidates do.
            more = level.candidates * MORE
            level = replace(level, lists=self.ann.manifest.lists, candidates=more)
        while covered * SCATTERED > self.ann.manifest.slots and covered > level.candidates:
            rows = self.slab.rows(self.ann.manifest.slots)
            candidates = self.ann.candidates(query, level, rows, bits)
            if not narrowed or candidates.settle(k):
                return candidates
            if level.candidates * MORE > covered // SCATTERED:
                break  # reading the vectors of so many takes longer than scanning them all
            level = replace(level, candidates=level.candidates * MORE)
        return None


class IndexViews:
    """Keep the latest view of one kind in one space; several threads may ask at once."""

    def __init__(self, home: Path, space: Space, kind: VectorKind, *, exact_below: int) -> None:
        """Scan the vectors, whatever codes there are, below ``exact_below`` slots."""
        self._home, self._space, self._kind = home, space, kind
        self._exact_below = exact_below
        self._view = self._blank(space.folder)
        self._among: dict[Filter, VisibleRows] = {}

    def latest(self, connection: sqlite3.Connection) -> IndexView | None:
        """Return the view if it is up to date: one query, which needs no transaction."""
        view = self._view  # another thread may put a later one there meanwhile
        if view.live.revision != get_counter(connection, REVISION):
            return None
        return self._update_codes(view)

    def current(self, connection: sqlite3.Connection) -> IndexView:
        """Return the view that the connection's transaction sees."""
        view = self.latest(connection)
        return view or self._update_codes(self._reload(connection, self._view))

    def admitted(self, connection: sqlite3.Connection, where: Filter | None) -> VisibleRows:
        """Return the rows that the filter ``where`` admits; all for None."""
        view = self.current(connection)
        if where is None:
            return view.live
        admitted = self._among.get(where)
        if admitted is None or admitted.revision != view.live.revision:
            from soutu.store.sqlite.filters import matching_images

            if len(self._among) >= FILTERS:
                self._among.clear()
            admitted = self._among[where] = view.live.only(matching_images(connection, where))
        return admitted

    def count(self, connection: sqlite3.Connection) -> int:
        """Count the visible rows where they are not packed, as during an index run."""
        live = self._view.live
        if live.revision == get_counter(connection, REVISION):
            return len(live.ids)
        sql = f"SELECT count(*) FROM ({self._kind.live})"
        return int(connection.execute(sql, (self._space.id,)).fetchone()[0])

    def vectors(self, connection: sqlite3.Connection, ids: Sequence[int]) -> Floats:
        """Return the vectors of the rows ``ids``, float32 (n, dim); KeyError where one has none."""
        view = self.current(connection)
        slots = slots_of(connection, self._space.id, self._kind, ids)
        return view.slab.take(np.array([slots[int(id_)] for id_ in ids], np.int64))

    def _update_codes(self, view: IndexView) -> IndexView:
        """Give ``view`` the codes that are on disk now, and keep it."""
        if len(view.live.slots) >= self._exact_below:
            view = _with_ann(view, self._kind)
        self._view = view
        return view

    def _blank(self, folder: Path) -> IndexView:
        return IndexView(
            NO_ROWS, folder, VectorFile(folder / self._kind.slab, self._space.info.dim)
        )

    def _reload(self, connection: sqlite3.Connection, view: IndexView) -> IndexView:
        folder = folder_of(connection, self._home, self._space)
        if folder != view.folder:  # compacted: slots mean other vectors now
            view = self._blank(folder)
        view = replace(view, live=load_visible(connection, self._space.id, self._kind))
        if len(view.live.slots):
            view.slab.rows(int(view.live.slots[-1]) + 1)  # mapped while it is sure to be there
        return view


def _with_ann(view: IndexView, kind: VectorKind) -> IndexView:
    signature = file_signature(view.folder, kind.name)
    if signature == view.stamp:
        return view
    try:
        ann = Ann.load(view.folder, kind.name) if signature else None
    except IndexCorrupt:  # doctor reports it, the next run repairs it, a scan is right meanwhile
        ann = None
    return replace(view, ann=ann, stamp=signature)


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
