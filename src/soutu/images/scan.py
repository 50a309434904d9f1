"""List the image files of a folder in a fixed order, without opening any."""

from __future__ import annotations

import csv
import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.errors import BadImage, BadInput, Missing
from soutu.fs import changed_ns, inode_of, modified_ns

if TYPE_CHECKING:
    from soutu.images.exclude import Excludes

IGNORE_FILE = ".soutuignore"
RAW_SUFFIXES = frozenset(
    {"dng", "arw", "cr2", "cr3", "crw", "nef", "nrw", "orf", "raf", "rw2", "rwl", "pef", "srw"}
    | {"3fr", "fff", "iiq", "x3f", "gpr", "erf", "mef", "mos", "mrw", "kdc", "dcr", "sr2", "srf"}
)
"""Suffixes of cameras' raw files."""
SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "jps", "jpg_large", "jpg_orig"}
    | {"png", "apng", "gif", "bmp", "dib", "webp", "tif", "tiff", "avif", "avifs"}
    | {"jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "jpm", "pnm", "ppm", "pgm", "pbm"}
    | {"heic", "heif", "hif", "heics", "heifs"}
    | RAW_SUFFIXES
)
"""Suffixes of image files, lower case, without the dot."""
SKIPPED_FOLDERS = frozenset(
    {"@eadir", "@__thumb", "node_modules", "__macosx", "lost+found", "system volume information"}
    | {"#recycle", "@recycle", "$recycle.bin", "recycler", "#snapshot", "@recently-snapshot"}
)
"""Folders of thumbnails, packages, deleted files and snapshots, in lower case."""
_SKIPPED_PATHS = re.compile(
    r"\.(lrdata|lrcat-data|cocatalogdb)$|\.(photoslibrary|photolibrary)/(resources|thumbnails|previews"
    r"|database|private|scopes|external|internal)$",
    re.IGNORECASE,
)
"""Previews inside the catalogues of Lightroom, Capture One and Photos; not the originals."""


@dataclass(frozen=True)
class ImageFile:
    """An image file, as its folder lists it.

    ``path`` is relative to the root, POSIX, with bytes that are no text kept as
    ``os.fsdecode`` keeps them; ``size`` is in bytes. ``ctime_ns`` and ``inode`` are 0 where they
    are not known.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = field(default=0, compare=False)
    inode: int = field(default=0, compare=False)


@dataclass
class Omissions:
    """What a walk passed over.

    ``other_files`` counts the visible files that are no pictures by the ending of their names,
    ``skipped_folders`` bins, snapshots and the like by name; ``excluded_files`` and
    ``excluded_folders`` are pictures and folders that a person's patterns exclude.
    """

    other_files: Counter[str] = field(default_factory=Counter)
    skipped_folders: Counter[str] = field(default_factory=Counter)
    excluded_files: int = 0
    excluded_folders: int = 0


def has_image_suffix(name: str) -> bool:
    """Whether the file name ends like an image's, in upper or lower case."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """Return what follows the last dot, lower case, without spaces and dots behind it; "" if none.

    Copies from other systems end in such.
    """
    stem, _, suffix = name.rstrip(" .").rpartition(".")
    return suffix.lower() if stem else ""


def nfc(name: str) -> str:
    """Compose ``name``, to compare it with names that macOS has decomposed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_root(root: Path) -> None:
    """Raise BadInput unless ``root`` is a folder that can be listed."""
    try:
        os.scandir(root).close()
    except NotADirectoryError:
        raise BadInput("folder-not-folder", path=str(root)) from None
    except FileNotFoundError:
        raise BadInput("folder-missing", path=str(root)) from None
    except OSError as error:
        raise BadInput("folder-unreadable", path=str(root), reason=_reason(error)) from error


def walk(
    root: Path, omissions: Omissions | None = None, excludes: Excludes | None = None
) -> Iterator[ImageFile | BadImage]:
    """Yield every image file below ``root``, or in its place the error if it cannot be one.

    Names are sorted within each folder, a folder's content stands where its name
    sorts. Hidden files and folders, those that ``is_skipped`` and what ``excludes`` says are
    passed over, and counted in ``omissions``. Links to files are followed inside the root; links
    to folders never, but are named. Only a root that is no readable folder raises, BadInput, at
    the call, or one whose ignore file cannot be read.
    """
    check_root(root)
    if excludes:
        excludes.clear()
    return _walk_folders(os.fspath(root), os.path.realpath(root), omissions, excludes)


def demo_data() -> Path:
    """Return the folder of the demo images: in the installed package, or in a checkout."""
    package = Path(str(resources.files("soutu")))
    for folder in (package / "demo", package.parents[1] / "clip_retrieval" / "data"):
        if (folder / "captions.csv").is_file():
            return folder
    raise Missing("demo-missing", folder=package / "demo")


