"""Write one index run to the local store: every call is one transaction over vectors and rows.

The order makes it safe to be killed: vectors reach the disk at slots nobody refers to, then one
SQLite commit makes rows, slots and counters visible together.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from soutu.fs import REBUILD
from soutu.store.ann_build import refresh_codes
from soutu.store.base import CaptionRow, NewCaption, NewImage, StoredFile
from soutu.store.scoring import validate_rows
from soutu.store.sqlite import text_search
from soutu.store.sqlite.schema import (
    captions_without_vector,
    casefold_name,
    connect,
    ids_by_content,
    next_ids,
    select_in,
    set_meta,
    transaction,
    translate_sqlite_errors,
    without_vector,
    write,
)
from soutu.store.sqlite.vectors import (
    CAPTIONS,
    DEFAULT,
    IMAGES,
    KINDS,
    REVISION,
    Space,
    VectorFileWriter,
    VectorKind,
    folder_of,
    pack,
    remove_old_generations,
    slot_counter,
    slots_of,
)
from soutu.types import Floats


class LocalWriter:
    """Implement ``Writer``; created by ``LocalStore.writer``, under the write lock."""

    def __init__(self, home: Path, space: Space) -> None:
        self._home = home
        self._generation: int | None = None  # of this run, once it has changed something
        self._noted: list[tuple[str, str, str]] = []  # changes of the transaction under way
        self._slabs: dict[str, VectorFileWriter] = {}
        self._connection = connect(home, writing=True)
        try:
            shutil.rmtree(home / REBUILD, ignore_errors=True)  # of a rebuild that was killed
            remove_old_generations(self._connection, home)
            with translate_sqlite_errors(home):
                text_search.catch_up(self._connection)
            # Where its vectors lie now: they may have been compacted since it was opened.
            self._space = replace(space, folder=folder_of(self._connection, home, space))
            space = self._space
            for kind in KINDS:
                self._slabs[kind.name] = VectorFileWriter(space.folder / kind.slab, space.info.dim)
        except BaseException:
            self.close()
            raise

    def finish(self) -> None:
        """End a complete run: this space becomes the gallery's default."""
        with translate_sqlite_errors(self._home):
            with transaction(self._connection):
                set_meta(self._connection, DEFAULT, self._space.info.space)
            pack(self._connection)
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the connection and the vector files."""
        self._connection.close()
        for slab in self._slabs.values():
            slab.close()

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Return the image ids of those content hashes that are stored."""
        with translate_sqlite_errors(self._home):
            return ids_by_content(self._connection, contents)

    def images_without_vector(self) -> list[int]:
        """Return the ids of images that have a path but no vector."""
        with translate_sqlite_errors(self._home):
            return without_vector(self._connection, self._space.id)

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        """Add images with their vectors, float32 (n, dim), and return their ids."""
        rows = validate_rows(vectors, len(images), self._space.info.dim)
        with self._transaction():
            known = ids_by_content(self._connection, [image.content for image in images])
            fresh = {i.content: i for i in images if i.content not in known}
            first = next_ids(self._connection, "image", len(fresh)) + 1
            known.update((content, id_) for id_, content in enumerate(fresh, first))
            write(
                self._connection,
                "images",
                [(known[c], c, i.width, i.height, i.taken) for c, i in fresh.items()],
            )
            ids = [known[image.content] for image in images]
            self._put_files(
                StoredFile(i.path, i.size, i.mtime_ns, id_, i.ctime_ns, i.inode)
                for i, id_ in zip(images, ids, strict=True)
            )
            stored = slots_of(self._connection, self._space.id, IMAGES, ids)
            first_rows: dict[int, int] = {}  # the first row of each image that lacks a vector
            for row, id_ in enumerate(ids):
                if id_ not in stored:
                    first_rows.setdefault(id_, row)
            self._put_vectors(IMAGES, list(first_rows), rows[list(first_rows.values())])
        return ids

    def set_image_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Set the vectors of the images ``ids``, float32 (n, dim)."""
        self._set_vectors(IMAGES, "images", ids, vectors)

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Set the vectors of the captions ``ids``, float32 (n, dim)."""
        self._set_vectors(CAPTIONS, "captions", ids, vectors)

    def attach(self, files: Sequence[StoredFile]) -> None:
        """Add or update files of images that are stored."""
        with self._transaction():
            self._require("images", [file.image_id for file in files])
            self._put_files(files)

    def detach(self, paths: Sequence[str]) -> None:
        """Remove paths; their images and vectors stay until compaction."""
        with self._transaction():
            for path in sorted(self._stored_paths(paths)):
                self._drop_path(path)
                self._noted.append(("removed", path, ""))

    def rename(self, moves: Sequence[tuple[str, StoredFile]]) -> None:
        """Replace old paths by new files; raises KeyError for an unknown path."""
        with self._transaction():
            stored = self._stored_paths([old for old, _ in moves])
            for old, _ in moves:
                if old not in stored:
                    raise KeyError(old)
            self._require("images", [file.image_id for _, file in moves])
            for old in stored:  # all first: a name may be handed on within the batch
                self._drop_path(old)
            write(self._connection, "paths", [_path_row(file) for _, file in moves])
            self._noted.extend(("renamed", old, file.path) for old, file in moves)

    def replace_captions(self, captions: Sequence[NewCaption]) -> None:
        """Make ``captions`` the only ones; unchanged ones keep their ids."""
        new_rows: dict[tuple[int, str], tuple[str, int]] = {}
        for position, caption in enumerate(captions):
            tags = json.dumps(dict(caption.tags), ensure_ascii=False, sort_keys=True)
            new_rows.setdefault((int(caption.image_id), caption.text), (tags, position))
        with self._transaction():
            self._require("images", [image_id for image_id, _ in new_rows])
            rows = self._connection.execute(
                "SELECT id, image_id, text, tags, position FROM captions"
            )
            stored = {(image, text): (id_, *rest) for id_, image, text, *rest in rows}
            removed = [stored[key][0] for key in stored.keys() - new_rows.keys()]
            fresh = [key for key in new_rows if key not in stored]
            first = next_ids(self._connection, "caption", len(fresh)) + 1
            ids = {key: row[0] for key, row in stored.items()}
            ids.update((key, id_) for id_, key in enumerate(fresh, first))
            moved = [
                (ids[key], *key, *row)
                for key, row in new_rows.items()
                if key not in stored or stored[key][1:] != row
            ]
            text_search.follow(self._connection, removed, ((ids[key], key[1]) for key in fresh))
            self._drop_captions(removed)
            write(self._connection, "captions", moved)
            if removed or moved:
                self._noted.append(("captions", "", f"+{len(fresh)} -{len(removed)}"))

    def captions_without_vector(self) -> list[CaptionRow]:
        """Return the captions that have no vector, in file order."""
        with translate_sqlite_errors(self._home):
            return captions_without_vector(self._connection, self._space.id)

    def refresh_ann(
        self,
        phrases: Callable[[], Floats],
        *,
        target: float = 0.99,
        shift: Floats | None = None,
    ) -> list[str]:
        """Build or update the codes for recall ``target``; see ``refresh_codes``."""
        if not 0 < target < 1:
            raise ValueError(f"a recall to be reached lies between 0 and 1, not at {target}")
        with translate_sqlite_errors(self._home):
            return refresh_codes(self._connection, self._space, phrases, target, shift)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit one call: its rows, its changes and the counters readers check."""
        generation = self._generation
        self._noted.clear()
        with translate_sqlite_errors(self._home), transaction(self._connection):
            yield
            if self._noted:
                if generation is None:
                    generation = next_ids(self._connection, "generation") + 1
                next_ids(self._connection, REVISION)
                self._write_changes(generation)
        self._generation = generation

    def _write_changes(self, generation: int) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        first = next_ids(self._connection, "change", len(self._noted)) + 1
        write(
            self._connection,
            "changes",
            [
                (id_, generation, kind, os.fsencode(path), os.fsencode(other), now)
                for id_, (kind, path, other) in enumerate(self._noted, first)
            ],
        )

    def _put_files(self, files: Iterable[StoredFile]) -> None:
        latest = {file.path: file for file in files}
        before = self._stored_paths(list(latest))
        for path, file in latest.items():
            if path not in before:
                self._noted.append(("added", path, ""))
            elif before[path] != file.image_id:
                self._noted.append(("changed", path, ""))
        write(self._connection, "paths", [_path_row(file) for file in latest.values()])

    def _set_vectors(
        self, kind: VectorKind, table: str, ids: Sequence[int], vectors: Floats
    ) -> None:
        rows = validate_rows(vectors, len(ids), self._space.info.dim)
        with self._transaction():
            self._require(table, ids)
            self._put_vectors(kind, ids, rows)

    def _put_vectors(self, kind: VectorKind, owners: Sequence[int], rows: Floats) -> None:
        if not owners:
            return
        first = next_ids(self._connection, slot_counter(self._space.id, kind), len(owners))
        self._slabs[kind.name].write(first, rows)
        write(
            self._connection,
            kind.vectors,
            [(self._space.id, int(owner), slot) for slot, owner in enumerate(owners, first)],
            covered=[row.tobytes() for row in rows],
        )
        if not self._noted:  # no path or caption says it: vectors for what was there before
            self._noted.append(("vectors", "", self._space.info.space))

    def _stored_paths(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the image ids of those of ``paths`` that are stored."""
        sql = "SELECT path, image_id FROM paths WHERE path IN ({marks})"
        rows = select_in(self._connection, sql, [os.fsencode(path) for path in paths])
        return {os.fsdecode(path): image_id for path, image_id in rows}

    def _drop_path(self, path: str) -> None:
        self._connection.execute("DELETE FROM paths WHERE path = ?", (os.fsencode(path),))

    def _drop_captions(self, ids: Sequence[int]) -> None:
        keys = [(id_,) for id_ in ids]
        self._connection.executemany("DELETE FROM captions WHERE id = ?", keys)
        self._connection.executemany(
            """DELETE FROM caption_vectors
                WHERE space IN (SELECT id FROM spaces) AND owner = ?""",
            keys,
        )

    def _require(self, table: str, ids: Sequence[int]) -> None:
        """Raise KeyError for the first of ``ids`` that ``table`` lacks."""
        sql = f"SELECT id FROM {table} WHERE id IN ({{marks}})"
        present = {row[0] for row in select_in(self._connection, sql, [int(i) for i in ids])}
        for id_ in ids:
            if id_ not in present:
                raise KeyError(id_)


def _path_row(file: StoredFile) -> tuple[bytes | int | str, ...]:
    numbers = int(file.size), int(file.mtime_ns), int(file.image_id)
    name = casefold_name(file.path)
    return os.fsencode(file.path), *numbers, name, int(file.ctime_ns), int(file.inode)
