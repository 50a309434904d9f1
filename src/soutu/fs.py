"""Reading one ordinary file whole, without ever hanging on a pipe."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from soutu.errors import IndexCorrupt

# The ``.soutu`` folder: finding it, making it private, and refusing storage that would harm it.


HOME = ".soutu"
DATABASE = "rows.db"
REBUILD = "rebuild"  # a folder in which an index is made anew
REMEMBERED = "store"  # the file that names a store elsewhere (factory.py)

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


# One writer at a time: a lock of the operating system, which a killed process lets go of.


_NAME = "lock"

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows keeps others from reading what is locked: lock far off the text

    def _take(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def write_lock(home: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the write lock of the index at ``home``. IndexCorrupt("index-locked") if another
    writer, in this process or elsewhere, has it for ``patience`` seconds; the file says
    who. It stays when the lock goes: whoever removed it could remove the next writer's."""
    path = home / _NAME
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        if not _taken(handle, time.monotonic() + patience):
            pid, since = _holder(path)
            raise IndexCorrupt("index-locked", home=str(home), pid=pid, since=since)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()} {now}\n".encode())
        yield
    finally:
        os.close(handle)  # which unlocks


def _taken(handle: int, until: float) -> bool:
    while True:
        try:
            _take(handle)
            return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)


def _holder(path: Path) -> tuple[str, str]:
    """Process number and starting time of who has the lock, as far as it has written them."""
    try:
        pid, since = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return "?", "?"
    return pid, since


class NotRegularFile(OSError):
    """The name belongs to a folder, pipe, socket or device."""


class FileTooLarge(OSError):
    """The file holds more bytes than the caller allows."""


def read_regular_file(path: Path, limit: int) -> bytes:
    """All bytes of ``path``, at most ``limit`` of them.

    Raises ``NotRegular``, ``TooLong``, or the ``OSError`` of the system.
    """
    # Opening a FIFO for reading waits for a writer, so ask not to wait and look at
    # what was opened: checking the name first would leave a gap between the two.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        # A socket cannot be opened at all (ENXIO), and Windows refuses folders (EACCES).
        if error.errno == errno.ENXIO or path.is_dir():
            raise NotRegularFile(error.errno, error.strerror) from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotRegularFile(errno.EINVAL, "not a regular file")
        if found.st_size > limit:
            raise FileTooLarge(errno.EFBIG, os.strerror(errno.EFBIG))
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:  # it grew, or (in /proc) it claimed to be empty
        raise FileTooLarge(errno.EFBIG, os.strerror(errno.EFBIG))
    return data
