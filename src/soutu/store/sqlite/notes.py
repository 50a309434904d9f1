"""What a repair takes out of an index, written down before it is gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

from soutu.fs import make_private_file, sync_folder
from soutu.store.sqlite.schema import TABLES
from soutu.store.sqlite.sealed import Row

_HEX = ("content", "checksum")


class Notes:
    """One JSON line for each row, in a file that is made with the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._lines: list[str] = []

    @property
    def kept(self) -> Path | None:
        """The file, if anything was written down."""
        return self.path if self.count else None

    def add(self, table: str, row: Row, why: str) -> None:
        """``why``: "checksum" (damaged), "ownerless", "taken" (its key or content belongs to
        another row by now), or "sealed anew" (kept, on other evidence than its checksum)."""
        columns = (*TABLES[table], "checksum")
        values = {name: _readable(name, value) for name, value in zip(columns, row, strict=False)}
        note = {"table": table, "why": why, "row": values}
        self._lines.append(json.dumps(note, ensure_ascii=False))
        self.count += 1

    def sync(self) -> None:
        """Wait until all of it is on disk: only then may a row go. OSError if that fails."""
        if not self._lines:
            return
        make_private_file(self.path)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self._lines)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)
        self._lines.clear()


def _readable(name: str, value: object) -> object:
    """As JSON can say it; bytes that are no text also as hexadecimal digits, to lose nothing."""
    if not isinstance(value, bytes):
        return value
    if name in _HEX:
        return value.hex()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"text": value.decode("utf-8", "backslashreplace"), "hex": value.hex()}
