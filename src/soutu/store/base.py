"""Rows and protocols of a vector store, and the checks that vectors pass before use.

One contract suite runs over all stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from soutu.fs import path_bytes
from soutu.types import Filter, Floats, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from soutu.store.ann import Manifest

FILTER_DEADLINE: ContextVar[float | None] = ContextVar("filter_deadline", default=None)
"""When a filter is given up, on ``time.monotonic()``; a server sets it for each request."""


@dataclass(frozen=True)
class StoredFile:
    """A path in the store: relative, POSIX; times and inode as the file system gave them.

    ``ctime_ns`` and ``inode`` are 0 where they are not known; an inode also where it has proved to
    change by itself.
    """

    path: str
    size: int
    mtime_ns: int
    image_id: int
    ctime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class NewImage:
    """An image to add: its content hash, its size in pixels and the file it was read from."""

    path: str
    size: int
    mtime_ns: int
    content: bytes
    width: int
    height: int
    taken: str = ""
    ctime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class ImageRow:
    """A stored image with all its paths (sorted) and captions (in file order)."""

    id: int
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    width: int
    height: int
    taken: str = ""


ListingKey: TypeAlias = "tuple[str, bytes]"


def listing_key(row: ImageRow) -> ListingKey:
    """Return what ``list_images`` sorts by: time taken and the first path, as bytes."""
    return row.taken, min(map(path_bytes, row.paths))


def only_admitted(rows: Sequence[ImageRow], admitted: Mapping[int, list[str]]) -> list[ImageRow]:
    """Return the rows with the paths that a filter admits, or all where it admits none."""
    return [
        replace(row, paths=tuple(sorted(admitted[row.id]))) if admitted.get(row.id) else row
        for row in rows
    ]


@dataclass(frozen=True)
class CaptionRow:
    """A caption of one image; ``tags`` are the further columns of the captions file."""

    id: int
    image_id: int
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewCaption:
    """A caption to store; ``tags`` as in ``CaptionRow``."""

    image_id: int
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One row of the changes table.

    ``kind`` is added, changed, renamed, removed, captions, vectors or repaired; ``other`` is the
    new path of a rename, ``+new -gone`` for captions, the space for vectors, and the name of the
    notes for a repair; ``time`` is UTC, ISO 8601.
    """

    generation: int
    kind: str
    path: str
    other: str
    time: str


class ContentLookup(Protocol):
    """Lookups that both the index and a run that is changing it answer."""

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Map those content hashes that are stored, in any space, to their image ids."""

    def images_without_vector(self) -> list[int]:
        """List the ids, ascending, of images with a path but no vector in this store's space."""

    def captions_without_vector(self) -> list[CaptionRow]:
        """List captions without a vector in this space whose image has a path, in file order."""


