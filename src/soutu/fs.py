"""Files as the rest needs them: private, written whole or not at all, locked, read without a hang.

Also where a gallery's ``.soutu`` folder is, and which storage would harm the index in it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, BinaryIO

from soutu.errors import BadInput, IndexCorrupt, MissingIndex

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HOME = ".soutu"
DATABASE = "rows.db"
REBUILD = "rebuild"  # a folder in which an index is made anew
REMEMBERED = "store"  # the file that names a store elsewhere (factory.py)
HOME_FILES = (DATABASE, REMEMBERED, "config.yaml", "lexicon.yaml", "expansions.yaml")
"""What every opening of a gallery reads."""

HEAD_BYTES = 64  # of a file, which tell its format
_LONG = 1 << 18  # bytes of a file whose head is worth a look before the rest is read
_CHUNK = 1 << 16
_LOCK = "lock"
_POLL_SECONDS = 0.05
_LOCKED_BYTE = 1 << 30  # Windows keeps others from reading what is locked: far off the text


class NotRegularFile(OSError):
    """The name belongs to a folder, pipe, socket or device."""


class FileTooLarge(OSError):
    """The file holds more bytes than the caller allows."""


def find_home(start: Path) -> Path | None:
    """Return the nearest ``.soutu`` with an index, or the address of one, in ``start`` or above."""
    folder = absolute(start)
    for parent in (folder, *folder.parents):
        # A .soutu that holds only settings is not an index. os.path: no error where unreadable.
        home = parent / HOME
        if any(os.path.isfile(home / name) for name in (DATABASE, REMEMBERED)):  # noqa: PTH113
            return home
        if os.path.isdir(home) and not os.access(home, os.X_OK):  # noqa: PTH112
            return home  # somebody else's, as ``check_home`` will say
    return None


def missing_index(home: Path) -> MissingIndex:
    """Return the error for a place where there is no index: a folder's own, or one elsewhere."""
    if home.name == HOME:
        return MissingIndex("index-missing", folder=str(home.parent))
    return MissingIndex("index-missing-dir", home=str(home))


def require_folder(path: Path) -> None:
    """Raise BadInput where there is no folder at ``path``."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput("folder-missing", path=str(path)) from None
    except (OSError, ValueError):  # whoever reads it will say what is wrong
        return
    if not is_folder:
        raise BadInput("folder-not-folder", path=str(path))


def check_home(home: Path) -> None:
    """Raise IndexCorrupt where the ``.soutu`` folder at ``home`` is none, or may not be read."""
    try:
        is_folder = stat.S_ISDIR(os.stat(home).st_mode)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise IndexCorrupt("index-private", path=str(home), reason=error.strerror) from error
    if not is_folder:
        raise IndexCorrupt("index-not-folder", home=str(home))
    refused = (
        [home]
        if not os.access(home, os.R_OK | os.X_OK)
        else [
            path
            for path in map(home.joinpath, HOME_FILES)
            if not os.access(path, os.R_OK) and path.exists()
        ]
    )
    if refused:
        reason = os.strerror(errno.EACCES)
        raise IndexCorrupt("index-private", path=str(refused[0]), reason=reason)


def absolute(path: Path) -> Path:
    """Return ``path`` from the root of the file system, its links as they are."""
    try:
        return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links)
    except FileNotFoundError:  # of the working directory
        raise BadInput("cwd-gone") from None


def path_bytes(path: str) -> bytes:
    """Return the bytes that name a file, also where the locale lacks letters of it."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")


def modified_ns(status: os.stat_result) -> int:
    """Return when a file was written, in what databases hold: years 1677 to 2262, else the end."""
    return _as_stored(status.st_mtime_ns)


def changed_ns(status: os.stat_result) -> int:
    """Return when a file, its name or its rights changed; when it was made, on Windows."""
    return _as_stored(status.st_ctime_ns)


def inode_of(status: os.stat_result) -> int:
    """Return the file's number in its file system, in 63 bits; 0 where it has none."""
    return status.st_ino & 2**63 - 1


def _as_stored(time_ns: int) -> int:
    return max(-(2**63), min(2**63 - 1, time_ns))


def expand_user(path: str | Path) -> Path:
    """Return ``path`` with ``~`` and ``~NAME`` replaced where there is such a home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (raises where there is none)


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` (0700) and what is missing above it; IndexCorrupt where that fails."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise unwritable(folder, error) from error


def make_private_file(path: Path) -> None:
    """Make ``path`` an empty file (0600) unless it is there; IndexCorrupt where that fails."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> IndexCorrupt:
    """Return the error for a place in the index that cannot be written."""
    return IndexCorrupt("index-unwritable", path=str(path), reason=error.strerror or str(error))


