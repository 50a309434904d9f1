"""Find what has changed in a folder since it was indexed.

Sizes and times tell which files are new or look changed; only these are read, and their content
tells what each is. An index run and ``--dry-run`` both do this.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from PIL import __version__ as Pillow

from soutu.errors import BadImage, BadInput, SoutuError
from soutu.images.decode import content_hash, read_file
from soutu.images.exclude import Excludes
from soutu.images.scan import ImageFile, Omissions, walk
from soutu.indexing.pipeline import IndexOptions, map_ahead
from soutu.store.base import ContentLookup, StoredFile, VectorStore
from soutu.version import VERSION

Failure: TypeAlias = tuple[ImageFile, BadImage]
"""A file that could not be read, and why."""
Failures: TypeAlias = dict[str, Failure]
AnyFile = TypeVar("AnyFile", bound=ImageFile)
_FAILURES = "unreadable"  # the key in the store
_FAILURE_FIELDS = 7
_LASTING = frozenset(
    {"image-unknown", "image-truncated", "image-damaged", "image-too-large", "image-bomb"}
    | {"image-file-too-large", "image-rare"}
)
"""Errors that come of a file's content alone."""
_UNLISTED = ("folder-unreadable", "ignore-unreadable")


@dataclass(frozen=True)
class ReadFile(ImageFile):
    """A stale file, read, and what it means to the index.

    ``kind``: ``new`` has content that is not stored, ``copy`` that of a new file before it;
    ``same`` has the content that is stored for it; ``renamed`` that of a file that is gone,
    ``moved`` that of one that holds other content now; ``returned`` that of an image without any
    path; ``duplicate`` that of another path. ``data`` are the bytes of new files, ``old_path`` is
    that of renamed and moved ones.
    """

    content: bytes = b""
    data: bytes = b""
    kind: Literal["new", "copy", "same", "renamed", "moved", "returned", "duplicate"] = "new"
    old_path: str = ""


