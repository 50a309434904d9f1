"""A process that kills itself at a step that it counts, so that no clock decides where."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import sys
from types import FrameType

_OF_THE_SYSTEM = {"fsync", "ftruncate", "mkdir", "open", "rename", "replace", "rmdir", "unlink"}


class Steps:
    """Counts what changes files: SQL, writes, syncs, renames; each when it begins and ends."""

    def __init__(self, last: int = 0) -> None:
        """At the ``last`` one the process is killed; 0: never."""
        self.count, self.last = 0, last

    def __enter__(self) -> Steps:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, _: FrameType, event: str, function: object) -> None:
        if event not in ("c_call", "c_return"):
            return
        owner = getattr(function, "__self__", None)
        if isinstance(owner, (sqlite3.Connection, sqlite3.Cursor, io.RawIOBase)) or (
            owner is getattr(os.fsync, "__self__", None)
            and getattr(function, "__name__", "") in _OF_THE_SYSTEM
        ):
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
