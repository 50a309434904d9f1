"""The store on this machine: SQLite rows beside memory-mapped vectors, in one folder.

.soutu/rows.db               what there is (store/rows.py)
.soutu/spaces/<id>/*.f32     vectors of one model (store/slab.py)
.soutu/spaces/<id>/*.ann.*   codes that make searching them fast (store/ann.py)
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

from soutu.filters import Filter
from soutu.store.ann import EXACT_BELOW
from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile
from soutu.store.checks import checked_query
from soutu.store.home import HOME, absolute, find_home, unwritable
from soutu.store.live import CAPTIONS, IMAGES, KINDS, Kind
from soutu.store.manifest import Manifest, read_manifest
from soutu.store.opening import create_or_find, find, peek, remember
from soutu.store.reading import (
    all_caption_rows,
    caption_rows,
    captions_of_image,
    captions_without_vector,
    change_rows,
    ids_by_content,
    image_rows,
    slots_of,
    stored_files,
    without_vector,
)
from soutu.store.rows import connect, counter, guard, setting
from soutu.store.spaces import Space, all_spaces, folder_of
from soutu.store.view import Views
from soutu.types import Floats, Ids, IndexState, ModelCard, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.compact import Compacted
    from soutu.store.writing import LocalWriter

__all__ = ["HOME", "LocalStore", "find_home"]

ONCE_EXACT_BELOW = 100_000  # where scanning takes less time than importing Faiss


class LocalStore:
    """Implements ``VectorStore`` for one space of the gallery at ``home``.

    Reading is safe from several threads, each with its own SQLite connection; writing is one
    thread's at a time. Usable as a context manager.
    """

    def __init__(self, home: Path, space: Space, *, once: bool = False) -> None:
        """Use ``create_or_open`` or ``open``."""
        self.home = home
        self.card = space.card
        self._space = space
        below = ONCE_EXACT_BELOW if once else EXACT_BELOW
        self._views = {k.name: Views(home, space, k, exact_below=below) for k in KINDS}
        self._threads = threading.local()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    def create_or_open(cls, home: Path, card: ModelCard) -> LocalStore:
        """The store for writing: makes the index at ``home`` (0700) and the space of ``card``
        where they are not there. IndexCorrupt where ``home`` cannot be written or lies on a
        network; ModelMismatch where the space has vectors of another length."""
        home = absolute(home)
        return cls(home, create_or_find(home, card))

    @classmethod
    def open(cls, home: Path, space: str | None = None, *, once: bool = False) -> LocalStore:
        """The store for reading, in ``space`` or the one last indexed with. MissingIndex where
        there is none, ModelMismatch where it lacks that space, IndexCorrupt where it was made
        by a newer Soutu or lies on a network; one of an older Soutu is brought up to date.
        ``once``: for one search, which a scan answers before an index of codes would be loaded."""
        home = absolute(home)
        return cls(home, find(home, space), once=once)

    @staticmethod
    def peek(home: Path, key: str) -> str | None:
        """What the index at ``home`` remembers under ``key``, without opening it; None where
        there is no index."""
        return peek(home, key)

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
        for views in self._views.values():
            views.close()

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

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        from soutu.store import fts, text_index  # few searches need either

        with self.snapshot():
            views, connection = self._views[IMAGES.name], self._connection()
            text_index.require(connection)
            view = views.current(connection)
            admitted = views.among(connection, view, where) if where is not None else view.live
            return fts.ranked(connection, text, k, admitted.ascending, exact=exact)

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        with self.snapshot():
            return image_rows(self._connection(), ids)

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        with self.snapshot():
            return caption_rows(self._connection(), ids)

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        with self.snapshot():
            return captions_of_image(self._connection(), image_id)

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        return self._vectors(IMAGES, ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        return self._vectors(CAPTIONS, ids)

    def count_images(self, where: Filter) -> int:
        with self.snapshot():
            views, connection = self._views[IMAGES.name], self._connection()
            return len(views.among(connection, views.current(connection), where).ids)

    def sample_images(self, count: int) -> Floats:
        with self.snapshot():
            view = self._views[IMAGES.name].current(self._connection())
            order = np.random.default_rng(0).permutation(len(view.live.slots))[:count]
            return view.slab.take(view.live.slots[order])

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

    def promises(self) -> dict[str, Manifest]:
        """How the codes of images and captions were tuned; only kinds that have codes. A damaged
        manifest is IndexCorrupt."""
        with self.snapshot():
            folder = folder_of(self._connection(), self.home, self._space)
        kept = {kind.name: read_manifest(folder, kind.name) for kind in KINDS}
        return {name: manifest for name, manifest in kept.items() if manifest}

    def recall(self, key: str) -> str | None:
        """What was remembered under ``key``."""
        with self.snapshot():
            return setting(self._connection(), key)

    def remember(self, key: str, value: str) -> None:
        """Keep a text with the gallery: its captions file, its root folder, its model. A path
        that is no valid Unicode is kept as it is."""
        remember(self.home, key, value)

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

    def compact(self) -> Compacted:
        """Give back the room of what is gone; see ``store.compact``. IndexCorrupt while an index
        run goes on, or where there is no room to write the vectors anew."""
        from soutu.store.compact import compact
        from soutu.store.lock import write_lock

        with write_lock(self.home):
            return compact(self.home)

    def _search(self, kind: Kind, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        query = checked_query(vector, self.card.dim)
        views, connection = self._views[kind.name], self._connection()
        view, among = None, None
        if where is None:
            with guard(self.home):
                view = views.latest(connection)
        if view is None:
            with self.snapshot():
                view = views.current(connection)
                among = views.among(connection, view, where) if where is not None else None
        # A slot never changes its vector while its slab is mapped, whatever a writer does.
        return view.search(query, k, among)

    def _count(self, kind: Kind) -> int:
        return self._views[kind.name].count(self._connection())

    def _vectors(self, kind: Kind, ids: Sequence[int]) -> Floats:
        with self.snapshot():
            view = self._views[kind.name].current(self._connection())
            slots = slots_of(self._connection(), self._space.id, kind, ids)
            wanted: Ids = np.array([slots[int(id_)] for id_ in ids], dtype=np.int64)
            return view.slab.take(wanted)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = connect(self.home)
            self._connections.append(connection)
        return connection
