"""What has changed in a folder since its index was made, without opening any picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadImage, BadInput
from soutu.sources.images import ImageFile, walk
from soutu.store.base import StoredFile


@dataclass(frozen=True)
class Scan:
    """``count`` files have a picture's name; ``stale`` of them are new or look changed; ``gone``
    maps known paths that are no longer there to their image ids."""

    count: int
    stale: list[ImageFile]
    gone: dict[str, int]
    unreadable: list[BadImage]


def scan(root: Path, known: Mapping[str, StoredFile]) -> Scan:
    """Compare the folder with the files that are ``known``. Raises BadInput for an unusable root
    and for one that has lost all its pictures, which is more likely a disk that is not there."""
    files, unreadable = _split(walk(root))
    if known and not files:
        raise BadInput("index-empty", folder=root, count=len(known))
    stale = [file for file in files if not same_file(known.get(file.path), file)]
    gone = {path: known[path].image_id for path in _gone(known, files, unreadable)}
    return Scan(len(files), stale, gone, unreadable)


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
