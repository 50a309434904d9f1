"""What an index run would do, without doing it: nothing is written, nothing is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadImage, BadInput
from soutu.images.decode import content_hash, read_file
from soutu.images.scan import ImageFile, walk
from soutu.store.base import StoredFile, VectorStore

# What has changed in a folder since its index was made, without opening any picture.


@dataclass(frozen=True)
class FolderDiff:
    """``count`` files have a picture's name; ``stale`` of them are new or look changed; ``gone``
    maps known paths that are no longer there to their image ids."""

    count: int
    stale: list[ImageFile]
    gone: dict[str, int]
    unreadable: list[BadImage]


def diff_folder(root: Path, known: Mapping[str, StoredFile]) -> FolderDiff:
    """Compare the folder with the files that are ``known``. Raises BadInput for an unusable root
    and for one that has lost all its pictures, which is more likely a disk that is not there."""
    files, unreadable = _split(walk(root))
    if known and not files:
        raise BadInput("index-empty", folder=root, count=len(known))
    stale = [file for file in files if not same_file(known.get(file.path), file)]
    gone = {path: known[path].image_id for path in _gone(known, files, unreadable)}
    return FolderDiff(len(files), stale, gone, unreadable)


def _split(found: Iterable[ImageFile | BadImage]) -> tuple[list[ImageFile], list[BadImage]]:
    files: list[ImageFile] = []
    problems: list[BadImage] = []
    for one in found:
        if isinstance(one, ImageFile):
            files.append(one)
        else:
            problems.append(one)
    return files, problems


def same_file(known: StoredFile | None, file: ImageFile) -> bool:
    """Whether ``file`` looks as it did when it was stored: its content need not be read."""
    return known is not None and (known.size, known.mtime_ns) == (file.size, file.mtime_ns)


def _gone(
    known: Mapping[str, StoredFile], files: list[ImageFile], unreadable: list[BadImage]
) -> list[str]:
    """Known paths that are no longer there. What lies in a folder that could not be listed,
    or at a path that is there but unusable, is not gone."""
    present = {file.path for file in files}
    hidden = {
        str(problem.fields["path"]) for problem in unreadable if problem.code != "image-is-folder"
    }
    below = tuple(
        f"{problem.fields['path']}/"
        for problem in unreadable
        if problem.code == "folder-unreadable"
    )
    return [
        path
        for path in known
        if path not in present and path not in hidden and not path.startswith(below)
    ]


@dataclass(frozen=True)
class IndexPlan:
    """Paths, in the folder's order. ``encode``: their content is new, or has no vector of this
    model yet; ``renamed``: (before, now); ``duplicates``: further files of known content.
    Whether a picture can be decoded is not tried."""

    found: int
    encode: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    removed: tuple[str, ...]
    duplicates: tuple[str, ...]
    unreadable: tuple[BadImage, ...]


def plan_index(root: Path, store: VectorStore | None, *, other_model: bool = False) -> IndexPlan:
    """Compare ``root`` with ``store`` (None: there is no index yet). ``other_model``: ``store`` is
    open in another model's space, and has no vector of the one that would be used.

    New and changed files are read to know their content. Raises BadInput as indexing does.
    """
    known = store.files() if store else {}
    found = diff_folder(root, known)
    problems = list(found.unreadable)
    contents = _contents(root, found.stale, problems)
    stored = store.known_content(list(dict.fromkeys(contents.values()))) if store else {}
    vanished: dict[int, list[str]] = {}
    for path, image in found.gone.items():
        vanished.setdefault(image, []).append(path)
    encode: list[str] = []
    renamed: list[tuple[str, str]] = []
    duplicates: list[str] = []
    fresh: set[bytes] = set()
    for path, content in contents.items():
        if content in stored and (old := vanished.get(stored[content])):
            renamed.append((old.pop(0), path))
        elif content in stored or content in fresh:
            duplicates.append(path)
        else:
            fresh.add(content)
            encode.append(path)
    moved = {old for old, _ in renamed}
    removed = tuple(path for path in found.gone if path not in moved)
    encode += _without_vector(store, {*removed}, other_model) if store else []
    return IndexPlan(
        found.count, tuple(encode), tuple(renamed), removed, tuple(duplicates), tuple(problems)
    )


def _contents(root: Path, files: Sequence[ImageFile], problems: list[BadImage]) -> dict[str, bytes]:
    contents = {}
    for file in files:
        try:
            contents[file.path] = content_hash(read_file(root / file.path, name=file.path))
        except BadImage as problem:
            problems.append(problem)
    return contents


def _without_vector(store: VectorStore, removed: set[str], other_model: bool) -> list[str]:
    """A path each of the stored pictures that this model has not seen and that will stay."""
    paths: dict[int, str] = {}
    for path, file in store.files().items():
        if path not in removed:
            paths.setdefault(file.image_id, path)
    wanted = [*paths] if other_model else store.images_without_vector()
    return sorted(paths[image] for image in wanted if image in paths)
