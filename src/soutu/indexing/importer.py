"""Importing: embeddings that exist become an index, without a model.

Rows are read two or three times, a batch at a time: all are checked before anything is written,
then come the pictures, and then, once every caption has an id, the vectors of the captions. Every
batch is one transaction, and what is stored already is passed over, so that an import that was
stopped can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from soutu.errors import BadImage, BadInput
from soutu.exchange.embeddings import Embeddings, Rows, validate_batch
from soutu.images.captions import OutsideRoot, PathResolver
from soutu.images.decode import content_hash, read_file, read_header
from soutu.images.scan import ImageFile, walk
from soutu.indexing.diff import same_file
from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore, Writer

ROWS = 4096
ABSENT = "soutu:import:"  # before the path, in what stands for the content of a file that is away


@dataclass(frozen=True)
class ImportReport:
    """What an import did. ``on_disk`` and ``absent`` count files, ``added`` those of them that the
    index did not know; ``captions`` those that it did not know; ``silent`` all captions of the
    gallery that have no vector of this model yet."""

    rows: int
    on_disk: int
    absent: int
    added: int
    captions: int
    silent: int
    generation: int


def check_embeddings(source: Embeddings, dim: int) -> None:
    """Read all rows; BadInput for the first that cannot be stored, or if there is none."""
    if not source.count:
        raise BadInput("import-no-rows")
    for rows in source.batches(ROWS):
        validate_batch(rows, dim)


def import_embeddings(
    root: Path,
    store: VectorStore,
    source: Embeddings,
    dim: int,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Store the rows of ``source``, which ``check_embeddings`` has read, for the gallery of
    ``root``. ``workers`` threads read pictures (0: one a core); ``progress`` is told how many rows
    are done, and of how many.

    Raises BadInput for an unusable root, IndexCorrupt when another process is writing.
    """
    with store.writer() as writer, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        run = _Import(
            writer, _DiskFiles(root), pool, store.files(), {*writer.images_without_vector()}
        )
        done = 0
        for rows in source.batches(ROWS):
            run.take(validate_batch(rows, dim))
            done += len(rows.paths)
            if progress:
                progress(done, source.count)
        new = run.add_captions(store)
        silent = run.word(source, dim)
    on_disk = sum(run.places.values())
    return ImportReport(
        done, on_disk, len(run.places) - on_disk, run.added, new, silent, store.state().generation
    )


class _DiskFiles:
    """The pictures below a root, found by the names that other programs wrote for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = {file.path: file for file in walk(root) if isinstance(file, ImageFile)}
        self._names = PathResolver(root, base=root)

    def find(self, name: str) -> tuple[str, ImageFile | None]:
        """The path below the root, and the file if an index run would take it for a picture. A
        name that leads outside stays as it is, with slashes for a Windows path's backslashes."""
        try:
            found = self._names.find(name)
        except OutsideRoot:
            found = None
        if found is not None and found in self._files:
            return found, self._files[found]
        if "\\" in name and "/" not in name:
            name = name.replace("\\", "/")
        return found or self._names.normalize(name) or name, None

    def row(self, path: str, file: ImageFile | None) -> tuple[NewImage, bool]:
        """What an index run would store of the file, and whether it could be read."""
        if file is not None:
            try:
                data = read_file(self.root / path, name=path)
            except BadImage:
                file = None
        if file is None:
            return NewImage(path, 0, 0, content_hash(os.fsencode(ABSENT + path)), 0, 0), False
        told = read_header(data, path)
        size = told.width, told.height
        return NewImage(path, file.size, file.mtime_ns, content_hash(data), *size, told.taken), True


@dataclass
class _Import:
    """One import while it is under way. ``known`` are the stored files by path, ``lacking`` the
    images without a vector of this model."""

    writer: Writer
    disk: _DiskFiles
    pool: ThreadPoolExecutor
    known: dict[str, StoredFile]
    lacking: set[int]
    added: int = 0
    places: dict[str, bool] = field(default_factory=dict)  # each path: is it on disk
    images: dict[str, int] = field(default_factory=dict)  # image ids by path as it was written
    captions: dict[tuple[int, str], None] = field(default_factory=dict)

    def take(self, rows: Rows) -> None:
        """Store the pictures of these rows. Of several rows of one file or of one content the
        first vector counts, and one that is stored already before all."""
        spelled: dict[str, str] = {}
        new: dict[str, tuple[int, ImageFile | None]] = {}
        filled: dict[int, int] = {}
        for row, name in enumerate(rows.paths):
            if name in self.images or name in spelled:
                continue
            path, file = self.disk.find(name)
            spelled[name] = path
            stored = self.known.get(path)
            if stored is None or (file is not None and not same_file(stored, file)):
                new.setdefault(path, (row, file))
                continue
            self.places.setdefault(path, file is not None)
            if stored.image_id in self.lacking:
                filled.setdefault(stored.image_id, row)
        self.writer.set_image_vectors(list(filled), rows.images[list(filled.values())])
        self.lacking -= filled.keys()
        self._add(rows, new)
        self.images.update((name, self.known[path].image_id) for name, path in spelled.items())
        for name, caption in zip(rows.paths, rows.captions, strict=True):
            if caption:
                self.captions[self.images[name], caption] = None

    def _add(self, rows: Rows, new: dict[str, tuple[int, ImageFile | None]]) -> None:
        files = [file for _, file in new.values()]
        read = list(self.pool.map(self.disk.row, new, files))
        vectors = rows.images[[row for row, _ in new.values()]]
        ids = self.writer.add_images([image for image, _ in read], vectors)
        for (image, on_disk), id_ in zip(read, ids, strict=True):
            self.added += image.path not in self.known
            self.known[image.path] = StoredFile(image.path, image.size, image.mtime_ns, id_)
            self.places[image.path] = on_disk
            self.lacking.discard(id_)

    def add_captions(self, store: VectorStore) -> int:
        """Put the captions behind those there are; returns how many are new."""
        stored = store.all_captions()
        there = {(caption.image_id, caption.text) for caption in stored}
        fresh = [key for key in self.captions if key not in there]
        if fresh:
            kept = [NewCaption(one.image_id, one.text, one.tags) for one in stored]
            self.writer.replace_captions([*kept, *(NewCaption(*key) for key in fresh)])
        return len(fresh)

    def word(self, source: Embeddings, dim: int) -> int:
        """Give captions their vectors; returns how many are left without."""
        without = self.writer.captions_without_vector()
        waiting = {(row.image_id, row.text): row.id for row in without}
        if waiting.keys() & self.captions.keys():
            for rows in source.batches(ROWS):
                rows = validate_batch(rows, dim)
                found: dict[int, int] = {}
                for place, row in enumerate(rows.worded.tolist()):
                    key = self.images[rows.paths[row]], rows.captions[row]
                    if key in waiting:
                        found[waiting.pop(key)] = place
                self.writer.set_caption_vectors(list(found), rows.texts[list(found.values())])
        return len(waiting)
