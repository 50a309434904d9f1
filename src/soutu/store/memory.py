"""A store of features in plain arrays: row i is one image with one caption."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import numpy as np

from soutu.errors import BadQuery
from soutu.store.base import CaptionRow, ImageRow
from soutu.store.scoring import (
    exact_scores,
    rescoring_candidates,
    top_k,
    validate_query_vector,
    validate_rows,
)
from soutu.text import pieces
from soutu.types import Filter, Floats, IndexState, ModelInfo, Ranking


class ArrayStore:
    """A ``Searchable`` in memory; the ids of images and captions are row numbers."""

    def __init__(
        self,
        image_vectors: Floats,
        caption_vectors: Floats,
        paths: Sequence[str],
        captions: Sequence[str],
        card: ModelInfo,
    ) -> None:
        """Take n unit rows of float32 (n, card.dim) of each kind, n paths and n captions.

        ValueError if they do not fit together.
        """
        if len(paths) != len(captions):
            raise ValueError(f"{len(paths)} paths beside {len(captions)} captions")
        self.info = card
        self._paths, self._captions = tuple(paths), tuple(captions)
        self._images = validate_rows(image_vectors, len(paths), card.dim)
        self._words: sqlite3.Connection | None = None  # created on first use
        self._lock = Lock()
        self._texts = validate_rows(caption_vectors, len(paths), card.dim)

    def snapshot(self) -> AbstractContextManager[None]:
        """Do nothing: an array store never changes."""
        return nullcontext()

    def state(self) -> IndexState:
        """Describe the store; its generation is always 0."""
        return IndexState(0, self.info.space, len(self._paths), len(self._captions))

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        """Find the nearest images; BadQuery for a filter, as only paths and captions are known."""
        if where is not None:
            raise BadQuery("where-arrays")
        return self._search(self._images, vector, k)

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        """Find the nearest captions."""
        return self._search(self._texts, vector, k)

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """Search the captions; BadQuery for a filter, Missing if SQLite has no FTS5."""
        if where is not None:
            raise BadQuery("where-arrays")
        from soutu.store.sqlite import text_search

        with self._lock:
            if self._words is None:
                self._words = text_search.of_captions(self._captions)
            admitted = np.arange(len(self._captions))
            return text_search.rank_captions(
                self._words, list(pieces(text)), k, admitted, exact=exact
            )

    def images(self, ids: Sequence[int], where: Filter | None = None) -> list[ImageRow]:
        """Return image rows; their size in pixels is not known, so 0 × 0."""
        del where  # which no search here takes
        return [ImageRow(i, (self._paths[i],), (self._captions[i],), 0, 0) for i in self._rows(ids)]

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """Return caption rows."""
        return [CaptionRow(i, i, self._captions[i]) for i in self._rows(ids)]

    def count_images(self, where: Filter) -> int:
        """Raise BadQuery: filters need more than the paths and captions known here."""
        raise BadQuery("where-arrays")

    def get_meta(self, key: str) -> str | None:
        """Return None: an array store has no metadata."""
        del key
        return None

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of these image ids."""
        return self._images[self._rows(ids)]

    def _search(self, rows: Floats, vector: Floats, k: int) -> Ranking:
        query = validate_query_vector(vector, self.info.dim)
        if k < 1 or not len(rows):
            return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
        near = rescoring_candidates(rows @ query, k, query)
        return top_k(exact_scores(rows[near], query), near, k)

    def _rows(self, ids: Sequence[int]) -> list[int]:
        rows = [int(id_) for id_ in ids]
        for row in rows:
            if not 0 <= row < len(self._paths):
                raise KeyError(row)
        return rows