@contextmanager
def atomic_write(path: Path, *, private: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file so that ``path`` holds all of it or what it held before.

    Parameters
    ----------
    path
        Its folder must exist. A link is replaced, not followed.
    private
        Whether others than the owner are kept from reading it (0600).
    durable
        Whether to wait until it is on disk. A cache need not.

    Yields
    ------
    BinaryIO
        A file beside ``path``, in which seeking works; it is renamed at the end, or removed if
        anything is raised.
    """
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.new")
    mode = 0o600 if private else 0o666
    try:
        with open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def replace_folder(new: Path, target: Path, spare: Path) -> None:
    """Rename the folder ``new`` to ``target``; what was there becomes ``spare``.

    There is a whole folder in its place at every moment but one. Where the system refuses, the
    old one stays.
    """
    if not target.exists():
        new.rename(target)
        return
    target.rename(spare)
    try:
        new.rename(target)
    except OSError:
        spare.rename(target)
        raise


@contextmanager
def staged_folder(folder: Path, check: Callable[[Path, Path], None], prefix: str) -> Iterator[Path]:
    """Yield a new folder, which takes the place of ``folder`` at the end.

    ``check(target, folder)`` raises where the target may not be replaced, before and after; if
    anything fails, ``folder`` is left as it was. The new one is made beside, its name beginning
    with ``prefix``. Raises OSError where that cannot be done.
    """
    import tempfile  # which few commands need

    target = Path(os.path.realpath(folder))
    check(target, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        check(target, folder)
        replace_folder(new, target, Path(scratch) / "old")


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on disk; a file without its name is lost."""
    if os.name == "nt":  # folders cannot be opened there, and need not be
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Locks of the operating system, which a killed process lets go of. The library filelock does the
# same, but imports asyncio and logging (85 modules), and every search takes a lock for its log.


@contextmanager
def write_lock(home: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the write lock of the index at ``home``.

    Raises IndexCorrupt("index-locked") if another writer, in this process or elsewhere, has it
    for ``wait`` seconds. The lock's file says who has it, and stays when the lock goes: whoever
    removed it could remove the next writer's.
    """
    path = home / _LOCK
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        deadline = time.monotonic() + wait
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                pid, since = _read_holder(path)
                raise IndexCorrupt("index-locked", home=str(home), pid=pid, since=since)
            time.sleep(_POLL_SECONDS)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()} {now}\n".encode())
        yield
    finally:
        os.close(handle)  # which unlocks


@contextmanager
def process_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock file at ``path``; yield whether another process or thread had it before.

    ``on_wait`` is called again and again while one has it. The file is removed at the end. Where
    the storage knows no locks, nobody is waited for. Raises OSError where there can be no file.
    """
    waited = False
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            while _is_locked(handle):
                waited = True
                on_wait()
                time.sleep(_POLL_SECONDS)
            if not _names(path, handle):  # who had it has removed it
                continue
            try:
                yield waited
            finally:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()
            return
        finally:
            os.close(handle)


def _names(path: Path, handle: int) -> bool:
    """Whether ``path`` is the name of the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _is_locked(handle: int) -> bool:
    """Try to lock; return whether somebody else has it."""
    try:
        _lock(handle)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return False


def _try_lock(handle: int) -> bool:
    try:
        _lock(handle)
    except OSError:
        return False
    return True


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_holder(path: Path) -> tuple[str, str]:
    """Return the process number and starting time of who has the lock, as far as known."""
    try:
        pid, since = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return "?", "?"
    return pid, since


def open_beneath(folder: str, names: Sequence[str]) -> int:
    """Open the regular file at ``names`` below ``folder`` for reading, through no link at all.

    What is opened is where the names say, whoever exchanges folders for links meanwhile. Windows
    cannot promise that. Raises ``NotRegularFile``, or the ``OSError`` of the system.
    """
    if not names:
        raise NotRegularFile(errno.EISDIR, os.strerror(errno.EISDIR))
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd:
        return _check_regular(os.open(os.path.join(folder, *names), flags))  # noqa: PTH118
    # O_PATH: a folder that may be passed through but not listed will do.
    passing = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
    handle = os.open(folder, passing)
    try:
        for name in names[:-1]:
            inner = os.open(name, passing | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        return _check_regular(os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=handle))
    finally:
        os.close(handle)


def _check_regular(descriptor: int) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotRegularFile(errno.EINVAL, "not a regular file")


def read_regular_file(
    path: Path, limit: int, check: Callable[[bytes], None] | None = None
) -> bytes:
    """Read all bytes of ``path``, at most ``limit``, without ever hanging on a pipe.

    ``check`` may raise for a long file's first bytes (``HEAD_BYTES``), before the rest is read.
    Raises ``NotRegularFile``, ``FileTooLarge``, or the ``OSError`` of the system, ENOMEM included.
    """
    # Opening a FIFO for reading waits for a writer, so ask not to wait and look at
    # what was opened: checking the name first would leave a gap between the two.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError:  # a name that no file can have: NUL, half a surrogate pair
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    except OSError as error:
        # A socket cannot be opened at all (ENXIO), and Windows refuses folders (EACCES).
        if error.errno == errno.ENXIO or path.is_dir():
            raise NotRegularFile(error.errno, error.strerror) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularFile(errno.EINVAL, "not a regular file")
        if status.st_size > limit:
            raise FileTooLarge(errno.EFBIG, os.strerror(errno.EFBIG))
        with open(descriptor, "rb", closefd=False) as stream:
            if check and status.st_size > _LONG:
                check(stream.read(HEAD_BYTES))
                stream.seek(0)
            return read_stream(stream, status.st_size, limit)
    finally:
        os.close(descriptor)


def read_stream(stream: IO[bytes], size: int, limit: int) -> bytes:
    """Read all of a stream that should hold ``size`` bytes, in as much memory as it needs.

    Raises ``FileTooLarge`` beyond ``limit`` bytes, and ``OSError`` where memory is short.
    """
    try:
        data = stream.read(min(size, limit) + 1)
        # It grew, or (in /proc) it claimed to be empty, or the storage does not know.
        parts = [data]
        total = len(data)
        while data and size < total <= limit:
            data = stream.read(min(max(total, _CHUNK), limit + 1 - total))
            parts.append(data)
            total += len(data)
        if total > limit:
            raise FileTooLarge(errno.EFBIG, os.strerror(errno.EFBIG))
        return b"".join(parts) if len(parts) > 1 else data
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None
