"""The store in Milvus, a cluster or a Milvus Lite file; see ``docs/milvus.md``.

Every question is asked at consistency level Strong, of one epoch (``tables.py``): a reader sees the
state that the last finished call of a writer left, whole. A snapshot stays readable while one
further run goes on and until the run after it begins, which clears away what ended before.

What differs from the local store: ids are not consecutive, they follow from the content; a vector
that is given anew is seen at once; a path or caption that went and came back between two calls
of one snapshot may be missed by it; and nothing is kept from whoever may write to Milvus.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import MissingIndex, RemoteUnavailable
from soutu.filters import Filter
from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile
from soutu.store.checks import checked_query
from soutu.store.milvus import reading, spaces, tuning
from soutu.store.milvus.address import Address
from soutu.store.milvus.connection import PATIENCE, Connection
from soutu.store.milvus.head import Head, Lease
from soutu.store.milvus.nearest import Effort, Searched, taken
from soutu.store.milvus.spaces import CAPTION, IMAGE, Tables, live
from soutu.store.milvus.texts import Texts
from soutu.store.milvus.where import matching
from soutu.types import Floats, Ids, IndexState, ModelCard, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.manifest import Manifest
    from soutu.store.milvus.writing import MilvusWriter

FILTERS = 8  # whose ids are kept, until something changes


class MilvusStore:
    """Implements ``VectorStore`` for one space of the gallery at an address.

    Reading is safe from several threads; writing is one thread's at a time. Usable as a context
    manager."""

    def __init__(self, connection: Connection, card: ModelCard) -> None:
        """Use ``create_or_open`` or ``open``."""
        self.card = card
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
        cls, address: Address, card: ModelCard, *, patience: float = PATIENCE
    ) -> MilvusStore:
        """The store for writing: makes the collections and the space of ``card`` where they are not
        there. RemoteUnavailable; ModelMismatch where the space has vectors of another length."""
        with _connected(address, patience) as connection:
            tables = Tables(connection, address.collection)
            tables.make()
            spaces.add(tables, card)
            return cls(connection, card)

    @classmethod
    def open(
        cls, address: Address, space: str | None = None, *, patience: float = PATIENCE
    ) -> MilvusStore:
        """The store for reading, in ``space`` or the one last indexed with. MissingIndex where
        there is none, ModelMismatch where it lacks that space, RemoteUnavailable."""
        with _connected(address, patience) as connection:
            tables = Tables(connection, address.collection)
            if not tables.exist():
                raise MissingIndex("milvus-missing-gallery", address=address.shown)
            return cls(connection, spaces.find(tables, space))

    @staticmethod
    def peek(address: Address, key: str, *, patience: float = PATIENCE) -> str | None:
        """What the gallery at ``address`` remembers under ``key``; None where there is none."""
        connection = Connection(address, patience)
        try:
            tables = Tables(connection, address.collection)
            return tables.meta.recall(key) if tables.exist() else None
        finally:
            connection.close()

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
        counts = (head.live.get(live(self.card, kind), 0) for kind in (IMAGE, CAPTION))
        return IndexState(head.generation, self.card.space, *counts)

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        query, head = checked_query(vector, self.card.dim), self._head()
        among = None if where is None else self._matching(head, where)
        return self._searched(head, IMAGE).nearest(query, k, among)

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        query = checked_query(vector, self.card.dim)
        return self._searched(self._head(), CAPTION).nearest(query, k)

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """As ``Searchable``; Missing where there are too many captions, or SQLite has no FTS5."""
        head = self._head()
        among = None if where is None else self._matching(head, where)
        return self._texts.ranked(head, text, k, among, exact=exact)

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        return reading.image_rows(self._tables, self._head().epoch, ids)

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        return reading.caption_rows(self._tables, self._head().epoch, ids)

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        return reading.captions_of(self._tables, self._head().epoch, image_id)

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        return taken(self._tables.vectors(self.card, IMAGE), ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        return taken(self._tables.vectors(self.card, CAPTION), ids)

    def count_images(self, where: Filter) -> int:
        head = self._head()
        found = self._matching(head, where)
        if head.live.get(live(self.card, IMAGE), 0) == head.owners:
            return len(found)
        vectors = self._tables.vectors(self.card, IMAGE)
        return len(reading.live_among(vectors, head.epoch, found.tolist()))

    def sample_images(self, count: int) -> Floats:
        vectors = self._tables.vectors(self.card, IMAGE)
        ids = np.array(sorted(reading.live_owners(vectors, self._head().epoch)), np.int64)
        return taken(vectors, np.random.default_rng(0).permutation(ids)[:count].tolist())

    def files(self) -> dict[str, StoredFile]:
        return reading.stored_files(self._tables, self._head().epoch)

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        return reading.ids_by_content(self._tables.images, contents)

    def images_without_vector(self) -> list[int]:
        return reading.images_without_vector(self._tables, self._head(), self.card)

    def captions_without_vector(self) -> list[CaptionRow]:
        return reading.captions_without_vector(self._tables, self._head(), self.card)

    def all_captions(self) -> list[CaptionRow]:
        return reading.all_captions(self._tables, self._head().epoch)

    def changes(self, after: int = 0) -> list[Change]:
        """What the runs after generation ``after`` did, oldest first."""
        return reading.change_rows(self._tables, self._head().epoch, after)

    def spaces(self) -> list[ModelCard]:
        """The models that this gallery has vectors of, in the order of first use."""
        return spaces.all_cards(self._meta)

    def promises(self) -> Mapping[str, Manifest]:
        """How searching images and captions was tuned; only kinds that are not searched exactly."""
        kept = {kind: tuning.manifest(self._meta, self.card, kind) for kind in spaces.KINDS}
        return {kind: found for kind, found in kept.items() if found}

    def recall(self, key: str) -> str | None:
        return self._meta.recall(key)

    def remember(self, key: str, value: str) -> None:
        self._meta.remember(key, value)

    @contextmanager
    def writer(self) -> Iterator[MilvusWriter]:
        """One index run. IndexCorrupt("index-locked") while another goes on anywhere."""
        from soutu.store.milvus.writing import MilvusWriter

        lease = Lease(self._meta)
        try:
            lease.take()
            run = MilvusWriter(self._tables, self.card, lease)
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
            effort = tuning.effort(tuning.manifest(self._meta, self.card, kind))
            self._efforts[key] = effort
        return Searched(self._tables.vectors(self.card, kind), head.epoch, effort)


@contextmanager
def _connected(address: Address, patience: float) -> Iterator[Connection]:
    """A connection that is let go of if what is done with it fails."""
    connection = Connection(address, patience)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
