"""The drawn pictures, captions and queries that come with the package."""

from __future__ import annotations

import csv
import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from soutu.errors import BadImage, BadInput, Missing
from soutu.images.decode import HEIC, RAW

# Which files of a folder are pictures, in a fixed order, without opening any.


SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff"}
    | {"avif", "jp2", "j2k", "pnm", "ppm", "pgm", "pbm"}
    | HEIC
    | RAW
)
"""File name endings that are taken for pictures, lower case, without the dot."""

SKIPPED_FOLDERS = frozenset({"@eaDir", "node_modules"})
"""Folders that hold thumbnails or packages, never a person's pictures."""

_JUNCTION = 0xA0000003  # Windows: a link between folders that is_symlink() does not see


@dataclass(frozen=True)
class ImageFile:
    """A picture found by its name. ``path`` is relative to the root, POSIX, with bytes
    that are no text kept as ``os.fsdecode`` keeps them; ``size`` is in bytes."""

    path: str
    size: int
    mtime_ns: int


def has_image_suffix(name: str) -> bool:
    """Whether the file name ends like a picture's, in upper or lower case."""
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and suffix.lower() in SUFFIXES


def nfc(name: str) -> str:
    """``name`` in the composed form, for comparing names that macOS has decomposed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_root(root: Path) -> None:
    """Raise ``BadInput`` unless ``root`` is a folder that can be listed."""
    try:
        os.scandir(root).close()
    except NotADirectoryError:
        raise BadInput("folder-not-folder", path=str(root)) from None
    except FileNotFoundError:
        raise BadInput("folder-missing", path=str(root)) from None
    except OSError as error:
        raise BadInput("folder-unreadable", path=str(root), reason=_reason(error)) from error


def walk(root: Path) -> Iterator[ImageFile | BadImage]:
    """Every picture below ``root``, and in its place an error for each one that cannot be.

    Names are sorted within each folder, a folder's content stands where its name
    sorts. Hidden files and folders and ``SKIPPED_FOLDERS`` are passed over. Links to
    files are followed inside the root, links to folders never. The errors are values:
    only a root that is no readable folder raises, ``BadInput``, at the call.
    """
    check_root(root)
    return _descend(os.fspath(root), os.path.realpath(root))


def _descend(root: str, real_root: str) -> Iterator[ImageFile | BadImage]:
    # An own stack of folders: nesting is bounded by the file system, not by Python's.
    pending = [iter(_listing(root, ""))]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
        elif isinstance(found, BadImage):
            yield found
        else:
            entry, path = found
            if _is_folder(entry):
                if has_image_suffix(entry.name):
                    yield BadImage("image-is-folder", path=path)
                if entry.name not in SKIPPED_FOLDERS and not _is_junction(entry):
                    pending.append(iter(_listing(entry.path, path + "/")))
            elif has_image_suffix(entry.name):
                picture = _picture(entry, path, real_root)
                if picture is not None:
                    yield picture


def _listing(folder: str, prefix: str) -> list[tuple[os.DirEntry[str], str] | BadImage]:
    """The visible entries of a folder with their paths, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except FileNotFoundError:  # removed since its parent was listed
        return []
    except OSError as error:
        shown = prefix.rstrip("/") or folder
        return [BadImage("folder-unreadable", path=shown, reason=_reason(error))]
    return [(entry, prefix + entry.name) for entry in visible]


def _picture(entry: os.DirEntry[str], path: str, real_root: str) -> ImageFile | BadImage | None:
    """The entry as a picture or as what is wrong with it; None when it has just gone."""
    try:
        if entry.is_symlink():
            linked = _linked(entry.path, path, real_root)
            if isinstance(linked, BadImage):
                return linked
            found = linked
        else:
            found = entry.stat(follow_symlinks=False)
            if found.st_size == 0:
                # Windows lists a hard link's old size; ask again before calling it empty.
                found = Path(entry.path).lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return BadImage("image-unreadable", path=path, reason=_reason(error))
    if not stat.S_ISREG(found.st_mode):
        return BadImage("image-not-file", path=path)
    if found.st_size == 0:
        return BadImage("image-empty", path=path)
    return ImageFile(path, found.st_size, found.st_mtime_ns)


def _linked(link: str, path: str, real_root: str) -> os.stat_result | BadImage:
    """What a link points to, if that lies inside the root."""
    try:
        target = os.path.realpath(link, strict=True)
        found = Path(target).stat()
    except (FileNotFoundError, NotADirectoryError):
        return BadImage("image-link-dangling", path=path, target=_target(link))
    except OSError as error:
        if error.errno == errno.ELOOP or getattr(error, "winerror", 0) == 1921:
            return BadImage("image-link-loop", path=path)
        return BadImage("image-unreadable", path=path, reason=_reason(error))
    if not is_inside(target, real_root):
        return BadImage("image-link-outside", path=path, target=target)
    if stat.S_ISDIR(found.st_mode):
        return BadImage("image-is-folder", path=path)
    return found


def is_inside(path: str, folder: str) -> bool:
    """Whether ``path`` lies below ``folder``; both absolute, without ``..`` and links."""
    folder = os.path.normcase(folder).rstrip(os.sep)
    return os.path.normcase(path).startswith(folder + os.sep)


def _target(link: str) -> str:
    try:
        return os.fspath(Path(link).readlink())
    except OSError:
        return "?"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # then the attempt to use it as a picture names the trouble
        return False


def _is_junction(entry: os.DirEntry[str]) -> bool:
    if os.name != "nt":
        return False
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return bool(tag == _JUNCTION)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def demo_data() -> Path:
    """The folder of the demo pictures: inside the installed package, or in a checkout."""
    package = Path(str(resources.files("soutu")))
    for folder in (package / "demo", package.parents[1] / "clip_retrieval" / "data"):
        if (folder / "captions.csv").is_file():
            return folder
    raise Missing("demo-missing", folder=package / "demo")


def sample_queries() -> list[tuple[str, frozenset[str]]]:
    """Each sample query and the pictures that answer it."""
    with (demo_data() / "queries.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [(row["query"], frozenset(row["image_paths"].split())) for row in rows]
