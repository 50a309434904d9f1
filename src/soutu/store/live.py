"""Which slots of a slab answer searches, and for whom.

The tables say it exactly; reading them costs about a microsecond a row. So the end of each
index run also leaves the answer packed in one blob, marked with the revision it was made at.
It is derived: where the mark is older than the rows (a run under way, or killed), the tables
are asked.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from soutu.store.rows import counter, transaction, write
from soutu.types import Ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bits: TypeAlias = "NDArray[np.uint8]"

REVISION = "revision"  # counts every transaction that changes what a search may return


@dataclass(frozen=True)
class Kind:
    """Images or captions: what differs between them in the database and on disk."""

    name: str
    vectors: str  # the table of slots
    slab: str  # the file of vectors
    live: str  # the query for (owner, slot) of what has a path


IMAGES = Kind(
    "image",
    "image_vectors",
    "images.f32",
    """SELECT owner, slot FROM image_vectors WHERE space = ?
        AND EXISTS (SELECT 1 FROM paths WHERE image_id = owner)""",
)
CAPTIONS = Kind(
    "caption",
    "caption_vectors",
    "captions.f32",
    """SELECT v.owner, v.slot FROM caption_vectors v JOIN captions c ON c.id = v.owner
        WHERE v.space = ? AND EXISTS (SELECT 1 FROM paths WHERE image_id = c.image_id)""",
)
KINDS = (IMAGES, CAPTIONS)


@dataclass(frozen=True)
class Live:
    """``ids`` and ``slots`` are parallel int64 (n,), slots ascending, as of ``revision``."""

    revision: int
    ids: Ids
    slots: Ids

    def only(self, ids: Ids) -> Live:
        """Those of them that are among ``ids``."""
        kept = np.isin(self.ids, ids)
        return Live(self.revision, self.ids[kept], self.slots[kept])

    def ids_at(self, slots: Ids) -> Ids:
        """The ids at these slots, each of which is live."""
        return self.ids[slots if self._no_gaps else np.searchsorted(self.slots, slots)]

    @cached_property
    def _no_gaps(self) -> bool:
        """Whether slot i stands at place i: all that there are, are live."""
        return len(self.slots) == int(self.slots[-1]) + 1

    @cached_property
    def ascending(self) -> Ids:
        """The ids, ascending."""
        return np.sort(self.ids)

    @cached_property
    def bits(self) -> Bits:
        """Bit ``slot % 8`` of byte ``slot // 8`` is set for each of the slots."""
        marks = np.zeros(int(self.slots[-1]) + 1 if len(self.slots) else 0, bool)
        marks[self.slots] = True
        return np.packbits(marks, bitorder="little")


NOTHING = Live(-1, np.empty(0, np.int64), np.empty(0, np.int64))
"""What is searchable before anybody has looked."""


def slot_counter(space: int, kind: Kind) -> str:
    """The name of the counter that hands out slots."""
    return f"slots/{space}/{kind.name}"


def load_live(connection: sqlite3.Connection, space: int, kind: Kind) -> Live:
    """What is searchable as the connection's transaction sees it."""
    revision = counter(connection, REVISION)
    found = connection.execute(
        "SELECT pairs FROM packed WHERE space = ? AND kind = ? AND revision = ?",
        (space, kind.name, revision),
    ).fetchone()
    if found is None:
        return from_tables(connection, space, kind)
    ids, slots = np.frombuffer(found[0], "<i8").reshape(2, -1)
    if len(slots) and not 0 <= slots.min() <= slots.max() < _allotted(connection, space, kind):
        return from_tables(connection, space, kind)  # damaged, and only a copy
    return Live(revision, ids, slots)


def count_live(connection: sqlite3.Connection, space: int, kind: Kind) -> int:
    """How many are searchable, without loading which."""
    found = connection.execute(
        "SELECT length(pairs) / 16 FROM packed WHERE space = ? AND kind = ? AND revision = ?",
        (space, kind.name, counter(connection, REVISION)),
    ).fetchone()
    if found is None:
        found = connection.execute(f"SELECT count(*) FROM ({kind.live})", (space,)).fetchone()
    return int(found[0])


def pack(connection: sqlite3.Connection) -> None:
    """Leave the packed answers of all spaces for the revision there is."""
    with transaction(connection):
        revision = counter(connection, REVISION)
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


def from_tables(connection: sqlite3.Connection, space: int, kind: Kind) -> Live:
    """What is searchable, told by the tables alone."""
    rows = connection.execute(kind.live, (space,)).fetchall()
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 2)
    order = np.argsort(pairs[:, 1])
    ids, slots = np.ascontiguousarray(pairs[order].T)
    return Live(counter(connection, REVISION), ids, slots)


def _allotted(connection: sqlite3.Connection, space: int, kind: Kind) -> int:
    return counter(connection, slot_counter(space, kind))
