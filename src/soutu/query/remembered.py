"""Answers that took long to get, kept on disk: the same question is never asked twice."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path

MOST = 1000  # answers kept when a file is tidied
_LARGEST = 8_000_000  # bytes; a larger file is not what was written here


class Remembered:
    """JSON lines of ``{"key": …, "said": …}``, the newest last; ``file`` None keeps them in memory.
    What cannot be read or written is forgotten: it only costs asking again."""

    def __init__(self, file: Path | None = None, most: int = MOST) -> None:
        self._file, self._most = file, most

    def get(self, key: str) -> object:
        """What was said; None where nothing is known. The file may hold anything: check it."""
        return self._known.get(key)

    def put(self, key: str, said: object) -> None:
        self._known.pop(key, None)
        self._known[key] = said
        with suppress(OSError):
            if len(self._known) >= 2 * self._most:
                self._tidy()
            elif self._file:
                self._append(self._file, os.O_APPEND, _line(key, said))

    @cached_property
    def _known(self) -> dict[str, object]:
        found: dict[str, object] = {}
        if self._file is None:
            return found
        with suppress(OSError):
            if self._file.stat().st_size > _LARGEST:
                self._file.unlink()
                return found
            for line in self._file.read_bytes().splitlines():
                with suppress(ValueError, RecursionError):  # cut short, or not ours
                    entry = json.loads(line)
                    if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                        found[entry["key"]] = entry.get("said")
        return found

    def _tidy(self) -> None:
        """The newest are kept; a reader finds the file whole, before or after."""
        for key in list(self._known)[: -self._most]:
            del self._known[key]
        if self._file:
            beside = self._file.with_name(f"{self._file.name}.new")
            self._append(beside, os.O_TRUNC, "".join(_line(*one) for one in self._known.items()))
            beside.replace(self._file)

    @staticmethod
    def _append(file: Path, how: int, text: str) -> None:
        """In one call, so that writers in several processes do not interleave."""
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | how, 0o600)
        try:
            os.write(opened, text.encode())
        finally:
            os.close(opened)


def _line(key: str, said: object) -> str:
    """Begins with the newline, so that it also ends one that a crash cut short."""
    return "\n" + json.dumps({"key": key, "said": said})
