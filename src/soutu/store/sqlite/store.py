"""Keep an index on this machine: SQLite rows beside memory-mapped vectors, in one folder.

.soutu/rows.db               what there is (store/sqlite/schema.py)
.soutu/spaces/<id>/*.f32     vectors of one model (store/sqlite/vectors.py)
.soutu/spaces/<id>/*.ann.*   codes that make searching them fast (store/ann.py)
.soutu/lock                  who is writing (fs.py)
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.fs import (
    DATABASE,
    absolute,
    make_private_file,
    make_private_folder,
    refuse_network_storage,
    unwritable,
)
from soutu.store.ann import EXACT_BELOW, Ann, Candidates, Manifest, file_signature, read_manifest
from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile, validate_query_vector
from soutu.store.sqlite.rows import (
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
from soutu.store.sqlite.schema import (
    SCHEMA_VERSION,
    check_version,
    connect,
    create_tables,
    get_counter,
    get_meta,
    set_meta,
    transaction,
    translate_sqlite_errors,
)
from soutu.store.sqlite.vectors import (
    CAPTIONS,
    IMAGES,
    KINDS,
    NO_ROWS,
    REVISION,
    Space,
    VectorFile,
    VectorKind,
    VisibleRows,
    add_space,
    all_spaces,
    count_visible,
    find_space,
    folder_of,
    load_visible,
)
from soutu.store.top_k import rescoring_candidates, top_k
from soutu.types import Filter, Floats, Ids, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.sqlite.compact import CompactReport
    from soutu.store.sqlite.writer import LocalWriter


def create_or_find(home: Path, card: ModelInfo) -> Space:
    """Return the space of ``card`` in the index at ``home``; create what is missing."""
    refuse_network_storage(home)
    make_private_folder(home)
    make_private_file(home / DATABASE)
    with open_connection(home, writing=True) as connection:
        create_tables(connection)
    bring_up_to_date(home)
    with open_connection(home, writing=True) as connection:
        return add_space(connection, home, card)


def find(home: Path, space: str | None) -> Space:
    """Return the space called ``space``, or the one last indexed with, at ``home``."""
    if not (home / DATABASE).is_file():
        raise MissingIndex("index-missing", folder=str(home.parent))
    refuse_network_storage(home)
    # One connection where one will do: closing the last one makes SQLite checkpoint the file.
    with open_connection(home) as connection:
        if check_version(connection, home) == SCHEMA_VERSION:
            return find_space(connection, home, space)
    bring_up_to_date(home)
    with open_connection(home) as connection:
        return find_space(connection, home, space)


def read_meta(home: Path, key: str) -> str | None:
    """Return the text stored under ``key`` at ``home``; None without an index."""
    home = absolute(home)
    if not (home / DATABASE).is_file():
        return None
    with open_connection(home) as connection:
        try:
            check_version(connection, home)
        except MissingIndex:  # its creation was interrupted
            return None
        return get_meta(connection, key)


def write_meta(home: Path, key: str, value: str) -> None:
    """Store ``value`` under ``key``."""
    with open_connection(home, writing=True) as connection, transaction(connection):
        set_meta(connection, key, value)


@contextmanager
def open_connection(home: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a connection, translate its errors, and close it at the end."""
    connection = connect(home, writing=writing)
    try:
        with translate_sqlite_errors(home):
            yield connection
    finally:
        connection.close()


def bring_up_to_date(home: Path) -> None:
    """Migrate an index of an older Soutu to the current schema."""
    with open_connection(home) as connection:
        version = check_version(connection, home)
    if version < SCHEMA_VERSION:
        from soutu.store.sqlite.schema import migrate  # which few openings need

        migrate(home, version)


# A code is scanned in the time in which a thirtieth of a scattered vector is read and scored.
SCATTERED = 30
MORE = 4  # times as many candidates where the first were too few
FILTERS = 8  # whose answers are kept, for a person who pages through them