class Searchable(Protocol):
    """The reading side of a store.

    Each call sees one consistent state; calls that belong together go into one ``snapshot``.
    """

    def snapshot(self) -> AbstractContextManager[None]:
        """Let every call of this thread within the context see the same state."""

    def state(self) -> IndexState:
        """Describe the current state, counting only what a search can return."""

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        """Find the ``k`` images nearest to ``vector`` by inner product.

        Parameters
        ----------
        vector
            Unit query vector, float32 (dim,).
        k
            Results wanted: all if there are fewer, none for ``k`` below 1.
        where
            Search only the images that match this filter.

        Raises
        ------
        ValueError
            If ``vector`` has another shape or is not finite.
        """

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        """Find the ``k`` captions nearest to ``vector``, as ``search_images`` does.

        Captions whose image has no path are left out.
        """

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """Find the ``k`` images whose captions match ``text`` best, of those matching ``where``.

        Only images that ``search_images`` can find, and fewer than ``k`` where fewer match. Each
        scores by its best caption: from 2/3 to 1 if that contains the text word for word (with
        ``exact`` only these), from 1/3 to 2/3 if it contains all words, below for some. Any string
        is a valid query; Missing if this store cannot search text.
        """

    def images(self, ids: Sequence[int], where: Filter | None = None) -> list[ImageRow]:
        """Return the rows of these image ids, in the given order; KeyError for an unknown id.

        An image that has lost its last path has a row without paths. With a filter a row has only
        the paths that it admits, or all where it admits none.
        """

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """Return the rows of these caption ids, in the given order; KeyError for an unknown id."""

    def count_images(self, where: Filter) -> int:
        """Count the images that match ``where`` among those a search can return."""

    def get_meta(self, key: str) -> str | None:
        """Return the text stored under ``key`` by ``VectorStore.set_meta``, or None."""

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of these image ids, in the given order.

        KeyError for an id without a vector in this space.
        """


class Writer(ContentLookup, Protocol):
    """One index run, used by one thread.

    Each call is one transaction: when it returns, its rows are safe on disk and visible to
    readers; if it raises, nothing has changed. Vectors are float32 (n, dim), row i for item i;
    another shape or a value that is not finite is a ValueError, an unknown id a KeyError.
    """

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        """Add images with their vectors and return their ids.

        A content hash that is already stored gains the path, and the vector if this space lacks
        it; a path that pointed to other content moves to the new one and is recorded as changed.
        """

    def set_image_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give existing images vectors in this store's space."""

    def attach(self, files: Sequence[StoredFile]) -> None:
        """Point these paths to stored images.

        For a copy, a touched file, or a path whose content is now that of another stored image.
        """

    def detach(self, paths: Sequence[str]) -> None:
        """Forget these paths, passing over those that are not stored.

        An image without any path leaves every search, with its captions.
        """

    def rename(self, moves: Sequence[tuple[str, StoredFile]]) -> None:
        """Move each old path to the file beside it, all at once: names may be swapped or handed on.

        Recorded as renamed, not as removed and added; KeyError for an old path that is not stored.
        """

    def replace_captions(self, captions: Sequence[NewCaption]) -> None:
        """Replace all captions by these, in this order.

        A caption (image, text) that is already stored keeps its id and its vectors; of equal ones
        the first counts. ``search_captions`` finds new ones once they have a vector.
        """

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give existing captions vectors in this store's space."""

    def refresh_ann(
        self,
        phrases: Callable[[], Floats],
        *,
        target: float = 0.99,
        shift: Floats | None = None,
    ) -> list[str]:
        """Rebuild the approximate index where that is due; return the names of what was rebuilt.

        Recall@10 against the exact search must reach ``target`` on text queries: the captions, or
        ``phrases()`` (n, dim) if there are too few; with ``shift`` (dim,), on these less ``shift``
        too (``search/calibration.py``). ValueError if ``target`` is not between 0 and 1.
        """


class VectorStore(Searchable, ContentLookup, AbstractContextManager["VectorStore"], Protocol):
    """Reading and writing in the space of the model ``info``; leaving a ``with`` closes it."""

    @property
    def info(self) -> ModelInfo:
        """Return the model whose space this is."""

    def files(self) -> dict[str, StoredFile]:
        """Return every known path."""

    def all_captions(self) -> list[CaptionRow]:
        """Return every stored caption, in file order."""

    def changes(self, after: int = 0) -> list[Change]:
        """Return what the runs after generation ``after`` did, oldest first."""

    def spaces(self) -> list[ModelInfo]:
        """Return the models that this gallery has vectors of, in the order of first use."""

    def promises(self) -> Mapping[str, Manifest]:
        """Return the manifests of the approximate indexes; none for a kind searched exactly."""

    def list_images(
        self, k: int, where: Filter | None = None, after: ListingKey | None = None
    ) -> list[ImageRow]:
        """List up to ``k`` images that a search can return and ``where`` admits, latest first.

        They are sorted by time taken, unknown last, then by their first path; ``after``: only those
        that follow this ``listing_key``. Each row has all paths.
        """

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        """Return the captions of an image, in file order; none for an unknown id."""

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of these caption ids, in the given order.

        KeyError for an id without a vector in this space.
        """

    def sample_images(self, count: int) -> Floats:
        """Sample vectors (n, dim) of at most ``count`` images that a search can return.

        Choice and order are random, but the same as long as nothing changes.
        """

    def set_meta(self, key: str, value: str) -> None:
        """Store a text with the index."""

    def writer(self) -> AbstractContextManager[Writer]:
        """Take the write lock for one run; a second writer gets ``IndexCorrupt("locked")``.

        The generation grows by one with the first change of the run, if there is any.
        """

    def close(self) -> None:
        """Release the store."""