def sample_queries() -> list[tuple[str, frozenset[str]]]:
    """Return each query of the demo and the images that answer it."""
    with (demo_data() / "queries.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [(row["query"], frozenset(row["image_paths"].split())) for row in rows]


def _walk_folders(
    root: str, real_root: str, omissions: Omissions | None, excludes: Excludes | None
) -> Iterator[ImageFile | BadImage]:
    omissions = omissions or Omissions()
    # An own stack of folders: nesting is bounded by the file system, not by Python's.
    pending = [iter(_list_folder(root, "", excludes))]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
        elif isinstance(item, BadImage):
            yield item
        else:
            entry, path = item
            is_folder = _is_folder(entry)
            verdict = excludes.verdict(path, is_folder=is_folder) if excludes else None
            if verdict:
                omissions.excluded_folders += is_folder
                omissions.excluded_files += not is_folder and has_image_suffix(entry.name)
            elif is_folder:
                if has_image_suffix(entry.name):
                    yield BadImage("image-is-folder", path=path)
                if _is_junction(entry):
                    yield BadImage("folder-is-link", path=path, target=_link_target(entry.path))
                elif verdict is None and is_skipped(path):
                    omissions.skipped_folders[entry.name] += 1
                else:
                    pending.append(iter(_list_folder(entry.path, path + "/", excludes)))
            elif _is_folder_link(entry) and not has_image_suffix(entry.name):
                yield BadImage("folder-is-link", path=path, target=_link_target(entry.path))
            elif has_image_suffix(entry.name):
                image = _image_file(entry, path, real_root)
                if image is not None:
                    yield image
            else:
                omissions.other_files[suffix_of(entry.name)] += 1


def _list_folder(
    folder: str, prefix: str, excludes: Excludes | None
) -> list[tuple[os.DirEntry[str], str] | BadImage]:
    """Return the visible entries of a folder with their paths, sorted by name.

    Where its ignore file cannot be read, nothing of it may be shown.
    """
    visible = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    visible.append(entry)
                elif excludes and entry.name == IGNORE_FILE and not entry.is_dir():
                    try:
                        excludes.read_file(Path(entry.path), prefix)
                    except FileNotFoundError:  # gone again, or a link to nothing
                        pass
                    except OSError as error:
                        reason = _reason(error)
                        if not prefix:
                            raise BadInput(
                                "ignore-unreadable", path=folder, reason=reason
                            ) from error
                        return [BadImage("ignore-unreadable", path=prefix[:-1], reason=reason)]
    except FileNotFoundError:  # removed since its parent was listed
        return []
    except OSError as error:
        path = prefix.rstrip("/") or folder
        return [BadImage("folder-unreadable", path=path, reason=_reason(error))]
    visible.sort(key=lambda entry: entry.name)
    return [(entry, prefix + entry.name) for entry in visible]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # then the attempt to use it as an image names the trouble
        return False


def is_skipped(path: str) -> bool:
    """Whether a folder holds what is no person's image: thumbnails, deleted files, snapshots."""
    name = path.rpartition("/")[2]
    return name.lower() in SKIPPED_FOLDERS or _SKIPPED_PATHS.search(path) is not None


def _is_folder_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link between folders on Windows, which is_symlink() does not see."""
    if os.name != "nt":
        return False
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return bool(tag == 0xA0000003)


def _image_file(entry: os.DirEntry[str], path: str, real_root: str) -> ImageFile | BadImage | None:
    """Return the entry as an image file, or what is wrong with it; None when it has just gone."""
    try:
        if entry.is_symlink():
            status = _follow_link(entry.path, path, real_root)
            if isinstance(status, BadImage):
                return status
        else:
            status = entry.stat(follow_symlinks=False)
            if status.st_size == 0:
                # Windows lists a hard link's old size; ask again before calling it empty.
                status = Path(entry.path).lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return BadImage("image-unreadable", path=path, reason=_reason(error))
    if not stat.S_ISREG(status.st_mode):
        return BadImage("image-not-file", path=path)
    if status.st_size == 0:
        return BadImage("image-empty", path=path)
    times = modified_ns(status), changed_ns(status)
    return ImageFile(path, status.st_size, *times, inode_of(status))


def _follow_link(link: str, path: str, real_root: str) -> os.stat_result | BadImage:
    """Return the status of what a link points to, if that is a file inside the root."""
    try:
        target = os.path.realpath(link, strict=True)
        status = Path(target).stat()
    except (FileNotFoundError, NotADirectoryError):
        return BadImage("image-link-dangling", path=path, target=_link_target(link))
    except OSError as error:
        if error.errno == errno.ELOOP or getattr(error, "winerror", 0) == 1921:
            return BadImage("image-link-loop", path=path)
        return BadImage("image-unreadable", path=path, reason=_reason(error))
    # Both are absolute, without ".." and links.
    root = os.path.normcase(real_root).rstrip(os.sep) + os.sep
    if not os.path.normcase(target).startswith(root):
        return BadImage("image-link-outside", path=path, target=target)
    if stat.S_ISDIR(status.st_mode):
        return BadImage("image-is-folder", path=path)
    return status


def _link_target(link: str) -> str:
    try:
        return os.fspath(Path(link).readlink())
    except OSError:
        return "?"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