@dataclass(frozen=True)
class IndexView:
    """Hold one state of one kind of vectors, whose files lie in ``folder``.

    ``ann`` covers the slots below ``ann.manifest.slots``; which of them are visible is for ``live``
    to say. ``stamp`` is the signature of the files that ``ann`` was loaded from.
    """

    live: VisibleRows
    folder: Path
    slab: VectorFile
    ann: Ann | None = None
    stamp: tuple[int, int] | None = None

    @cached_property
    def covered(self) -> int:
        """Count the visible slots that the codes cover; those after them are newer."""
        return self._count_covered(self.live)

    def search(self, query: Floats, k: int, among: VisibleRows | None = None) -> Ranking:
        """Rank the best ``k`` of all rows, or of those in ``among``."""
        live = self.live if among is None else among
        if k < 1 or not len(live.ids):
            return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
        covered = self.covered if among is None else self._count_covered(live)
        candidates = self._candidates(query, k, live, covered, narrowed=among is not None)
        if candidates is None:
            return self._best(query, k, live, live.slots, self.slab.scan(query, live.slots))
        slots, scores = candidates.slots, candidates.scores
        if covered < len(live.slots):  # what the codes do not cover yet is scored too
            later = live.slots[covered:]
            scores = np.concatenate([scores, self.slab.scan(query, later)])
            slots = np.concatenate([slots, later])
        return self._best(query, k, live, slots, scores)

    def _best(
        self, query: Floats, k: int, live: VisibleRows, slots: Ids, scores: Floats
    ) -> Ranking:
        near = slots[rescoring_candidates(scores, k, query)]
        return top_k(self.slab.exact(query, near), live.ids_at(near), k)

    def _count_covered(self, live: VisibleRows) -> int:
        return int(np.searchsorted(live.slots, self.ann.manifest.slots)) if self.ann else 0

    def _candidates(
        self, query: Floats, k: int, live: VisibleRows, covered: int, *, narrowed: bool
    ) -> Candidates | None:
        """Return the covered slots worth scoring; None where all are to be scored."""
        level = self.ann.level(k) if self.ann else None
        if self.ann is None or level is None:
            return None
        bits = None if covered == self.ann.manifest.slots else live.bits
        if narrowed:
            # What a filter admits may lie far from the query: in lists that are rarely scanned,
            # and where many have nearly the same score. So nothing was tuned for it, and to scan
            # all lists twice costs more than more candidates do.
            more = level.candidates * MORE
            level = replace(level, lists=self.ann.manifest.lists, candidates=more)
        while covered * SCATTERED > self.ann.manifest.slots and covered > level.candidates:
            rows = self.slab.rows(self.ann.manifest.slots)
            candidates = self.ann.candidates(query, level, rows, bits)
            if not narrowed or candidates.settle(k):
                return candidates
            if level.candidates * MORE > covered // SCATTERED:
                break  # reading the vectors of so many takes longer than scanning them all
            level = replace(level, candidates=level.candidates * MORE)
        return None


class IndexViews:
    """Keep the latest view of one kind in one space; several threads may ask at once."""

    def __init__(self, home: Path, space: Space, kind: VectorKind, *, exact_below: int) -> None:
        """Scan the vectors, whatever codes there are, below ``exact_below`` slots."""
        self._home, self._space, self._kind = home, space, kind
        self._exact_below = exact_below
        self._view = self._blank(space.folder)
        self._among: dict[Filter, VisibleRows] = {}

    def latest(self, connection: sqlite3.Connection) -> IndexView | None:
        """Return the view if it is up to date: one query, which needs no transaction."""
        view = self._view  # another thread may put a later one there meanwhile
        if view.live.revision != get_counter(connection, REVISION):
            return None
        return self._update_codes(view)

    def current(self, connection: sqlite3.Connection) -> IndexView:
        """Return the view that the connection's transaction sees."""
        view = self.latest(connection)
        return view or self._update_codes(self._reload(connection, self._view))

    def among(self, connection: sqlite3.Connection, view: IndexView, where: Filter) -> VisibleRows:
        """Return the rows of ``view`` that the filter ``where`` admits."""
        admitted = self._among.get(where)
        if admitted is None or admitted.revision != view.live.revision:
            from soutu.store.sqlite.filters import matching_images

            if len(self._among) >= FILTERS:
                self._among.clear()
            admitted = self._among[where] = view.live.only(matching_images(connection, where))
        return admitted

    def count(self, connection: sqlite3.Connection) -> int:
        """Count the visible rows."""
        live = self._view.live
        if live.revision == get_counter(connection, REVISION):
            return len(live.ids)
        return count_visible(connection, self._space.id, self._kind)

    def close(self) -> None:
        """Release the files; the next call opens them again."""
        self._view.slab.close()
        self._view = self._blank(self._view.folder)

    def _update_codes(self, view: IndexView) -> IndexView:
        """Give ``view`` the codes that are on disk now, and keep it."""
        if len(view.live.slots) >= self._exact_below:
            view = _with_ann(view, self._kind)
        self._view = view
        return view

    def _blank(self, folder: Path) -> IndexView:
        return IndexView(
            NO_ROWS, folder, VectorFile(folder / self._kind.slab, self._space.info.dim)
        )

    def _reload(self, connection: sqlite3.Connection, view: IndexView) -> IndexView:
        folder = folder_of(connection, self._home, self._space)
        if folder != view.folder:  # compacted: slots mean other vectors now
            view = self._blank(folder)
        view = replace(view, live=load_visible(connection, self._space.id, self._kind))
        if len(view.live.slots):
            view.slab.rows(int(view.live.slots[-1]) + 1)  # mapped while it is sure to be there
        return view


