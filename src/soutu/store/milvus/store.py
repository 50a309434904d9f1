"""The store in Milvus, a cluster or a Milvus Lite file; see ``docs/milvus.md``.

Every question is asked at consistency level Strong, of one epoch (``epoch.py``): a reader sees the
state that the last finished call of a writer left, whole. A snapshot stays readable while one
further run goes on and until the run after it begins, which clears away what ended before.

What differs from the local store: ids are not consecutive, they follow from the content; a vector
that is overwritten is seen at once; a path or caption that went and came back between two calls
of one snapshot may be missed by it; and nothing is kept from whoever may write to Milvus.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import Missing, MissingIndex, RemoteUnavailable
from soutu.store.base import (
    CaptionRow,
    Change,
    ImageRow,
    ListingKey,
    StoredFile,
    only_admitted,
)
from soutu.store.milvus.ann import Effort, VectorSearch, effort_of, read_manifest, sample_vectors
from soutu.store.milvus.connection import TIMEOUT, Connection, parse_address
from soutu.store.milvus.epoch import EpochState, Lease, read_epoch
from soutu.store.milvus.filters import admitted_paths, matching_images
from soutu.store.milvus.schema import KEY, SINCE, path_from_hex, visible_at
from soutu.store.milvus.tables import CAPTION, IMAGE, KINDS, Tables, caption_rows
from soutu.store.scoring import validate_query_vector
from soutu.store.sqlite import text_search
from soutu.text import pieces
from soutu.types import Filter, Floats, Ids, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from soutu.store.ann import Manifest
    from soutu.store.milvus.writer import MilvusWriter

MAX_CAPTIONS = 200_000  # whose words are searched; more are not worth fetching
CACHED_FILTERS = 8  # whose ids are remembered, until something changes


class MilvusStore(AbstractContextManager["MilvusStore"]):
    """Implements ``VectorStore`` for one space of the gallery at an address.

    Reading is safe from several threads; writing is one thread's at a time. Usable as a context
    manager. Use ``create_or_open`` or ``open``.
    """

    def __init__(self, connection: Connection, info: ModelInfo) -> None:
        self.info = info
        self._connection = connection
        self._tables = Tables(connection, connection.address.collection)
        self._meta = self._tables.meta
        self._text_index = _TextIndex(self._tables, info)
        self._snapshots = threading.local()
        self._filtered: dict[tuple[int, Filter], Ids] = {}
        self._efforts: dict[tuple[int, str], Effort] = {}

    @classmethod
    def create_or_open(
        cls, address: str, info: ModelInfo, *, timeout: float = TIMEOUT
    ) -> MilvusStore:
        """Open the store for writing; make the collections that are not there.

        Raises
        ------
        BadConfig, ModelMismatch, RemoteUnavailable
            ``address`` is none; the space has vectors of another length; no answer in time.
        """
        with _connect(address, timeout) as tables:
            tables.create()
            tables.add_model(info)
            return cls(tables.connection, info)

    @classmethod
    def open(
        cls, address: str, space: str | None = None, *, timeout: float = TIMEOUT
    ) -> MilvusStore:
        """Open the store for reading, in ``space`` or the one last indexed with.

        Raises
        ------
        BadConfig, MissingIndex, ModelMismatch, RemoteUnavailable
            ``address`` is none; no gallery there; none of that space; no answer in time.
        """
        with _connect(address, timeout) as tables:
            if not tables.exist():
                redacted = tables.connection.address.redacted
                raise MissingIndex("store-missing-gallery", address=redacted)
            return cls(tables.connection, tables.find_model(space))

    @staticmethod
    def read_meta(address: str, key: str, *, timeout: float = TIMEOUT) -> str | None:
        """Return the value of ``key`` at ``address``; None where there is no gallery."""
        with _connect(address, timeout) as tables:
            value = tables.meta.get_meta(key) if tables.exist() else None
            tables.connection.close()
        return value

    @staticmethod
    def redact(address: str) -> str:
        """Return the address as a URL without secrets; raise BadConfig for what is none."""
        return parse_address(address).redacted

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection. Any thread's next call would open it again."""
        self._text_index.close()
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every call of this thread see one and the same state."""
        if getattr(self._snapshots, "state", None) is not None:
            yield
            return
        self._snapshots.state = read_epoch(self._meta)
        try:
            yield
        finally:
            self._snapshots.state = None

    def state(self) -> IndexState:
        """Return what answers now."""
        state = self._state()
        counts = (state.vector_count(self.info, kind) for kind in KINDS)
        return IndexState(state.generation, self.info.space, *counts)

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        """Return the ``k`` images nearest to ``vector``."""
        query, state = validate_query_vector(vector, self.info.dim), self._state()
        return self._vector_search(state, IMAGE).top_k(query, k, self._matching(state, where))

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        """Return the ``k`` captions nearest to ``vector``."""
        query = validate_query_vector(vector, self.info.dim)
        return self._vector_search(self._state(), CAPTION).top_k(query, k)

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """Return the ``k`` images whose captions say ``text`` best.

        Raises
        ------
        Missing
            There are too many captions, or SQLite has no FTS5.
        """
        state = self._state()
        return self._text_index.search(state, text, k, self._matching(state, where), exact=exact)

    def images(self, ids: Sequence[int], where: Filter | None = None) -> list[ImageRow]:
        """Return the rows of these image ids, in order; KeyError for one that is unknown."""
        epoch, ids = self._state().epoch, [int(id_) for id_ in ids]
        rows = self._tables.images.get(ids)
        paths: defaultdict[int, list[str]] = defaultdict(list)
        for row in self._tables.files.rows_with(epoch, "image", ids, ("image", "path")):
            paths[row["image"]].append(path_from_hex(row["path"]))
        captions: defaultdict[int, list[str]] = defaultdict(list)
        for caption in caption_rows(self._tables.captions.rows_with(epoch, "image", ids)):
            captions[caption.image_id].append(caption.text)
        image_rows = [
            ImageRow(
                id_,
                tuple(sorted(paths[id_])),
                tuple(captions[id_]),
                rows[id_]["width"],
                rows[id_]["height"],
                rows[id_]["taken"],
            )
            for id_ in ids
        ]
        if where is None:
            return image_rows
        return only_admitted(image_rows, admitted_paths(self._tables, epoch, ids, where))

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """Return the rows of these caption ids, in order; KeyError for one that is unknown."""
        ids = [int(id_) for id_ in ids]
        rows = caption_rows(self._tables.captions.rows_with(self._state().epoch, "id", ids))
        by_id = {row.id: row for row in rows}
        return [by_id[id_] for id_ in ids]

    def list_images(
        self, k: int, where: Filter | None = None, after: ListingKey | None = None
    ) -> list[ImageRow]:
        """List up to ``k`` images that ``where`` admits, latest first, from ``after`` on."""
        state = self._state()
        matching, fields = self._matching(state, where), ("image", "path", "taken")
        if matching is None:
            files = self._tables.files.rows(visible_at(state.epoch), fields)
        else:
            files = iter(
                self._tables.files.rows_with(state.epoch, "image", matching.tolist(), fields)
            )
        keys: dict[int, ListingKey] = {}
        for row in files:
            key = bytes.fromhex(row["taken"]).decode(), bytes.fromhex(row["path"])
            keys[row["image"]] = min(key, keys.get(row["image"], key))
        if state.vector_count(self.info, IMAGE) != state.images:
            vectors = self._tables.vectors(self.info, IMAGE)
            keys = {id_: keys[id_] for id_ in vectors.visible_keys(state.epoch, list(keys))}
        ids = sorted(keys, key=lambda id_: keys[id_][1])
        ids.sort(key=lambda id_: keys[id_][0], reverse=True)
        if after is not None:
            taken, path = after
            ids = [
                id_
                for id_ in ids
                if keys[id_][0] < taken or (keys[id_][0] == taken and keys[id_][1] > path)
            ]
        return self.images(ids[:k])

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        """Return the captions of one image, in file order."""
        epoch, ids = self._state().epoch, [int(image_id)]
        return caption_rows(self._tables.captions.rows_with(epoch, "image", ids))

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of these image ids, in order; KeyError for one without."""
        return self._tables.vectors(self.info, IMAGE).vectors(ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of these caption ids, in order; KeyError for one without."""
        return self._tables.vectors(self.info, CAPTION).vectors(ids)

    def count_images(self, where: Filter) -> int:
        """Return how many of the images that a search can return ``where`` admits."""
        state = self._state()
        matching = self._matching(state, where)
        assert matching is not None
        if state.vector_count(self.info, IMAGE) == state.images:
            return len(matching)
        vectors = self._tables.vectors(self.info, IMAGE)
        return len(vectors.visible_keys(state.epoch, matching.tolist()))

    def sample_images(self, count: int) -> Floats:
        """Return vectors (n, dim) of at most ``count`` images, at random, always the same."""
        vectors = self._tables.vectors(self.info, IMAGE)
        return sample_vectors(vectors, self._state().epoch, count)

    def files(self) -> dict[str, StoredFile]:
        """Return every known path, in the order of its bytes."""
        return self._tables.all_files(self._state().epoch)

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Return the image ids of those content hashes that are stored."""
        return self._tables.ids_by_content(contents)

    def images_without_vector(self) -> list[int]:
        """Return the ids of images that have a path but no vector in this space, ascending."""
        return self._tables.images_without_vector(self._state(), self.info)

    def captions_without_vector(self) -> list[CaptionRow]:
        """Return captions whose image has a path and that have no vector, in file order."""
        return self._tables.captions_without_vector(self._state(), self.info)

    def all_captions(self) -> list[CaptionRow]:
        """Return every caption, in file order."""
        return self._tables.all_captions(self._state().epoch)

    def changes(self, after: int = 0) -> list[Change]:
        """Return what the runs after generation ``after`` did, oldest first."""
        where = f"{SINCE} <= {self._state().epoch} and generation > {int(after)}"
        return [
            Change(
                row["generation"],
                row["kind"],
                path_from_hex(row["path"]),
                path_from_hex(row["other"]),
                row["time"],
            )
            for row in sorted(self._tables.changes.rows(where), key=lambda row: int(row[KEY]))
        ]

    def spaces(self) -> list[ModelInfo]:
        """Return the models that this gallery has vectors of, in the order of first use."""
        return self._meta.models()

    def promises(self) -> Mapping[str, Manifest]:
        """Return how searching was tuned, by kind; only kinds that are not searched exactly."""
        manifests = {kind: read_manifest(self._meta, self.info, kind) for kind in KINDS}
        return {kind: manifest for kind, manifest in manifests.items() if manifest}

    def get_meta(self, key: str) -> str | None:
        """Return the text stored under ``key``; None for nothing."""
        return self._meta.get_meta(key)

    def set_meta(self, key: str, value: str) -> None:
        """Store a text with the gallery."""
        self._meta.set_meta(key, value)

    @contextmanager
    def writer(self) -> Iterator[MilvusWriter]:
        """Begin an index run; raise IndexCorrupt("index-locked") while another goes on anywhere."""
        from soutu.store.milvus.writer import MilvusWriter

        lease = Lease(self._meta)
        try:
            lease.acquire()
            writer = MilvusWriter(self._tables, self.info, lease)
            yield writer
            writer.finish()
        except RemoteUnavailable:
            lease.abandon()  # to try to release it would only be waiting once more
            raise
        finally:
            lease.release()

    def _state(self) -> EpochState:
        snapshot: EpochState | None = getattr(self._snapshots, "state", None)
        return snapshot or read_epoch(self._meta)

    def _matching(self, state: EpochState, where: Filter | None) -> Ids | None:
        if where is None:
            return None
        key = state.epoch, where
        ids = self._filtered.get(key)
        if ids is None:
            if len(self._filtered) >= CACHED_FILTERS:
                self._filtered.clear()
            ids = self._filtered[key] = matching_images(self._tables, state.epoch, where)
        return ids

    def _vector_search(self, state: EpochState, kind: str) -> VectorSearch:
        key = state.tuned_epoch, kind
        effort = self._efforts.get(key)
        if effort is None:
            effort = effort_of(read_manifest(self._meta, self.info, kind))
            self._efforts[key] = effort
        return VectorSearch(self._tables.vectors(self.info, kind), state.epoch, effort)


@contextmanager
def _connect(address: str, timeout: float) -> Iterator[Tables]:
    """Yield the gallery's collections; close the connection if what is done with it fails."""
    connection = Connection(parse_address(address), timeout)
    try:
        yield Tables(connection, connection.address.collection)
    except BaseException:
        connection.close()
        raise


class _TextIndex:
    """The local store's text index over all captions, fetched once and again when they change.

    So scores are those of the local store, and so is what is found; Milvus's own text index cuts
    Chinese otherwise. Several threads may ask.
    """

    def __init__(self, tables: Tables, info: ModelInfo) -> None:
        self._tables, self._info = tables, info
        self._lock = Lock()
        self._epoch = -1
        self._index: sqlite3.Connection | None = None
        self._images: Ids = np.empty(0, np.int64)

    def search(
        self, state: EpochState, text: str, k: int, admitted: Ids | None, *, exact: bool
    ) -> Ranking:
        if state.captions > MAX_CAPTIONS:
            address = self._tables.connection.address.redacted
            counts = {"captions": state.captions, "most": MAX_CAPTIONS}
            raise Missing("milvus-text-many", address=address, **counts)
        with self._lock:
            if self._index is None or self._epoch != state.captions_epoch:
                self._fill(state)
            assert self._index is not None
            images = self._images if admitted is None else np.intersect1d(self._images, admitted)
            return text_search.rank_captions(
                self._index, list(pieces(text)), k, images, exact=exact
            )

    def close(self) -> None:
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index, self._epoch = None, -1

    def _fill(self, state: EpochState) -> None:
        captions = self._tables.all_captions(state.epoch)
        index = text_search.of_captions([caption.text for caption in captions])
        owners = [(caption.image_id, number) for number, caption in enumerate(captions)]
        index.executemany("UPDATE captions SET image_id = ? WHERE id = ?", owners)
        vectors = self._tables.vectors(self._info, IMAGE)
        images = vectors.visible_keys(state.epoch, {image for image, _ in owners})
        if self._index is not None:
            self._index.close()
        self._index, self._epoch = index, state.captions_epoch
        self._images = np.array(images, np.int64)
