"""The store on this machine: SQLite rows beside memory-mapped vectors, in one folder.

.soutu/rows.db               what there is (store/rows.py)
.soutu/spaces/<id>/*.f32     vectors of one model (store/slab.py)
.soutu/lock                  who is writing (store/lock.py)
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import MissingIndex
from soutu.filters import Filter
from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile
from soutu.store.checks import checked_query
from soutu.store.home import (
    DATABASE,
    HOME,
    absolute,
    find_home,
    make_private_file,
    make_private_folder,
    refuse_network_storage,
    unwritable,
)
from soutu.store.live import CAPTIONS, IMAGES, KINDS, REVISION, Kind, Live, count_live, load_live
from soutu.store.ranking import contenders, top_k
from soutu.store.reading import (
    all_caption_rows,
    caption_rows,
    captions_without_vector,
    change_rows,
    ids_by_content,
    image_rows,
    slots_of,
    stored_files,
    without_vector,
)
from soutu.store.rows import (
    check_version,
    connect,
    counter,
    create_tables,
    guard,
    set_setting,
    setting,
    transaction,
)
from soutu.store.slab import Slab
from soutu.store.spaces import Space, add_space, all_spaces, find_space
from soutu.types import Floats, Ids, IndexState, ModelCard, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.writing import LocalWriter

__all__ = ["HOME", "LocalStore", "find_home"]


class LocalStore:
    """Implements ``VectorStore`` for one space of the gallery at ``home``.

    Reading is safe from several threads, each with its own SQLite connection; writing is one
    thread's at a time. Usable as a context manager.
    """

    def __init__(self, home: Path, space: Space) -> None:
        """Use ``create_or_open`` or ``open``."""
        self.home = home
        self.card = space.card
        self._space = space
        self._slabs = {k.name: Slab(space.folder / k.slab, space.card.dim) for k in KINDS}
        self._live: dict[str, Live] = {}
        self._threads = threading.local()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    def create_or_open(cls, home: Path, card: ModelCard) -> LocalStore:
        """The store for writing: makes the index at ``home`` (0700) and the space of ``card``
        where they are not there. IndexCorrupt where ``home`` cannot be written or lies on a
        network; ModelMismatch where the space has vectors of another length."""
        home = absolute(home)
        refuse_network_storage(home)
        make_private_folder(home)
        make_private_file(home / DATABASE)
        with _connected(home, writing=True) as connection:
            create_tables(connection, home)
            return cls(home, add_space(connection, home, card))

    @classmethod
    def open(cls, home: Path, space: str | None = None) -> LocalStore:
        """The store for reading, in ``space`` or the one last indexed with. MissingIndex where
        there is none, ModelMismatch where it lacks that space, IndexCorrupt where it was made
        by a newer Soutu or lies on a network."""
        home = absolute(home)
        if not (home / DATABASE).is_file():
            raise MissingIndex("index-missing", folder=str(home.parent))
        refuse_network_storage(home)
        with _connected(home) as connection:
            check_version(connection, home)
            return cls(home, find_space(connection, home, space))

    @staticmethod
    def peek(home: Path, key: str) -> str | None:
        """What the index at ``home`` remembers under ``key``, without opening it; None where
        there is no index."""
        home = absolute(home)
        if not (home / DATABASE).is_file():
            return None
        with _connected(home) as connection:
            try:
                check_version(connection, home)
            except MissingIndex:  # its making was cut short
                return None
            return setting(connection, key)

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files. Any thread's next call would open them again."""
        while self._connections:
            self._connections.pop().close()
        self._threads = threading.local()
        for slab in self._slabs.values():
            slab.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within it, every call of this thread sees one and the same state."""
        connection = self._connection()
        if connection.in_transaction:
            yield
            return
        with guard(self.home):
            connection.execute("BEGIN")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def state(self) -> IndexState:
        with self.snapshot():
            return IndexState(
                counter(self._connection(), "generation"),
                self.card.space,
                self._count(IMAGES),
                self._count(CAPTIONS),
            )

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        return self._search(IMAGES, vector, k, where)

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        return self._search(CAPTIONS, vector, k)

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        with self.snapshot():
            return image_rows(self._connection(), ids)

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        with self.snapshot():
            return caption_rows(self._connection(), ids)

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        return self._vectors(IMAGES, ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        return self._vectors(CAPTIONS, ids)

    def files(self) -> dict[str, StoredFile]:
        with self.snapshot():
            return stored_files(self._connection())

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        with self.snapshot():
            return ids_by_content(self._connection(), contents)

    def images_without_vector(self) -> list[int]:
        with self.snapshot():
            return without_vector(self._connection(), self._space.id)

    def captions_without_vector(self) -> list[CaptionRow]:
        with self.snapshot():
            return captions_without_vector(self._connection(), self._space.id)

    def all_captions(self) -> list[CaptionRow]:
        with self.snapshot():
            return all_caption_rows(self._connection())

    def changes(self, after: int = 0) -> list[Change]:
        """What the runs after generation ``after`` did, oldest first."""
        with self.snapshot():
            return change_rows(self._connection(), after)

    def spaces(self) -> list[ModelCard]:
        """The models that this gallery has vectors of, in the order of first use."""
        with self.snapshot():
            return [space.card for space in all_spaces(self._connection(), self.home)]

    def recall(self, key: str) -> str | None:
        """What was remembered under ``key``."""
        with self.snapshot():
            return setting(self._connection(), key)

    def remember(self, key: str, value: str) -> None:
        """Keep a text with the gallery: its captions file, its root folder, its model. A path
        that is no valid Unicode is kept as it is."""
        with _connected(self.home, writing=True) as connection, transaction(connection):
            set_setting(connection, key, value)

    @contextmanager
    def writer(self) -> Iterator[LocalWriter]:
        """One index run. IndexCorrupt("index-locked") while another goes on anywhere."""
        from soutu.store.lock import write_lock  # a search pays for neither
        from soutu.store.writing import LocalWriter

        with write_lock(self.home):
            try:
                run = LocalWriter(self.home, self._space)
            except OSError as error:
                raise unwritable(self._space.folder, error) from error
            try:
                yield run
                run.finish()
            finally:
                run.close()

    def _search(self, kind: Kind, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        query = checked_query(vector, self.card.dim)
        with self.snapshot():
            live = self._current(kind)
            if where is not None:
                from soutu.store.where import matching_images

                live = live.only(matching_images(self._connection(), where))
        # Slots are never given twice: this holds whatever a writer does meanwhile.
        slab = self._slabs[kind.name]
        if k < 1 or not len(live.ids):
            return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
        near = contenders(slab.scan(query, live.slots), k, query)
        return top_k(slab.exact(query, live.slots[near]), live.ids[near], k)

    def _current(self, kind: Kind) -> Live:
        """What is searchable in the state that this thread sees."""
        connection = self._connection()
        live = self._live.get(kind.name)
        if live is None or live.revision != counter(connection, REVISION):
            live = self._live[kind.name] = load_live(connection, self._space.id, kind)
        return live

    def _count(self, kind: Kind) -> int:
        connection = self._connection()
        live = self._live.get(kind.name)
        if live is not None and live.revision == counter(connection, REVISION):
            return len(live.ids)
        return count_live(connection, self._space.id, kind)

    def _vectors(self, kind: Kind, ids: Sequence[int]) -> Floats:
        with self.snapshot():
            slots = slots_of(self._connection(), self._space.id, kind, ids)
        wanted: Ids = np.array([slots[int(id_)] for id_ in ids], dtype=np.int64)
        return self._slabs[kind.name].take(wanted)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = connect(self.home)
            self._connections.append(connection)
        return connection


@contextmanager
def _connected(home: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection for one purpose."""
    connection = connect(home, writing=writing)
    try:
        with guard(home):
            yield connection
    finally:
        connection.close()
