"""Vectors kept on disk, so that a second evaluation need not encode again."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from soutu.errors import BadInput
from soutu.types import Floats

_UNUSABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Kept:
    """What is in ``folder`` under ``key``: vectors of ``dim`` numbers. A file that cannot be used
    is as good as none; it is written again."""

    folder: Path
    key: str
    dim: int

    def pictures(self, count: int) -> Floats | None:
        """float32 (count, dim), if they are there."""
        with suppress(*_UNUSABLE), self._file("pictures.npy").open("rb") as file:
            rows: Floats = np.load(file, allow_pickle=False)
            if len(rows) == count and self._sound(rows):
                return rows
        return None

    def keep_pictures(self, rows: Floats) -> None:
        self._write("pictures.npy", lambda file: np.save(file, rows))

    def texts(self) -> dict[str, Floats]:
        """What was encoded together, (n, dim) each, by its sha256."""
        with suppress(*_UNUSABLE), self._file("texts.npz").open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            names, ends, rows = loaded["names"], loaded["ends"], loaded["rows"]
            whole = len(names) == len(ends) and len(rows) == max([0, *ends[-1:].tolist()])
            if whole and self._sound(rows):
                starts = [0, *ends[:-1].tolist()]
                places = zip(names.tolist(), starts, ends.tolist(), strict=True)
                return {name: rows[start:end] for name, start, end in places}
        return {}

    def keep_texts(self, known: Mapping[str, Floats]) -> None:
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *known.values()])
        ends = np.cumsum([len(one) for one in known.values()], dtype=np.int64)
        names = np.array([*known], "U64")
        self._write("texts.npz", lambda file: np.savez(file, names=names, ends=ends, rows=rows))

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.key}-{name}"

    def _sound(self, rows: Floats) -> bool:
        fits = rows.ndim == 2 and rows.shape[1] == self.dim and rows.dtype == np.float32
        return fits and bool(np.isfinite(rows).all())

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        """Whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                try:
                    save(file)
                    file.close()
                    os.replace(file.name, self._file(name))  # noqa: PTH105
                except BaseException:
                    file.close()
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as fault:
            reason = fault.strerror or type(fault).__name__
            raise BadInput("eval-unwritable", folder=self.folder, reason=reason) from fault
