"""Keep an index on this machine: SQLite rows beside memory-mapped vectors, in one folder.

.soutu/rows.db               what there is (store/sqlite/schema.py)
.soutu/spaces/<id>/*.f32     vectors of one model (store/sqlite/vectors.py)
.soutu/spaces/<id>/*.ann.*   codes that make searching them fast (store/ann.py)
.soutu/lock                  who is writing (fs.py)
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import MissingIndex
from soutu.fs import (
    DATABASE,
    absolute,
    make_private_file,
    make_private_folder,
    missing_index,
    unwritable,
)
from soutu.store.ann import EXACT_BELOW, Manifest, read_manifest
from soutu.store.base import CaptionRow, Change, ImageRow, ListingKey, StoredFile, only_admitted
from soutu.store.scoring import validate_query_vector
from soutu.store.sqlite.schema import (
    CAPTION_COLUMNS,
    SCHEMA_VERSION,
    caption_row,
    captions_without_vector,
    check_version,
    connect,
    create_tables,
    get_counter,
    get_meta,
    ids_by_content,
    migrate,
    open_connection,
    refuse_network_storage,
    select_in,
    set_meta,
    transaction,
    translate_sqlite_errors,
    without_vector,
)
from soutu.store.sqlite.vectors import (
    CAPTIONS,
    IMAGES,
    KINDS,
    REVISION,
    IndexViews,
    VectorKind,
    add_space,
    all_spaces,
    find_space,
    folder_of,
)
from soutu.text import pieces
from soutu.types import Filter, Floats, IndexState, ModelInfo, Ranking

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.store.sqlite.compact import CompactReport
    from soutu.store.sqlite.writer import LocalWriter


ONCE_EXACT_BELOW = 100_000  # where scanning takes less time than importing Faiss


class LocalStore:
    """Implement ``VectorStore`` for one space of the gallery at ``home``.

    Reading is safe from several threads, each with its own SQLite connection; only one thread may
    write at a time. Usable as a context manager.
    """

    def __init__(self, home: str | Path, space: str | None = None, *, once: bool = False) -> None:
        """Open the index at ``home`` for reading; see ``open``."""
        self.home = absolute(Path(home))
        self._exact_below = ONCE_EXACT_BELOW if once else EXACT_BELOW
        self._views_by_kind: dict[str, IndexViews] = {}
        self._threads = threading.local()
        self._connections: list[sqlite3.Connection] = []
        if not (self.home / DATABASE).is_file():
            raise missing_index(self.home)
        try:
            with translate_sqlite_errors(self.home):
                if check_version(self._connection(), self.home) < SCHEMA_VERSION:
                    self.close()
                    migrate(self.home)
                self._space = find_space(self._connection(), self.home, space)
        except BaseException:
            self.close()
            raise
        self.info = self._space.info

    @classmethod
    def create_or_open(cls, home: str | Path, card: ModelInfo) -> LocalStore:
        """Open the store for writing; create the index (0700) and the space where they are missing.

        Raises IndexCorrupt where ``home`` cannot be written or lies on a network file system,
        ModelMismatch where the space has vectors of another length.
        """
        home = absolute(Path(home))
        refuse_network_storage(home)
        make_private_folder(home)
        make_private_file(home / DATABASE)
        with open_connection(home, writing=True) as connection:
            create_tables(connection)
            migrate(home)
            add_space(connection, home, card)
        return cls(home, card.space)

    @classmethod
    def open(cls, home: str | Path, space: str | None = None, *, once: bool = False) -> LocalStore:
        """Open the store for reading, in ``space`` or the one last indexed with.

        An index of an older Soutu is migrated. ``once`` is for a single search, which a scan
        answers before codes would be loaded. Raises MissingIndex where there is no index,
        ModelMismatch where it lacks the space, IndexCorrupt where a newer Soutu made it or it lies
        on a network.
        """
        return cls(home, space, once=once)

    @staticmethod
    def read_meta(home: str | Path, key: str) -> str | None:
        """Return the text stored under ``key`` at ``home``, without opening a store.

        None where there is no index.
        """
        home = absolute(Path(home))
        if not (home / DATABASE).is_file():
            return None
        with open_connection(home) as connection:
            try:
                check_version(connection, home)
            except MissingIndex:  # its creation was interrupted
                return None
            return get_meta(connection, key)

    @staticmethod
    def redact(home: str | Path) -> str:
        """Return the folder as text; it holds no secrets."""
        return str(home)

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
        self._views_by_kind.clear()

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
        sql = "SELECT kind, length(pairs) / 16 FROM packed WHERE space = ? AND revision = ?"
        with self.snapshot():
            connection = self._connection()
            revision = get_counter(connection, REVISION)
            packed: dict[str, int] = dict(connection.execute(sql, (self._space.id, revision)))
            images, captions = (
                packed[kind.name] if kind.name in packed else self._views(kind).count(connection)
                for kind in KINDS
            )
            generation = get_counter(connection, "generation")
            return IndexState(generation, self.info.space, images, captions)

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
        from soutu.store.sqlite import text_search  # few searches need it

        with self.snapshot():
            connection = self._connection()
            admitted = self._views(IMAGES).admitted(connection, where).ascending
            words = list(pieces(text))
            text_search.require(connection)
            return text_search.rank_captions(connection, words, k, admitted, exact=exact)

    def images(self, ids: Sequence[int], where: Filter | None = None) -> list[ImageRow]:
        """Return the images ``ids``, in that order, with the paths that ``where`` admits.

        Raises KeyError for an unknown id.
        """
        image_ids = [int(id_) for id_ in ids]
        paths: defaultdict[int, list[str]] = defaultdict(list)
        texts: defaultdict[int, list[str]] = defaultdict(list)
        with self.snapshot():
            connection = self._connection()
            sql = "SELECT image_id, path FROM paths WHERE image_id IN ({marks})"
            for image_id, path in select_in(connection, sql, image_ids):
                paths[image_id].append(os.fsdecode(path))
            sql = """SELECT image_id, text FROM captions WHERE image_id IN ({marks})
                ORDER BY image_id, position"""
            for image_id, text in select_in(connection, sql, list(dict.fromkeys(image_ids))):
                texts[image_id].append(text)
            sql = "SELECT id, width, height, taken FROM images WHERE id IN ({marks})"
            by_id = {
                id_: ImageRow(id_, tuple(sorted(set(paths[id_]))), tuple(texts[id_]), *rest)
                for id_, *rest in select_in(connection, sql, image_ids)
            }
            rows = [by_id[id_] for id_ in image_ids]
            if where is None:
                return rows
            from soutu.store.sqlite.filters import admitted_paths

            return only_admitted(rows, admitted_paths(connection, image_ids, where))

    def captions(self, ids: Sequence[int]) -> list[CaptionRow]:
        """Return the captions ``ids``, in that order; raises KeyError for an unknown id."""
        caption_ids = [int(id_) for id_ in ids]
        sql = f"SELECT {CAPTION_COLUMNS} FROM captions WHERE id IN ({{marks}})"
        with self.snapshot():
            rows = {row[0]: row for row in select_in(self._connection(), sql, caption_ids)}
        return [caption_row(rows[id_]) for id_ in caption_ids]

    def list_images(
        self, k: int, where: Filter | None = None, after: ListingKey | None = None
    ) -> list[ImageRow]:
        """List up to ``k`` images that ``where`` admits, latest first, from ``after`` on."""
        following = "AND (taken < ?1 OR taken = ?1 AND first > ?2)" if after else ""
        sql = f"""SELECT id, (SELECT min(path) FROM paths WHERE image_id = images.id) AS first
            FROM images WHERE first IS NOT NULL {following} ORDER BY taken DESC, first"""
        with self.snapshot():
            connection = self._connection()
            admitted = set(self._views(IMAGES).admitted(connection, where).ids.tolist())
            with closing(connection.execute(sql, after or ())) as rows:
                ids = list(islice((id_ for id_, _ in rows if id_ in admitted), k))
            return self.images(ids)

    def captions_of(self, image_id: int) -> list[CaptionRow]:
        """Return the captions of one image, in file order."""
        where = "WHERE image_id = ? ORDER BY position, id"
        sql = f"SELECT {CAPTION_COLUMNS} FROM captions {where}"
        with self.snapshot():
            return [caption_row(row) for row in self._connection().execute(sql, (image_id,))]

    def image_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors of the images ``ids``, float32 (n, dim)."""
        with self.snapshot():
            return self._views(IMAGES).vectors(self._connection(), ids)

    def caption_vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors of the captions ``ids``, float32 (n, dim)."""
        with self.snapshot():
            return self._views(CAPTIONS).vectors(self._connection(), ids)

    def count_images(self, where: Filter) -> int:
        """Count the images that ``where`` admits."""
        with self.snapshot():
            return len(self._views(IMAGES).admitted(self._connection(), where).ids)

    def sample_images(self, count: int) -> Floats:
        """Return up to ``count`` random image vectors (seed 0), float32 (n, dim)."""
        with self.snapshot():
            view = self._views(IMAGES).current(self._connection())
            order = np.random.default_rng(0).permutation(len(view.live.slots))[:count]
            return view.slab.take(view.live.slots[order])

    def files(self) -> dict[str, StoredFile]:
        """Return every known file, by path, in the byte order of the paths."""
        columns = "path, size, mtime_ns, image_id, ctime_ns, inode"
        with self.snapshot():
            rows = self._connection().execute(f"SELECT {columns} FROM paths ORDER BY path")
            files = (StoredFile(os.fsdecode(path), *rest) for path, *rest in rows)
            return {file.path: file for file in files}

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
        sql = f"SELECT {CAPTION_COLUMNS} FROM captions ORDER BY position, id"
        with self.snapshot():
            return [caption_row(row) for row in self._connection().execute(sql)]

    def changes(self, after: int = 0) -> list[Change]:
        """Return the changes of the runs after generation ``after``, oldest first."""
        sql = """SELECT generation, kind, path, other, time FROM changes
            WHERE generation > ? ORDER BY id"""
        with self.snapshot():
            return [
                Change(generation, kind, os.fsdecode(path), os.fsdecode(other), time)
                for generation, kind, path, other, time in self._connection().execute(sql, (after,))
            ]

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
        with open_connection(self.home, writing=True) as connection, transaction(connection):
            set_meta(connection, key, value)

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
        views, connection = self._views(kind), self._connection()
        view, among = None, None
        if where is None:
            with translate_sqlite_errors(self.home):
                view = views.latest(connection)
        if view is None:
            with self.snapshot():
                view = views.current(connection)
                among = views.admitted(connection, where) if where is not None else None
        # A slot never changes its vector while its slab is mapped, whatever a writer does.
        return view.search(query, k, among)

    def _views(self, kind: VectorKind) -> IndexViews:
        views = self._views_by_kind.get(kind.name)
        if views is None:  # of two threads that come first, one's views are used by both
            views = IndexViews(self.home, self._space, kind, exact_below=self._exact_below)
            views = self._views_by_kind.setdefault(kind.name, views)
        return views

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = connect(self.home)
            self._connections.append(connection)
        return connection