@dataclass
class FolderDiff:
    """What has changed in a folder. Paths stand in the folder's order.

    Attributes
    ----------
    files
        How many files have a picture's name.
    known
        The stored files.
    stale
        The files that are new or look changed.
    removed
        Known paths that are no longer there, with their image ids. ``read`` takes out those that
        were renamed.
    unreadable
        The files that could not be listed, or not be read since or before.
    failures
        Of these, the files that no later run could read either, unless they change.
    earlier_failures
        Those of earlier runs.
    passed_over
        How many of these an earlier run has tried.
    omissions, excludes
        What the walk passed over, and what a person has excluded.
    encode, same, renamed, returned, duplicates
        Filled by ``read``: paths of new content; of the same content as before; (before, now); of
        images that had no path any more; further paths of one content.
    """

    root: Path
    files: int
    known: Mapping[str, StoredFile]
    stale: list[ImageFile]
    removed: dict[str, int]
    unreadable: list[BadImage]
    failures: Failures = field(default_factory=dict)
    earlier_failures: Mapping[str, Failure] = field(default_factory=dict)
    passed_over: int = 0
    omissions: Omissions = field(default_factory=Omissions)
    excludes: Excludes = field(default_factory=Excludes)
    encode: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    @property
    def unchanged(self) -> int:
        """How many files nothing is to be done for."""
        changed = {file.path for file in self.stale} - {*self.same}
        encode = {*self.encode} - changed  # for another model
        return self.files - self.passed_over - len(changed) - len(encode)

    @property
    def notes(self) -> list[SoutuError]:
        """What is odd about the patterns of what is excluded."""
        notes: list[SoutuError] = [*self.excludes.notes]
        notes += [BadInput("exclude-unused", pattern=pattern) for pattern in self.excludes.unused]
        if not self.files and (self.omissions.excluded_files or self.omissions.excluded_folders):
            notes.append(BadInput("exclude-all-new", folder=self.root))
        return notes

    def read(self, known: ContentLookup | None, pool: ThreadPoolExecutor) -> Iterator[ReadFile]:
        """Read the stale files in the threads of ``pool`` and tell what each of them is."""
        vanished: defaultdict[int, list[str]] = defaultdict(list)
        for path, owner in self.removed.items():
            vanished[owner].append(path)
        with_path = {file.image_id for file in self.known.values()}
        # Whether these still have the path that they had is known once all files are read.
        uncertain = {self.known[f.path].image_id for f in self.stale if f.path in self.known}
        overwritten: defaultdict[int, list[str]] = defaultdict(list)
        waiting: list[tuple[int, ReadFile]] = []
        seen: set[bytes] = set()
        for file, read in map_ahead(pool, self._read, self.stale, lambda file: file.size):
            before = self.known.get(file.path)
            if isinstance(read, BadImage):
                self.unreadable.append(read)
                self.add_failure(file, read)
                continue
            content, data = read
            stored = known.known_content([content]) if known and content not in seen else {}
            image_id = stored.get(content)
            entry = ReadFile(
                file.path, file.size, file.mtime_ns, file.ctime_ns, file.inode, content
            )
            if before and before.image_id == image_id:
                self.same.append(file.path)
                yield replace(_without_unstable_inode(entry, before), kind="same")
                continue
            if before:
                overwritten[before.image_id].append(file.path)
            if content in seen:
                self.duplicates.append(file.path)
                yield replace(entry, kind="copy")
            elif image_id is None:
                seen.add(content)
                self.encode.append(file.path)
                yield replace(entry, data=data)
            elif vanished[image_id]:
                old_path = vanished[image_id].pop(0)
                del self.removed[old_path]
                self.renamed.append((old_path, file.path))
                yield replace(entry, kind="renamed", old_path=old_path)
            elif image_id not in with_path:
                with_path.add(image_id)
                self.returned.append(file.path)
                yield replace(entry, kind="returned")
            elif image_id in uncertain:
                waiting.append((image_id, entry))
            else:
                self.duplicates.append(file.path)
                yield replace(entry, kind="duplicate")
        for owner, moved in waiting:
            if overwritten[owner]:
                old_path = overwritten[owner].pop(0)
                self.renamed.append((old_path, moved.path))
                yield replace(moved, kind="moved", old_path=old_path)
            else:
                self.duplicates.append(moved.path)
                yield replace(moved, kind="duplicate")

    def add_failure(self, file: ImageFile | ReadFile | StoredFile, error: BadImage) -> None:
        """Remember what is wrong with a file, if it is the file's content."""
        if error.code in _LASTING:
            status = file.size, file.mtime_ns, file.ctime_ns, file.inode
            before, _ = self.earlier_failures.get(file.path, (None, None))
            file = _without_unstable_inode(ImageFile(file.path, *status), before)
            self.failures[file.path] = file, error

    def _read(self, file: ImageFile) -> tuple[bytes, bytes] | BadImage:
        try:
            data = read_file(self.root / file.path, name=file.path)
        except BadImage as error:
            return error
        return content_hash(data), data


def load_failures(store: VectorStore, max_pixels: int) -> Failures:
    """Return the files that earlier runs could not read; none of another version or limit."""
    stored = json.loads(store.get_meta(_FAILURES) or "{}")
    if stored.get("reader") != _reader(max_pixels):
        return {}
    rows = (row for row in stored["files"] if len(row) == _FAILURE_FIELDS)  # not of an older Soutu
    return {
        path: (ImageFile(path, *status), BadImage(code, **fields))
        for path, *status, code, fields in rows
    }


def save_failures(store: VectorStore, max_pixels: int, failures: Failures) -> None:
    """Remember the files that could not be read, for later runs to pass over."""
    files = [_failure_row(*failures[path]) for path in sorted(failures)]
    text = json.dumps({"reader": _reader(max_pixels), "files": files}) if files else ""
    if text != (store.get_meta(_FAILURES) or ""):
        store.set_meta(_FAILURES, text)


def _failure_row(file: ImageFile, error: BadImage) -> tuple[object, ...]:
    fields = {n: v if isinstance(v, (int, str)) else str(v) for n, v in error.fields.items()}
    return *astuple(file), error.code, fields


def _reader(max_pixels: int) -> str:
    """Name what decides whether a file can be read, besides the file."""
    return f"{VERSION} {Pillow} {max_pixels}"


