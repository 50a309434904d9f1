"""Which captions say a text: told here, by the local store's own index (``store/fts.py``) over all
captions, which are fetched once and again when they change. So scores are the same, and so is what
is found; Milvus's own text index cuts Chinese otherwise. For more captions than are worth fetching
it cannot be told."""

from __future__ import annotations

import sqlite3
from threading import Lock

import numpy as np

from soutu.errors import Missing
from soutu.store import fts, text_index
from soutu.store.milvus.head import Head
from soutu.store.milvus.reading import all_captions, live_among
from soutu.store.milvus.spaces import IMAGE, Tables
from soutu.types import Ids, ModelCard, Ranking

MOST = 200_000  # captions


class Texts:
    """The index in memory, as old as the captions are; several threads may ask."""

    def __init__(self, tables: Tables, card: ModelCard) -> None:
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
            return fts.ranked(self._index, text, k, admitted, exact=exact)

    def close(self) -> None:
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index, self._said = None, -1

    def _fill(self, head: Head) -> None:
        rows = all_captions(self._tables, head.epoch)
        index = text_index.of_captions([row.text for row in rows])
        owners = [(row.image_id, place) for place, row in enumerate(rows)]
        index.executemany("UPDATE captions SET image_id = ? WHERE id = ?", owners)
        vectors = self._tables.vectors(self._card, IMAGE)
        found = live_among(vectors, head.epoch, {owner for owner, _ in owners})
        if self._index is not None:
            self._index.close()
        self._index, self._said = index, head.said
        self._found = np.array(sorted(found), np.int64)
