"""What a vector must be before it is searched with or stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from soutu.types import Filter, Floats, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from soutu.store.ann import Manifest

# What every vector store can do. One contract suite runs over all of them.


@dataclass(frozen=True)
class StoredFile:
    """A path the store knows: relative, POSIX; ``mtime_ns`` as the file system gave it."""

    path: str
    size: int
    mtime_ns: int
    image_id: int


@dataclass(frozen=True)
class NewImage:
    """A picture to add: its content hash, its size in pixels and the file it was read from."""

    path: str
    size: int
    mtime_ns: int
    content: bytes
    width: int
    height: int
    taken: str = ""


@dataclass(frozen=True)
class ImageRow:
    """A stored picture with all its paths (sorted) and captions (in file order)."""

    id: int
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    width: int
    height: int
    taken: str = ""


@dataclass(frozen=True)
class CaptionRow:
    """A caption of one image. ``tags`` are the captions file's further columns."""

    id: int
    image_id: int
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewCaption:
    image_id: int
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One line of the changes table. ``kind`` is added, changed, renamed, removed, captions,
    vectors or repaired; ``other`` is the new path of a rename, ``+new -gone`` for captions, the
    space for vectors, and the name of a repair's notes; ``time`` is UTC, ISO 8601."""

    generation: int
    kind: str
    path: str
    other: str
    time: str


class ContentLookup(Protocol):
    """What both sides can be asked: the index itself, and a run that is changing it."""

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Image ids of those content hashes that are stored, whatever the space."""
        ...

    def images_without_vector(self) -> list[int]:
        """Ids of images that have a path but no vector in this store's space, ascending."""
        ...

    def captions_without_vector(self) -> list[CaptionRow]:
        """Captions whose image has a path and that have no vector in this space, in file order."""
        ...


class Searchable(Protocol):
    """The reading side. A reader sees one consistent state per call; calls that belong
    together go into one ``snapshot``."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Within it, every call of this thread sees one and the same state."""
        ...

    def state(self) -> IndexState:
        """What answers now; it counts only what a search can return."""
        ...

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        """The ``k`` images nearest to ``vector`` (float32 (dim,), unit) by inner product, of
        those that ``where`` admits. All of them where there are fewer, none for ``k`` below 1;
        ValueError for a vector of another shape or one that is not finite."""
        ...

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        """The ``k`` captions nearest to ``vector``, as ``search_images``. A caption whose
        image has no path is not among them."""
        ...

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """The ``k`` images whose captions say ``text`` best, of those that ``search_images`` could
        find; fewer where fewer do. Scores, each image's by its best caption: between 2/3 and 1
        where it says it word for word (with ``exact`` none but these), between 1/3 and 2/3 where it
        has all its words, below for some. Any string will do; Missing where it cannot be told."""
        ...

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        """The rows of these image ids, in the order asked for; an unknown id is a KeyError.
        An image that has lost its last path has a row without paths."""
        ...

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """The rows of these caption ids, in the order asked for; an unknown id is a KeyError."""
        ...

    def count_images(self, where: Filter) -> int:
        """How many of the images that a search can return ``where`` admits."""
        ...

    def get_meta(self, key: str) -> str | None:
        """What was remembered under ``key`` (``VectorStore.remember``); None for nothing."""
        ...

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Stored vectors (n, dim) of these image ids, in the order asked for; KeyError for an
        id without a vector in this space."""
        ...


class Writer(ContentLookup, Protocol):
    """One index run, used by one thread. Each call is one transaction: when it returns, its
    rows are safe on disk and visible to readers; if it raises, none of it happened.
    Vectors are float32 (n, dim), row i for item i; another shape or a value that is not
    finite is a ValueError, an unknown id a KeyError."""

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        """Add pictures with their vectors; returns their ids. A content hash that is
        already stored gains the path, and the vector if this space lacks it; a path that
        pointed to other content is moved to the new one and recorded as changed."""
        ...

    def set_image_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give existing images vectors in this store's space."""
        ...

    def attach(self, files: Sequence[StoredFile]) -> None:
        """Let these paths point to stored images: a copy, a touched file, a path whose content
        is now that of another stored image."""
        ...

    def detach(self, paths: Sequence[str]) -> None:
        """Forget these paths; an image without any path leaves every search, with its captions.
        A path that is not stored is passed over."""
        ...

    def rename(self, moves: Sequence[tuple[str, StoredFile]]) -> None:
        """Each old path becomes the file beside it, all at once, so that names may be swapped
        or handed on; recorded as renamed, not as removed and added. KeyError for an old path
        that is not stored."""
        ...

    def replace_captions(self, captions: Sequence[NewCaption]) -> None:
        """Make these all the captions there are, in this order. A caption (image, text) that
        is already stored keeps its id and its vectors; of several equal ones the first counts.
        New ones are found by ``search_captions`` once they have a vector."""
        ...

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give existing captions vectors in this store's space."""
        ...

    def refresh_ann(
        self,
        phrases: Callable[[], Floats],
        *,
        target: float = 0.99,
        shift: Floats | None = None,
    ) -> list[str]:
        """Bring what makes large galleries fast up to date, if it is due; returns what was built
        anew. Recall@10 against the exact search shall be ``target`` on text-like queries: the
        gallery's captions, or ``phrases()`` (n, dim) where it has too few; with ``shift``
        (dim,), on these less ``shift`` too (``search/calibration.py``). ValueError for a
        target that is not between 0 and 1."""
        ...


class VectorStore(Searchable, ContentLookup, AbstractContextManager["VectorStore"], Protocol):
    """Reading and writing, in the space of ``card``; closed where a ``with`` ends."""

    @property
    def info(self) -> ModelInfo: ...

    def files(self) -> dict[str, StoredFile]:
        """Every known path."""
        ...

    def all_captions(self) -> list[CaptionRow]:
        """Every stored caption, in file order."""
        ...

    def changes(self, after: int = 0) -> list[Change]:
        """What the runs after generation ``after`` did, oldest first."""
        ...

    def spaces(self) -> list[ModelInfo]:
        """The models that this gallery has vectors of, in the order of first use."""
        ...

    def promises(self) -> Mapping[str, Manifest]:
        """How searches of images and captions were made fast, and what recall was reached; only
        kinds that are not searched exactly."""
        ...

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        """The captions of one image, in file order; none for an id that is unknown."""
        ...

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        """Stored vectors (n, dim) of these caption ids, in the order asked for; KeyError for an
        id without a vector in this space."""
        ...

    def sample_images(self, count: int) -> Floats:
        """Vectors (n, dim) of at most ``count`` of the images that a search can return, picked
        and put in order at random, the same ones as long as nothing changes."""
        ...

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text with the index."""
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Take the write lock for one run; a second writer gets ``IndexCorrupt("locked")``.
        The generation grows by one, with the first change of the run, if there is any."""
        ...

    def close(self) -> None: ...


def validate_query_vector(vector: Floats, dim: int) -> Floats:
    """``vector`` as float32 (dim,); ValueError for another shape or a value that is not finite."""
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dim,):
        raise ValueError(f"a query vector is ({dim},), not {query.shape}")
    if not np.isfinite(query).all():
        raise ValueError("a query vector must be finite")
    return query


def validate_rows(vectors: Floats, count: int, dim: int) -> Floats:
    """``vectors`` as contiguous float32 (count, dim); ValueError for another shape or a value
    that is not finite: one NaN in a slab would upset every ranking after it."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.shape != (count, dim):
        raise ValueError(f"vectors for {count} items are ({count}, {dim}), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("vectors must be finite")
    return rows