def diff(
    root: Path,
    store: VectorStore | None,
    only: Collection[str] | None = None,
    failures: Mapping[str, Failure] | None = None,
    rehash: bool = False,
    excludes: Excludes | None = None,
) -> FolderDiff:
    """Compare sizes, times and inodes of the files below ``root`` with those of ``store``.

    Raises BadInput for an unusable root, and for one that has lost all its pictures, which is more
    likely a disk that is not there. ``store`` is None where there is no index yet; ``only`` limits
    the comparison to these paths. Files in ``failures`` that have not changed are not stale. With
    ``rehash`` every file is. What ``excludes`` says is as if it were not there; BadInput where that
    would be every picture of an index.
    """
    stored_files = store.files() if store else {}
    known = stored_files
    files: dict[str, ImageFile] = {}
    unreadable: list[BadImage] = []
    omissions, excludes = Omissions(), excludes or Excludes()
    for entry in walk(root, omissions, excludes):
        if isinstance(entry, ImageFile):
            files[entry.path] = entry
        else:
            unreadable.append(entry)
    if only is not None:
        known = {path: stored for path, stored in known.items() if path in only}
        files = {path: file for path, file in files.items() if path in only}
    elif known and not files:
        if omissions.excluded_files or omissions.excluded_folders:
            raise BadInput("exclude-all", folder=root, count=len(known))
        raise BadInput("index-empty", folder=root, count=len(known))
    # What lies in a folder that could not be listed, or at a path that is there but unusable, is
    # not removed.
    bad_paths = {str(e.fields["path"]) for e in unreadable if e.code != "image-is-folder"}
    bad_folders = tuple(f"{e.fields['path']}/" for e in unreadable if e.code in _UNLISTED)
    removed = {
        path: stored.image_id
        for path, stored in known.items()
        if path not in files and path not in bad_paths and not path.startswith(bad_folders)
    }
    stale = [
        file
        for path, file in files.items()
        if rehash or path not in known or not _is_same(known[path], file)
    ]
    failed: Failures = {}
    for file in stale:
        failure = failures.get(file.path) if failures else None
        if failure and not rehash and _is_same(failure[0], file):
            failed[file.path] = failure
            unreadable.append(failure[1])
    stale = [file for file in stale if file.path not in failed]
    passed_over = len(failed)
    if only is not None and failures:
        failed = {p: f for p, f in failures.items() if p not in only} | failed
    return FolderDiff(
        root,
        len(files),
        stored_files,
        stale,
        removed,
        unreadable,
        failed,
        failures or {},
        passed_over,
        omissions,
        excludes,
    )


def _is_same(before: StoredFile | ImageFile, file: ImageFile) -> bool:
    """Whether a file is as it was by what its folder says; an inode counts where both have one."""
    return _times(before) == _times(file) and (
        before.inode == file.inode or not (before.inode and file.inode)
    )


def _times(file: StoredFile | ImageFile) -> tuple[int, int, int]:
    return file.size, file.mtime_ns, file.ctime_ns


def _without_unstable_inode(file: AnyFile, before: StoredFile | ImageFile | None) -> AnyFile:
    """Return what to remember of a file that was read again and is as before.

    Where nothing but the inode had changed, the file system gives out new ones by itself (FAT, some
    network drives): it counts no more, or every run would read everything.
    """
    if before is None or not before.ctime_ns:
        return file
    is_unstable = not before.inode or (
        _times(before) == _times(file) and before.inode != file.inode
    )
    return replace(file, inode=0) if is_unstable else file


def dry_run(
    root: Path,
    store: VectorStore | None,
    *,
    other_model: bool = False,
    options: IndexOptions,
) -> FolderDiff:
    """Tell what an index run would do, without writing or encoding anything.

    Whether a picture can be decoded is not tried. ``other_model``: ``store`` is open in another
    model's space, and has no vector of the one that would be used. Raises BadInput as ``diff``.
    """
    failures = load_failures(store, options.max_pixels) if store and not options.retry else None
    changes = diff(root, store, failures=failures, rehash=options.rehash, excludes=options.excludes)
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
