"""The ``.soutu`` folder: finding it, making it private, and refusing storage that would harm it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from soutu.errors import IndexCorrupt

HOME = ".soutu"
DATABASE = "rows.db"
REMEMBERED = "store"  # the file that names a store elsewhere (assemble/stores.py)

_NETWORK = re.compile(
    r"(nfs\d*|cifs|smb\w*|ncpfs|afs|9p|ceph|lustre|beegfs|glusterfs|davfs2?|coda"
    r"|fuse\.(sshfs|glusterfs\w*|ceph\w*|rclone|s3fs\w*|davfs2?|juicefs|smb\w*|goofys|gcsfuse))"
)


def find_home(start: Path) -> Path | None:
    """The nearest ``.soutu`` with an index, or the address of one, in ``start`` or above it; None
    if there is none."""
    folder = absolute(start)
    for place in (folder, *folder.parents):
        # A .soutu that holds only settings is not an index.
        if any(_is_file(place / HOME / name) for name in (DATABASE, REMEMBERED)):
            return place / HOME
    return None


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (no error where unreadable)


def absolute(path: Path) -> Path:
    """``path`` from the root of the file system, its links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links)


def refuse_network_storage(home: Path, mounts: str | None = None) -> None:
    """IndexCorrupt if ``home`` lies on a network file system, where SQLite's shared memory
    and file locks do not hold. ``mounts`` is the text of /proc/mounts; only Linux has it."""
    if mounts is None:
        mounts = _system_mounts()
    target = os.path.realpath(home)
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one point, the later lies on top
            best, kind = point, fields[2]
    if _NETWORK.fullmatch(kind):
        raise IndexCorrupt("index-network", home=str(home), kind=kind)


def _system_mounts() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a container without /proc: nothing to judge by
        return ""


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it; what is new of the index is 0700."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise unwritable(folder, error) from error


def make_private_file(path: Path) -> None:
    """Make ``path`` an empty file, 0600, unless it is there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise unwritable(path, error) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on disk; a file without its name is lost."""
    if os.name == "nt":  # folders cannot be opened there, and need not be
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> IndexCorrupt:
    """The error for a place in the index that cannot be written."""
    return IndexCorrupt("index-unwritable", path=str(path), reason=error.strerror or str(error))
