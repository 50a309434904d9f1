"""Reading one ordinary file whole, without ever hanging on a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegular(OSError):
    """The name belongs to a folder, pipe, socket or device."""


class TooLong(OSError):
    """The file holds more bytes than the caller allows."""


def read_regular(path: Path, limit: int) -> bytes:
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
            raise NotRegular(error.errno, error.strerror) from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotRegular(errno.EINVAL, "not a regular file")
        if found.st_size > limit:
            raise TooLong(errno.EFBIG, os.strerror(errno.EFBIG))
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:  # it grew, or (in /proc) it claimed to be empty
        raise TooLong(errno.EFBIG, os.strerror(errno.EFBIG))
    return data
