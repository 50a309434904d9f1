"""Approximate search: which of a million slots are worth scoring exactly.

A Faiss index of short codes (``recipe``) over the slots of a slab. It is derived: where it is
absent, out of date or damaged, the slab is scanned, and the answer is the same. Codes only
choose candidates; scores always come from the stored vectors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.store.live import Bits
from soutu.store.manifest import Level, Manifest, read_manifest
from soutu.types import Floats, Ids

EXACT_BELOW = 20_000  # vectors; a scan of so many takes a millisecond or two


@dataclass(frozen=True)
class Candidates:
    """``slots`` (n,) with their scores by code, ``codes`` (n,), best first; ``every``: no others
    were admitted."""

    slots: Ids
    codes: Floats
    every: bool

    def settle(self, scores: Floats, k: int) -> bool:
        """Whether what was left out is unlikely to be among the best ``k``, given the candidates'
        own ``scores`` (n,): what the last code says, and three times the codes' error, is no more
        than the k-th best."""
        if self.every:
            return True
        kth = float(np.partition(scores, len(scores) - k)[len(scores) - k])
        return float(self.codes[-1]) + 3 * float((scores - self.codes).std()) <= kth


class Ann:
    """An index loaded from its file; several threads may search at once."""

    def __init__(self, index: Any, manifest: Manifest) -> None:  # noqa: ANN401  (Faiss has no types)
        self.manifest = manifest
        self._index = index

    @classmethod
    def load(cls, folder: Path, kind: str) -> Ann | None:
        """The index of this kind in ``folder``; None where there is none or Faiss is not
        installed. IndexCorrupt("ann-damaged") where a file is not what was written."""
        manifest = read_manifest(folder, kind)
        if manifest is None:
            return None
        path = folder / manifest.file
        try:
            import faiss

            # First: what Faiss reads it believes.
            if not manifest.is_whole(folder):
                raise IndexCorrupt("ann-damaged", file=str(path))
            with open(path, "rb") as file:
                return cls(faiss.read_index(faiss.PyCallbackIOReader(file.read)), manifest)
        except ImportError:
            return None
        except (OSError, RuntimeError) as fault:  # RuntimeError: what Faiss raises
            raise IndexCorrupt("ann-damaged", file=str(path)) from fault

    def level(self, k: int) -> Level | None:
        """The effort that keeps the promise for ``k`` results; None for more than it was made
        for."""
        return next((level for level in self.manifest.levels if k <= level.k), None)

    def candidates(self, query: Floats, level: Level, bits: Bits | None = None) -> Candidates:
        """The slots that are likely to hold the best answers to ``query`` (dim,). ``bits``: only
        slots whose bit is set count."""
        import faiss

        limits = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        effort = faiss.SearchParametersIVF(nprobe=level.lists, **limits)
        # One query is too little work for two threads; several callers have threads of their own.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # of this thread
        try:
            [codes], [found] = self._index.search(query[None], level.candidates, params=effort)
        finally:
            faiss.omp_set_num_threads(threads)
        if found[-1] >= 0:
            return Candidates(found, codes, False)
        there = found >= 0  # -1 where there were fewer
        return Candidates(found[there], codes[there], True)


def stamp(folder: Path, kind: str) -> tuple[int, int] | None:
    """Changes whenever another index takes the place of this one; None where there is none."""
    try:
        found = os.stat(f"{folder}/{kind}.ann.json")  # noqa: PTH116  (each search asks)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
