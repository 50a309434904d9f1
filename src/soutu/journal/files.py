"""The journal's files: lines appended by several processes, and an end to their growth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from soutu.journal.lines import Setup, entry, to_json
from soutu.types import SearchResult

try:
    import fcntl
except ImportError:  # Windows: a single append is all the protection there is
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Journal:
    """The journal at ``path``. A line that would make it larger than ``most`` bytes (0: no end)
    begins a new file; the old one stays beside it with the time in its name, and of such files the
    ``kept`` newest stay. ``key``: lines are hashed with the key in that file."""

    path: Path
    most: int = 0
    kept: int = 0
    key: Path | None = None

    def record(self, result: SearchResult, setup: Setup | None = None) -> None:
        """Append a search. OSError where that cannot be done."""
        line = entry(result, setup=setup)
        if self.key is not None:
            from soutu.journal.hashed import hashed, secret

            line = hashed(line, secret(self.key))
        self.append(to_json(line))

    def append(self, text: str) -> None:
        """Append ``text`` and a newline as a whole: writers in several processes never interleave,
        and a line that a crash left unfinished is closed first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = (text + "\n").encode("utf-8", "backslashreplace")
        while not self._written(data):
            pass

    def files(self) -> list[Path]:
        """The older files, oldest first, then the one that is written to."""
        return [*_older(self.path), *([self.path] if self.path.exists() else [])]

    def _written(self, data: bytes) -> bool:
        """False: the file is another by now, try again."""
        with locked(self.path) as file:
            if not _is_still(file, self.path):
                return False
            size = os.fstat(file).st_size
            if self.most and size and size + len(data) > self.most and self._set_aside():
                return False
            if size:
                os.lseek(file, -1, os.SEEK_END)
                if os.read(file, 1) != b"\n":
                    data = b"\n" + data
            while data:
                data = data[os.write(file, data) :]
        return True

    def _set_aside(self) -> bool:
        """Whoever waits for the lock finds afterwards that the name stands for another file.
        False where the system does not let go of a name; the file grows on then."""
        if fcntl is None:
            return False
        try:
            self.path.rename(_free(self.path))
        except OSError:
            return False
        older = _older(self.path)
        for path in older[: max(0, len(older) - self.kept)]:
            with suppress(OSError):
                path.unlink()
        return True


def append(path: Path, text: str) -> None:
    """``Journal.append`` to a file that may grow."""
    Journal(path).append(text)


def record(path: Path, result: SearchResult) -> None:
    """Append a search to the journal at ``path``, which may grow."""
    Journal(path).record(result)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _is_still(file: int, path: Path) -> bool:
    """Whether ``path`` names the opened ``file``; while we waited for it, another process may
    have given it another name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _older(path: Path) -> list[Path]:
    """``journal-20261124T012203.jsonl`` and such, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"), key=_age)


def _age(file: Path) -> tuple[str, int]:
    """When a file was set aside, and its place among those of one second (``~2`` …)."""
    when, _, number = file.stem.partition("~")
    return when, int(number) if number.isascii() and number.isdigit() else 1


def _free(path: Path) -> Path:
    """A name for what is set aside now, later than all older ones whatever the clock says."""
    when = datetime.now(timezone.utc).strftime(f"{path.stem}-%Y%m%dT%H%M%S")
    older = _older(path)
    last, number = _age(older[-1]) if older else ("", 0)
    if when > last:
        return path.with_name(f"{when}{path.suffix}")
    return path.with_name(f"{last}~{number + 1}{path.suffix}")
