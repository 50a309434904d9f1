"""Import embeddings that exist into an index, without a model.

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
from soutu.images.exclude import Excludes
from soutu.images.scan import ImageFile, walk
from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore, Writer

BATCH_ROWS = 4096
ABSENT = "soutu:import:"  # before the path, in what stands for the content of a file that is away


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    on_disk, absent
        Files of the rows.
    added
        Those of them that the index did not know.
    captions
        Captions that the index did not know.
    silent
        All captions of the gallery that have no vector of this model yet.
    """

    rows: int
    on_disk: int
    absent: int
    added: int
    captions: int
    silent: int
    generation: int


def check_embeddings(source: Embeddings, dim: int) -> None:
    """Read all rows; raise BadInput for the first that cannot be stored, or if there is none."""
    if not source.count:
        raise BadInput("import-no-rows")
    for rows in source.batches(BATCH_ROWS):
        validate_batch(rows, dim)


def import_embeddings(
    root: Path,
    store: VectorStore,
    source: Embeddings,
    dim: int,
    *,
    workers: int = 0,
    excludes: Excludes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Store the rows of ``source``, which ``check_embeddings`` has read, for a gallery.

    Parameters
    ----------
    workers
        Threads that read pictures; 0: one a core.
    progress
        Called with the number of rows done and of all.

    Raises
    ------
    BadInput
        For an unusable root.
    IndexCorrupt
        When another process is writing.
    """
    with store.writer() as writer, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        run = _Import(
            writer,
            _DiskFiles(root, excludes),
            pool,
            store.files(),
            {*writer.images_without_vector()},
        )
        count = 0
        for rows in source.batches(BATCH_ROWS):
            run.add_rows(validate_batch(rows, dim))
            count += len(rows.paths)
            if progress:
                progress(count, source.count)
        new_captions = run.add_captions(store)
        silent = run.set_caption_vectors(source, dim)
    on_disk = sum(run.on_disk.values())
    absent = len(run.on_disk) - on_disk
    generation = store.state().generation
    return ImportReport(count, on_disk, absent, run.added, new_captions, silent, generation)


class _DiskFiles:
    """The pictures below a root, by the names that other programs wrote for them."""

    def __init__(self, root: Path, excludes: Excludes | None = None) -> None:
        self.root = root
        entries = walk(root, excludes=excludes)
        self._files = {file.path: file for file in entries if isinstance(file, ImageFile)}
        self._resolver = PathResolver(root, base=root)

    def find(self, name: str) -> tuple[str, ImageFile | None]:
        """Return the path below the root, and the file if an index run would take it for one.

        A name that leads outside stays as it is, with slashes for a Windows path's backslashes.
        """
        try:
            path = self._resolver.find(name)
        except OutsideRoot:
            path = None
        if path is not None and path in self._files:
            return path, self._files[path]
        if "\\" in name and "/" not in name:
            name = name.replace("\\", "/")
        return path or next(iter(self._resolver.normalize(name)), name), None

    def read_row(self, path: str, file: ImageFile | None) -> tuple[NewImage, bool]:
        """Return what an index run would store of the file, and whether it could be read."""
        if file is not None:
            try:
                data = read_file(self.root / path, name=path, any_content=True)
            except BadImage:
                file = None
        if file is None:
            return NewImage(path, 0, 0, content_hash(os.fsencode(ABSENT + path)), 0, 0), False
        header = read_header(data, path)
        size = header.width, header.height
        content = content_hash(data)
        facts = content, *size, header.taken
        status = file.ctime_ns, file.inode
        return NewImage(path, file.size, file.mtime_ns, *facts, *status), True


@dataclass
class _Import:
    """One import.

    ``known`` are the stored files by path, ``lacking`` the images without a vector of this model.
    """

    writer: Writer
    disk: _DiskFiles
    pool: ThreadPoolExecutor
    known: dict[str, StoredFile]
    lacking: set[int]
    added: int = 0
    on_disk: dict[str, bool] = field(default_factory=dict)  # by path
    image_ids: dict[str, int] = field(default_factory=dict)  # by path as it was written
    captions: dict[tuple[int, str], None] = field(default_factory=dict)

    def add_rows(self, rows: Rows) -> None:
        """Store the pictures of these rows.

        Of several rows of one file or of one content the first vector counts, and one that is
        stored already before all.
        """
        paths: dict[str, str] = {}
        new: dict[str, tuple[int, ImageFile | None]] = {}
        filled: dict[int, int] = {}
        for row, name in enumerate(rows.paths):
            if name in self.image_ids or name in paths:
                continue
            path, file = self.disk.find(name)
            paths[name] = path
            stored = self.known.get(path)
            if stored is None or (
                file is not None and (stored.size, stored.mtime_ns) != (file.size, file.mtime_ns)
            ):
                new.setdefault(path, (row, file))
                continue
            self.on_disk.setdefault(path, file is not None)
            if stored.image_id in self.lacking:
                filled.setdefault(stored.image_id, row)
        self.writer.set_image_vectors(list(filled), rows.images[list(filled.values())])
        self.lacking -= filled.keys()
        self._add_images(rows, new)
        self.image_ids.update((name, self.known[path].image_id) for name, path in paths.items())
        for name, caption in zip(rows.paths, rows.captions, strict=True):
            if caption:
                self.captions[self.image_ids[name], caption] = None

    def _add_images(self, rows: Rows, new: dict[str, tuple[int, ImageFile | None]]) -> None:
        read = list(self.pool.map(self.disk.read_row, new, [file for _, file in new.values()]))
        vectors = rows.images[[row for row, _ in new.values()]]
        ids = self.writer.add_images([image for image, _ in read], vectors)
        for (image, on_disk), image_id in zip(read, ids, strict=True):
            self.added += image.path not in self.known
            status = image.ctime_ns, image.inode
            file = StoredFile(image.path, image.size, image.mtime_ns, image_id, *status)
            self.known[image.path] = file
            self.on_disk[image.path] = on_disk
            self.lacking.discard(image_id)

    def add_captions(self, store: VectorStore) -> int:
        """Put the captions behind those that are stored; return how many are new."""
        stored = [NewCaption(row.image_id, row.text, row.tags) for row in store.all_captions()]
        known = {(caption.image_id, caption.text) for caption in stored}
        new = [NewCaption(*key) for key in self.captions if key not in known]
        if new:
            self.writer.replace_captions([*stored, *new])
        return len(new)

    def set_caption_vectors(self, source: Embeddings, dim: int) -> int:
        """Give captions their vectors; return how many are left without."""
        without = self.writer.captions_without_vector()
        waiting = {(row.image_id, row.text): row.id for row in without}
        if waiting.keys() & self.captions.keys():
            for batch in source.batches(BATCH_ROWS):
                rows = validate_batch(batch, dim)
                vectors: dict[int, int] = {}  # row of rows.texts by caption id
                for number, row in enumerate(rows.text_rows.tolist()):
                    key = self.image_ids[rows.paths[row]], rows.captions[row]
                    if key in waiting:
                        vectors[waiting.pop(key)] = number
                self.writer.set_caption_vectors(list(vectors), rows.texts[list(vectors.values())])
        return len(waiting)
