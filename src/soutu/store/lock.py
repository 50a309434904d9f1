"""One writer at a time: a lock of the operating system, which a killed process lets go of."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from soutu.errors import IndexCorrupt
from soutu.store.home import unwritable

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
