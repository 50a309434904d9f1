"""Vectors on disk: a file of float32 rows, only ever appended to, read through memory-mapping.

Row ``slot`` starts at byte ``slot * dim * 4``. Which slots hold something is not known here: a
row counts from the moment its SQLite transaction commits, and it is on disk before that.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.ranking import exact_scores
from soutu.types import Floats, Ids

_BLOCK_BYTES = 16 << 20  # vectors that lie scattered, copied in one go
_VALUE = np.dtype("<f4")


class Slab:
    """The reading side. Holds no vector in memory; several threads may read at once."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        self._mapped: Floats = np.empty((0, dim), np.float32)
        self._step = max(1, _BLOCK_BYTES // (dim * _VALUE.itemsize))

    def __len__(self) -> int:
        """How many rows the file has room for; 0 where it is not there."""
        try:
            return self._path.stat().st_size // (self._dim * _VALUE.itemsize)
        except OSError:
            return 0

    def rows(self, count: int) -> Floats:
        """The first ``count`` rows, float32 (count, dim), as a read-only view of the file.
        Raises IndexCorrupt if the file holds fewer."""
        mapped = self._mapped  # another thread may map anew meanwhile
        if count > len(mapped):
            mapped = self._mapped = self._map(count)
        return mapped[:count]

    def take(self, slots: Ids) -> Floats:
        """A copy of these rows, float32 (n, dim), in the order asked for."""
        rows = self.rows(_end(slots))
        return np.take(rows, slots, axis=0).astype(np.float32, copy=False)

    def scan(self, vector: Floats, slots: Ids) -> Floats:
        """float32 inner products (n,) of ``vector`` (dim,) with the rows at ``slots`` (n,),
        which must ascend. Vectors are read where they lie on disk; where few of many are
        wanted, one block of them at a time is copied."""
        rows = self.rows(_end(slots))
        if not len(slots):
            return np.empty(0, np.float32)
        first, end = int(slots[0]), int(slots[-1]) + 1
        if end - first <= 2 * len(slots):
            # Reading a few gaps beats copying the rest. One call for all: a product per block
            # makes BLAS gather its threads for each, which took ten times longer on busy cores.
            scores: Floats = rows[first:end] @ vector
            return scores if end - first == len(slots) else scores[slots - first]
        scores = np.empty(len(slots), np.float32)
        for start in range(0, len(slots), self._step):
            part = slots[start : start + self._step]
            scores[start : start + self._step] = rows[part] @ vector
        return scores

    def exact(self, vector: Floats, slots: Ids) -> Floats:
        """As ``scan``, in any order and slower, each score free of its neighbours' influence."""
        rows = self.rows(_end(slots))
        if len(slots) <= self._step:
            return exact_scores(rows[slots], vector)
        scores = np.empty(len(slots), np.float32)
        for start in range(0, len(slots), self._step):
            part = slots[start : start + self._step]
            scores[start : start + self._step] = exact_scores(rows[part], vector)
        return scores

    def close(self) -> None:
        """Let go of the mapping; it ends with the last array that still looks at it."""
        self._mapped = np.empty((0, self._dim), np.float32)

    def _map(self, count: int) -> Floats:
        width = self._dim * _VALUE.itemsize
        try:
            with open(self._path, "rb") as file:
                found = os.fstat(file.fileno()).st_size // width
                if found < count:
                    raise _short(self._path, found, count)
                view = mmap.mmap(file.fileno(), found * width, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise _short(self._path, 0, count) from None
        return np.frombuffer(view, _VALUE).reshape(found, self._dim)


class SlabWriter:
    """The writing side; there is one at a time, under the index's write lock."""

    def __init__(self, path: Path, dim: int) -> None:
        """``path`` must exist. OSError where it cannot be written."""
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115  (closed by close)
        self._dim = dim

    def write(self, first: int, rows: Floats) -> None:
        """Put ``rows`` (n, dim) at slots ``first`` to ``first + n - 1`` and wait until they are
        on disk. OSError if that fails, for example on a full disk."""
        data = memoryview(np.ascontiguousarray(rows, _VALUE).tobytes())
        self._file.seek(first * self._dim * _VALUE.itemsize)
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _end(slots: Ids) -> int:
    return int(slots.max()) + 1 if len(slots) else 0


def _short(path: Path, found: int, expected: int) -> IndexCorrupt:
    return IndexCorrupt("index-slab-short", file=str(path), found=found, expected=expected)