def _with_ann(view: IndexView, kind: VectorKind) -> IndexView:
    signature = file_signature(view.folder, kind.name)
    if signature == view.stamp:
        return view
    try:
        ann = Ann.load(view.folder, kind.name) if signature else None
    except IndexCorrupt:  # doctor reports it, the next run repairs it, a scan is right meanwhile
        ann = None
    return replace(view, ann=ann, stamp=signature)


ONCE_EXACT_BELOW = 100_000  # where scanning takes less time than importing Faiss


class LocalStore:
    """Implement ``VectorStore`` for one space of the gallery at ``home``.

    Reading is safe from several threads, each with its own SQLite connection; only one thread may
    write at a time. Usable as a context manager.
    """

    def __init__(self, home: Path, space: Space, *, once: bool = False) -> None:
        """Use ``create_or_open`` or ``open`` instead."""
        self.home = home
        self.info = space.info
        self._space = space
        below = ONCE_EXACT_BELOW if once else EXACT_BELOW
        self._views = {k.name: IndexViews(home, space, k, exact_below=below) for k in KINDS}
        self._threads = threading.local()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    def create_or_open(cls, home: Path, card: ModelInfo) -> LocalStore:
        """Open the store for writing; create the index (0700) and the space where they are missing.

        Raises IndexCorrupt where ``home`` cannot be written or lies on a network file system,
        ModelMismatch where the space has vectors of another length.
        """
        home = absolute(home)
        return cls(home, create_or_find(home, card))

    @classmethod
    def open(cls, home: Path, space: str | None = None, *, once: bool = False) -> LocalStore:
        """Open the store for reading, in ``space`` or the one last indexed with.

        An index of an older Soutu is migrated. ``once`` is for a single search, which a scan
        answers before codes would be loaded. Raises MissingIndex where there is no index,
        ModelMismatch where it lacks the space, IndexCorrupt where a newer Soutu made it or it lies
        on a network.
        """
        home = absolute(home)
        return cls(home, find(home, space), once=once)

    @staticmethod
    def read_meta(home: Path, key: str) -> str | None:
        """Return the text stored under ``key`` at ``home``, without opening a store."""
        return read_meta(home, key)

    def __enter__(self) -> LocalStore:
        """Return the store."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Release the files; the next call of any thread opens them again."""
        while self._connections:
            self._connections.pop().close()
        self._threads = threading.local()
        for views in self._views.values():
            views.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every call of this thread inside the block see the same state."""
        connection = self._connection()
        if connection.in_transaction:
            yield
            return
        with translate_sqlite_errors(self.home):
            connection.execute("BEGIN")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def state(self) -> IndexState:
        """Return the generation, the space and the number of images and captions."""
        with self.snapshot():
            return IndexState(
                get_counter(self._connection(), "generation"),
                self.info.space,
                self._count(IMAGES),
                self._count(CAPTIONS),
            )

    def search_images(self, vector: Floats, k: int, where: Filter | None = None) -> Ranking:
        """Rank the ``k`` images nearest to ``vector`` that ``where`` admits."""
        return self._search(IMAGES, vector, k, where)

    def search_captions(self, vector: Floats, k: int) -> Ranking:
        """Rank the ``k`` captions nearest to ``vector``."""
        return self._search(CAPTIONS, vector, k)

    def search_text(
        self, text: str, k: int, where: Filter | None = None, *, exact: bool = False
    ) -> Ranking:
        """Rank the ``k`` images whose captions match the words of ``text`` best."""
        from soutu.store import text_search
        from soutu.store.sqlite import schema  # few searches need either

        with self.snapshot():
            views, connection = self._views[IMAGES.name], self._connection()
            schema.require(connection)
            view = views.current(connection)
            admitted = views.among(connection, view, where) if where is not None else view.live
            return text_search.rank_captions(connection, text, k, admitted.ascending, exact=exact)

    def images(self, ids: Sequence[int]) -> list[ImageRow]:
        """Return the images ``ids``, in that order."""
        with self.snapshot():
            return image_rows(self._connection(), ids)

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """Return the captions ``ids``, in that order."""
        with self.snapshot():
            return caption_rows(self._connection(), ids)

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        """Return the captions of one image, in file order."""
        with self.snapshot():
            return captions_of_image(self._connection(), image_id)

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors of the images ``ids``, float32 (n, dim)."""
        return self._vectors(IMAGES, ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors of the captions ``ids``, float32 (n, dim)."""
        return self._vectors(CAPTIONS, ids)

    def count_images(self, where: Filter) -> int:
        """Count the images that ``where`` admits."""
        with self.snapshot():
            views, connection = self._views[IMAGES.name], self._connection()
            return len(views.among(connection, views.current(connection), where).ids)

    def sample_images(self, count: int) -> Floats:
        """Return up to ``count`` random image vectors (seed 0), float32 (n, dim)."""
        with self.snapshot():
            view = self._views[IMAGES.name].current(self._connection())
            order = np.random.default_rng(0).permutation(len(view.live.slots))[:count]
            return view.slab.take(view.live.slots[order])

    def files(self) -> dict[str, StoredFile]:
        """Return every known file, by path."""
        with self.snapshot():
            return stored_files(self._connection())

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Return the image ids of those content hashes that are stored."""
        with self.snapshot():
            return ids_by_content(self._connection(), contents)

    def images_without_vector(self) -> list[int]:
        """Return the ids of images that have a path but no vector."""
        with self.snapshot():
            return without_vector(self._connection(), self._space.id)

    def captions_without_vector(self) -> list[CaptionRow]:
        """Return the captions that have no vector, in file order."""
        with self.snapshot():
            return captions_without_vector(self._connection(), self._space.id)

    def all_captions(self) -> list[CaptionRow]:
        """Return every caption, in file order."""
        with self.snapshot():
            return all_caption_rows(self._connection())

    def changes(self, after: int = 0) -> list[Change]:
        """Return the changes of the runs after generation ``after``, oldest first."""
        with self.snapshot():
            return change_rows(self._connection(), after)

    def spaces(self) -> list[ModelInfo]:
        """Return the models that have vectors here, in the order of first use."""
        with self.snapshot():
            return [space.info for space in all_spaces(self._connection(), self.home)]

    def promises(self) -> dict[str, Manifest]:
        """Return how the codes of images and captions were tuned, for the kinds that have codes.

        Raises IndexCorrupt for a damaged manifest.
        """
        with self.snapshot():
            folder = folder_of(self._connection(), self.home, self._space)
        manifests = {kind.name: read_manifest(folder, kind.name) for kind in KINDS}
        return {name: manifest for name, manifest in manifests.items() if manifest}

    def get_meta(self, key: str) -> str | None:
        """Return the text stored under ``key``."""
        with self.snapshot():
            return get_meta(self._connection(), key)

    def set_meta(self, key: str, value: str) -> None:
        """Store a text under ``key``; a path that is not valid Unicode survives."""
        write_meta(self.home, key, value)

    @contextmanager
    def writer(self) -> Iterator[LocalWriter]:
        """Begin an index run; raises IndexCorrupt (index-locked) during another."""
        from soutu.fs import write_lock  # a search pays for neither
        from soutu.store.sqlite.writer import LocalWriter

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

    def compact(self) -> CompactReport:
        """Reclaim the disk space of what was deleted; see ``store/sqlite/compact.py``.

        Raises IndexCorrupt during an index run, or without room to rewrite the vectors.
        """
        from soutu.fs import write_lock
        from soutu.store.sqlite.compact import compact

        with write_lock(self.home):
            return compact(self.home)

    def _search(
        self, kind: VectorKind, vector: Floats, k: int, where: Filter | None = None
    ) -> Ranking:
        query = validate_query_vector(vector, self.info.dim)
        views, connection = self._views[kind.name], self._connection()
        view, among = None, None
        if where is None:
            with translate_sqlite_errors(self.home):
                view = views.latest(connection)
        if view is None:
            with self.snapshot():
                view = views.current(connection)
                among = views.among(connection, view, where) if where is not None else None
        # A slot never changes its vector while its slab is mapped, whatever a writer does.
        return view.search(query, k, among)

    def _count(self, kind: VectorKind) -> int:
        return self._views[kind.name].count(self._connection())

    def _vectors(self, kind: VectorKind, ids: Sequence[int]) -> Floats:
        with self.snapshot():
            view = self._views[kind.name].current(self._connection())
            slots = slots_of(self._connection(), self._space.id, kind, ids)
            positions: Ids = np.array([slots[int(id_)] for id_ in ids], dtype=np.int64)
            return view.slab.take(positions)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = connect(self.home)
            self._connections.append(connection)
        return connection
