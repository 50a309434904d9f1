"""The store in Milvus, a cluster or a Milvus Lite file; see ``docs/milvus.md``.

Every question is asked at consistency level Strong, of one epoch (``tables.py``): a reader sees the
state that the last finished call of a writer left, whole. A snapshot stays readable while one
further run goes on and until the run after it begins, which clears away what ended before.

What differs from the local store: ids are not consecutive, they follow from the content; a vector
that is given anew is seen at once; a path or caption that went and came back between two calls
of one snapshot may be missed by it; and nothing is kept from whoever may write to Milvus.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import Missing, MissingIndex, RemoteUnavailable
from soutu.store import text_search
from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile, validate_query_vector
from soutu.store.milvus import ann, epoch, rows
from soutu.store.milvus.ann import Effort, Searched, taken
from soutu.store.milvus.connection import PATIENCE, Connection, parse
from soutu.store.milvus.epoch import CAPTION, IMAGE, Head, Lease, Tables, live
from soutu.store.milvus.filters import matching
from soutu.store.milvus.rows import all_captions, live_among
from soutu.store.sqlite import schema
from soutu.types import Filter, Floats, Ids, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.ann import Manifest
    from soutu.store.milvus.writer import MilvusWriter

# Which captions say a text: told here, by the local store's own index (``store/text_search.py``)
# over all
# captions, which are fetched once and again when they change. So scores are the same, and so is
# what
# is found; Milvus's own text index cuts Chinese otherwise. For more captions than are worth
# fetching
# it cannot be told.


MOST = 200_000  # captions


class Texts:
    """The index in memory, as old as the captions are; several threads may ask."""

    def __init__(self, tables: Tables, card: ModelInfo) -> None:
        self._tables, self._card = tables, card
        self._lock = Lock()
        self._said = -1
        self._index: sqlite3.Connection | None = None
        self._found: Ids = np.empty(0, np.int64)

    def ranked(self, head: Head, text: str, k: int, among: Ids | None, *, exact: bool) -> Ranking:
        """As ``fts.ranked``, of the images that a search could return. Missing."""
        if head.told > MOST:
            place = self._tables.connection.address.shown
            raise Missing("milvus-text-many", address=place, captions=head.told, most=MOST)
        with self._lock:
            if self._index is None or self._said != head.said:
                self._fill(head)
            assert self._index is not None
            admitted = self._found if among is None else np.intersect1d(self._found, among)
            return text_search.ranked(self._index, text, k, admitted, exact=exact)

    def close(self) -> None:
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index, self._said = None, -1

    def _fill(self, head: Head) -> None:
        rows = all_captions(self._tables, head.epoch)
        index = schema.of_captions([row.text for row in rows])
        owners = [(row.image_id, place) for place, row in enumerate(rows)]
        index.executemany("UPDATE captions SET image_id = ? WHERE id = ?", owners)
        vectors = self._tables.vectors(self._card, IMAGE)
        found = live_among(vectors, head.epoch, {owner for owner, _ in owners})
        if self._index is not None:
            self._index.close()
        self._index, self._said = index, head.said
        self._found = np.array(sorted(found), np.int64)


FILTERS = 8  # whose ids are kept, until something changes


class MilvusStore:
    """Implements ``VectorStore`` for one space of the gallery at an address.

    Reading is safe from several threads; writing is one thread's at a time. Usable as a context
    manager."""

    def __init__(self, connection: Connection, card: ModelInfo) -> None:
        """Use ``create_or_open`` or ``open``."""
        self.info = card
        self.address = connection.address
        self._connection = connection
        self._tables = Tables(connection, connection.address.collection)
        self._meta = self._tables.meta
        self._texts = Texts(self._tables, card)
        self._threads = threading.local()
        self._among: dict[tuple[int, Filter], Ids] = {}
        self._efforts: dict[tuple[int, str], Effort] = {}

    @classmethod
    def create_or_open(
        cls, address: str, card: ModelInfo, *, patience: float = PATIENCE
    ) -> MilvusStore:
        """The store for writing: makes the collections and the space of ``card`` where they are not
        there. RemoteUnavailable; ModelMismatch where the space has vectors of another length."""
        with _connected(address, patience) as connection:
            tables = Tables(connection, connection.address.collection)
            tables.make()
            epoch.add(tables, card)
            return cls(connection, card)

    @classmethod
    def open(
        cls, address: str, space: str | None = None, *, patience: float = PATIENCE
    ) -> MilvusStore:
        """The store for reading, in ``space`` or the one last indexed with. MissingIndex where
        there is none, ModelMismatch where it lacks that space, RemoteUnavailable."""
        with _connected(address, patience) as connection:
            tables = Tables(connection, connection.address.collection)
            if not tables.exist():
                raise MissingIndex("store-missing-gallery", address=connection.address.shown)
            return cls(connection, epoch.find(tables, space))

    @staticmethod
    def read_meta(address: str, key: str, *, patience: float = PATIENCE) -> str | None:
        """What the gallery at ``address`` remembers under ``key``; None where there is none."""
        connection = Connection(parse(address), patience)
        try:
            tables = Tables(connection, connection.address.collection)
            return tables.meta.get_meta(key) if tables.exist() else None
        finally:
            connection.close()

    @staticmethod
    def redact(address: str) -> str:
        """The address as a URL without secrets. BadConfig for what is none."""
        return parse(address).shown

    def __enter__(self) -> MilvusStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection. Any thread's next call would open it again."""
        self._texts.close()
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within it, every call of this thread sees one and the same state."""
        if getattr(self._threads, "head", None) is not None:
            yield
            return
        self._threads.head = self._meta.head()
        try:
            yield
        finally:
            self._threads.head = None

    def state(self) -> IndexState:
        head = self._head()
        counts = (head.live.get(live(self.info, kind), 0) for kind in (IMAGE, CAPTION))
        return IndexState(head.generation, self.info.space, *counts)

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        query, head = validate_query_vector(vector, self.info.dim), self._head()
        among = None if where is None else self._matching(head, where)
        return self._searched(head, IMAGE).nearest(query, k, among)

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        query = validate_query_vector(vector, self.info.dim)
        return self._searched(self._head(), CAPTION).nearest(query, k)

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """As ``Searchable``; Missing where there are too many captions, or SQLite has no FTS5."""
        head = self._head()
        among = None if where is None else self._matching(head, where)
        return self._texts.ranked(head, text, k, among, exact=exact)

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        return rows.image_rows(self._tables, self._head().epoch, ids)

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        return rows.caption_rows(self._tables, self._head().epoch, ids)

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        return rows.captions_of(self._tables, self._head().epoch, image_id)

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        return taken(self._tables.vectors(self.info, IMAGE), ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        return taken(self._tables.vectors(self.info, CAPTION), ids)

    def count_images(self, where: Filter) -> int:
        head = self._head()
        found = self._matching(head, where)
        if head.live.get(live(self.info, IMAGE), 0) == head.owners:
            return len(found)
        vectors = self._tables.vectors(self.info, IMAGE)
        return len(rows.live_among(vectors, head.epoch, found.tolist()))

    def sample_images(self, count: int) -> Floats:
        vectors = self._tables.vectors(self.info, IMAGE)
        ids = np.array(sorted(rows.live_owners(vectors, self._head().epoch)), np.int64)
        return taken(vectors, np.random.default_rng(0).permutation(ids)[:count].tolist())

    def files(self) -> dict[str, StoredFile]:
        return rows.stored_files(self._tables, self._head().epoch)

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        return rows.ids_by_content(self._tables.images, contents)

    def images_without_vector(self) -> list[int]:
        return rows.images_without_vector(self._tables, self._head(), self.info)

    def captions_without_vector(self) -> list[CaptionRow]:
        return rows.captions_without_vector(self._tables, self._head(), self.info)

    def all_captions(self) -> list[CaptionRow]:
        return rows.all_captions(self._tables, self._head().epoch)

    def changes(self, after: int = 0) -> list[Change]:
        """What the runs after generation ``after`` did, oldest first."""
        return rows.change_rows(self._tables, self._head().epoch, after)

    def spaces(self) -> list[ModelInfo]:
        """The models that this gallery has vectors of, in the order of first use."""
        return epoch.all_cards(self._meta)

    def promises(self) -> Mapping[str, Manifest]:
        """How searching images and captions was tuned; only kinds that are not searched exactly."""
        kept = {kind: ann.manifest(self._meta, self.info, kind) for kind in epoch.KINDS}
        return {kind: found for kind, found in kept.items() if found}

    def get_meta(self, key: str) -> str | None:
        return self._meta.get_meta(key)

    def set_meta(self, key: str, value: str) -> None:
        self._meta.set_meta(key, value)

    @contextmanager
    def writer(self) -> Iterator[MilvusWriter]:
        """One index run. IndexCorrupt("index-locked") while another goes on anywhere."""
        from soutu.store.milvus.writer import MilvusWriter

        lease = Lease(self._meta)
        try:
            lease.take()
            run = MilvusWriter(self._tables, self.info, lease)
            yield run
            run.finish()
        except RemoteUnavailable:
            lease.forget()  # to try to give it back would only be waiting once more
            raise
        finally:
            lease.give_back()

    def _head(self) -> Head:
        pinned: Head | None = getattr(self._threads, "head", None)
        return pinned or self._meta.head()

    def _matching(self, head: Head, where: Filter) -> Ids:
        key = head.epoch, where
        found = self._among.get(key)
        if found is None:
            if len(self._among) >= FILTERS:
                self._among.clear()
            files, captions = self._tables.files, self._tables.captions
            found = self._among[key] = matching(files, captions, head.epoch, where)
        return found

    def _searched(self, head: Head, kind: str) -> Searched:
        key = head.tuned, kind
        effort = self._efforts.get(key)
        if effort is None:
            effort = ann.effort(ann.manifest(self._meta, self.info, kind))
            self._efforts[key] = effort
        return Searched(self._tables.vectors(self.info, kind), head.epoch, effort)


@contextmanager
def _connected(address: str, patience: float) -> Iterator[Connection]:
    """A connection that is let go of if what is done with it fails."""
    connection = Connection(parse(address), patience)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
