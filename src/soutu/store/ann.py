"""Approximate search: which of a million slots are worth scoring exactly.

A Faiss index of short codes (``recipe``) over the slots of a slab. It is derived data: where it is
absent, out of date or damaged, the slab is scanned, and the answer is the same. Codes only choose
candidates; scores always come from the stored vectors.

A manifest names the index file, what it covers and the recall it reached. It is a small JSON file
beside the index file, sealed by a checksum over itself, and is renamed into place after it: where
there is a manifest, the index is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.fs import atomic_write
from soutu.types import Bits, Floats, Ids


@dataclass(frozen=True)
class RecallEstimate:
    """Mean recall over ``queries`` queries, with its 95 % interval (normal, over queries)."""

    queries: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class SearchEffort:
    """The effort for up to ``k`` results.

    ``lists`` are scanned, and the best ``candidates`` by code are scored from their vectors.
    ``reached`` is recall@k by kind of query.
    """

    k: int
    lists: int
    candidates: int
    reached: Mapping[str, RecallEstimate]


@dataclass(frozen=True)
class Manifest:
    """The description of an index file.

    ``file`` holds codes of the vectors at slots 0 to ``slots`` - 1, in ``lists`` lists;
    ``checksum`` is its CRC-32. ``built`` is UTC, ISO 8601; ``seconds`` is the time it took.
    """

    file: str
    checksum: int
    slots: int
    lists: int
    recipe: str
    target: float
    levels: tuple[SearchEffort, ...]
    built: str
    seconds: float

    def is_whole(self, folder: Path) -> bool:
        """Check that the index file in ``folder`` is what was written."""
        try:
            return file_checksum(folder / self.file) == self.checksum
        except OSError:
            return False


def manifest_path(folder: Path, kind: str) -> Path:
    """Return the path of the manifest of ``kind``."""
    return folder / f"{kind}.ann.json"


def read_manifest(folder: Path, kind: str) -> Manifest | None:
    """Read a manifest, or None if there is none; IndexCorrupt if it is not what was written."""
    path = manifest_path(folder, kind)
    try:
        record = json.loads(path.read_bytes())
        body = record["ann"]
        if record["checksum"] != _seal(body):
            raise ValueError("checksum")
        return manifest_from(body)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexCorrupt("ann-damaged", file=str(path)) from error


def manifest_from(body: Mapping[str, Any]) -> Manifest:
    """Restore a manifest from ``asdict``; TypeError, KeyError or AttributeError otherwise."""
    levels = tuple(
        SearchEffort(
            **{**row, "reached": {n: RecallEstimate(**r) for n, r in row["reached"].items()}}
        )
        for row in body["levels"]
    )
    return Manifest(**{**body, "levels": levels})


def write_manifest(folder: Path, kind: str, manifest: Manifest) -> None:
    """Replace the manifest of ``kind``, and wait until it is on disk."""
    path = manifest_path(folder, kind)
    body = asdict(manifest)
    text = json.dumps({"ann": body, "checksum": _seal(body)}, indent=1)
    with atomic_write(path, private=True) as file:
        file.write(text.encode())


def file_checksum(path: Path) -> int:
    """Compute the CRC-32 of a file.

    Any single changed byte changes it, and it costs half a millisecond per megabyte.
    """
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = crc32(block, value)
    return value


def _seal(body: object) -> int:
    return crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


EXACT_BELOW = 20_000  # vectors; scanning this many takes a millisecond or two


@dataclass(frozen=True)
class Candidates:
    """Slots (n,) to rank, best first by their scores by code, ``codes`` (n,).

    ``scores`` (n,) are computed from the vectors; ``every``: no other slots were admitted.
    """

    slots: Ids
    codes: Floats
    scores: Floats
    every: bool

    def settle(self, k: int) -> bool:
        """Tell whether the slots left out are unlikely to be among the best ``k``.

        True if the last score by code plus three times the error of the codes is no more than the
        k-th best score.
        """
        if self.every:
            return True
        kth = float(np.partition(self.scores, len(self.scores) - k)[len(self.scores) - k])
        return float(self.codes[-1]) + 3 * float((self.scores - self.codes).std()) <= kth


class Ann:
    """An index loaded from its file; several threads may search at once."""

    def __init__(self, index: Any, manifest: Manifest) -> None:  # noqa: ANN401  (Faiss has no types)
        self.manifest = manifest
        self._index = index
        self._efforts: dict[int, Any] = {}  # Faiss's search parameters, by number of lists

    @classmethod
    def load(cls, folder: Path, kind: str) -> Ann | None:
        """Load the index of ``kind`` from ``folder``; None without an index or without Faiss.

        IndexCorrupt("ann-damaged") if a file is not what was written.
        """
        manifest = read_manifest(folder, kind)
        if manifest is None:
            return None
        path = folder / manifest.file
        try:
            import faiss

            # Before reading: Faiss trusts what it reads.
            if not manifest.is_whole(folder):
                raise IndexCorrupt("ann-damaged", file=str(path))
            with open(path, "rb") as file:
                index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
            # It must name no slot beyond those of the manifest: vectors are read there.
            if index.ntotal != manifest.slots:
                raise IndexCorrupt("ann-damaged", file=str(path))
            return cls(index, manifest)
        except ImportError:
            return None
        except (OSError, RuntimeError) as error:  # Faiss raises RuntimeError
            raise IndexCorrupt("ann-damaged", file=str(path)) from error

    def level(self, k: int) -> SearchEffort | None:
        """Return the effort that reaches the target for ``k`` results; None for more than tuned."""
        return next((level for level in self.manifest.levels if k <= level.k), None)

    def candidates(
        self, query: Floats, level: SearchEffort, rows: Floats, bits: Bits | None = None
    ) -> Candidates:
        """Find the slots likely to hold the best answers to ``query`` (dim,).

        ``rows`` (slots, dim) are the vectors of the slab; with ``bits``, only slots whose bit is
        set are searched.
        """
        import faiss

        effort = self._efforts.get(level.lists) if bits is None else None
        if effort is None:
            limits = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
            effort = faiss.SearchParametersIVF(nprobe=level.lists, **limits)
            if bits is None:
                self._efforts[level.lists] = effort
        # One query is too little work for two threads, and callers bring threads of their own.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # of this thread
        try:
            [codes], [slots] = self._index.search(query[None], level.candidates, params=effort)
            every = bool(slots[-1] < 0)
            if every:
                valid = slots >= 0  # -1 stands for no candidate
                codes, slots = codes[valid], slots[valid]
            scores = np.empty(len(slots), np.float32)
            # Read in place: copying the rows first would take half as long again.
            faiss.fvec_inner_products_by_idx(
                *map(faiss.swig_ptr, (scores, query, rows, slots)), len(query), 1, len(slots)
            )
        finally:
            faiss.omp_set_num_threads(threads)
        return Candidates(slots, codes, scores, every)


def file_signature(folder: Path, kind: str) -> tuple[int, int] | None:
    """Return a value that changes with every new index of ``kind``; None if there is none."""
    try:
        status = os.stat(f"{folder}/{kind}.ann.json")  # noqa: PTH116  (runs in each search)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
