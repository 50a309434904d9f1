"""Find what has changed in a folder since it was indexed.

Sizes and times tell which files are new or look changed; only these are read, and their content
tells new pictures from renamed files and duplicates. An index run and ``--dry-run`` both do this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from soutu.errors import BadImage, BadInput
from soutu.images.decode import content_hash, read_file
from soutu.images.scan import ImageFile, walk
from soutu.indexing.pipeline import map_ahead
from soutu.store.base import ContentLookup, StoredFile, VectorStore


@dataclass(frozen=True)
class ReadFile:
    """A stale file, read, and what it means to the index.

    A duplicate has the content of a stored file, a copy that of a new one. ``data`` are the bytes
    of new files, ``old_path`` is that of renamed ones.
    """

    path: str
    size: int
    mtime_ns: int
    content: bytes
    data: bytes = b""
    kind: Literal["new", "renamed", "duplicate", "copy"] = "new"
    old_path: str = ""


@dataclass
class FolderDiff:
    """What has changed in a folder. Paths stand in the folder's order.

    Attributes
    ----------
    files
        How many files have a picture's name.
    stale
        The files that are new or look changed.
    removed
        Known paths that are no longer there, with their image ids. ``read`` takes out those that
        were renamed.
    unreadable
        The files that could not be listed, or not be read since.
    encode, renamed, duplicates
        Filled by ``read``: paths of new content; (before, now); further files of known content.
    """

    root: Path
    files: int
    stale: list[ImageFile]
    removed: dict[str, int]
    unreadable: list[BadImage]
    encode: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    def read(self, known: ContentLookup | None, pool: ThreadPoolExecutor) -> Iterator[ReadFile]:
        """Read the stale files in the threads of ``pool`` and tell what each of them is."""
        vanished: dict[int, list[str]] = {}
        for path, image_id in self.removed.items():
            vanished.setdefault(image_id, []).append(path)
        seen: set[bytes] = set()
        for file, read in map_ahead(pool, self._read, self.stale, lambda file: file.size):
            if isinstance(read, BadImage):
                self.unreadable.append(read)
                continue
            content, data = read
            fields = file.path, file.size, file.mtime_ns, content
            stored = known.known_content([content]) if known and content not in seen else {}
            old_paths = vanished.get(stored[content]) if stored else None
            if old_paths:
                old_path = old_paths.pop(0)
                del self.removed[old_path]
                self.renamed.append((old_path, file.path))
                yield ReadFile(*fields, kind="renamed", old_path=old_path)
            elif stored or content in seen:
                self.duplicates.append(file.path)
                yield ReadFile(*fields, kind="duplicate" if stored else "copy")
            else:
                seen.add(content)
                self.encode.append(file.path)
                yield ReadFile(*fields, data)

    def _read(self, file: ImageFile) -> tuple[bytes, bytes] | BadImage:
        try:
            data = read_file(self.root / file.path, name=file.path)
        except BadImage as error:
            return error
        return content_hash(data), data


def diff(root: Path, store: VectorStore | None, only: Collection[str] | None = None) -> FolderDiff:
    """Compare sizes and times of the files below ``root`` with those of ``store``.

    Raises BadInput for an unusable root, and for one that has lost all its pictures, which is more
    likely a disk that is not there. ``store`` is None where there is no index yet; ``only`` limits
    the comparison to these paths.
    """
    known = store.files() if store else {}
    files: dict[str, ImageFile] = {}
    unreadable: list[BadImage] = []
    for entry in walk(root):
        if isinstance(entry, ImageFile):
            files[entry.path] = entry
        else:
            unreadable.append(entry)
    if only is not None:
        known = {path: stored for path, stored in known.items() if path in only}
        files = {path: file for path, file in files.items() if path in only}
    elif known and not files:
        raise BadInput("index-empty", folder=root, count=len(known))
    # What lies in a folder that could not be listed, or at a path that is there but unusable, is
    # not removed.
    bad_paths = {str(e.fields["path"]) for e in unreadable if e.code != "image-is-folder"}
    bad_folders = tuple(f"{e.fields['path']}/" for e in unreadable if e.code == "folder-unreadable")
    removed = {
        path: stored.image_id
        for path, stored in known.items()
        if path not in files and path not in bad_paths and not path.startswith(bad_folders)
    }
    stale = [
        file
        for path, file in files.items()
        if path not in known
        or (known[path].size, known[path].mtime_ns) != (file.size, file.mtime_ns)
    ]
    return FolderDiff(root, len(files), stale, removed, unreadable)


def dry_run(root: Path, store: VectorStore | None, *, other_model: bool = False) -> FolderDiff:
    """Tell what an index run would do, without writing or encoding anything.

    Whether a picture can be decoded is not tried. ``other_model``: ``store`` is open in another
    model's space, and has no vector of the one that would be used. Raises BadInput as ``diff``.
    """
    changes = diff(root, store)
    with ThreadPoolExecutor() as pool:
        for _ in changes.read(store, pool):
            pass
    if store:
        files = [file for file in store.files().values() if file.path not in changes.removed]
        ids = {file.image_id for file in files} if other_model else store.images_without_vector()
        changes.encode += sorted(file.path for file in first_files(files, [*ids]))
    return changes


def first_files(files: Sequence[StoredFile], ids: Sequence[int]) -> list[StoredFile]:
    """Return the first file of each image in ``ids`` that has one."""
    by_id: dict[int, StoredFile] = {}
    for file in files:
        by_id.setdefault(file.image_id, file)
    return [by_id[image_id] for image_id in ids if image_id in by_id]
