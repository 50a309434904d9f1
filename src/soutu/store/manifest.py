"""What is known of a derived index: which file it is, what it covers, how much it can be trusted.

A manifest is a small JSON file beside the index file that it names, sealed by a checksum over
itself. It is renamed into place after the index file: where it is, the index is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from soutu.errors import IndexCorrupt
from soutu.store.home import make_private_file, sync_folder


@dataclass(frozen=True)
class Reached:
    """Mean recall over ``queries`` queries, with its 95 % interval (normal, over queries)."""

    queries: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """The effort for up to ``k`` results: ``lists`` are scanned, the best ``candidates`` by code
    are scored from their vectors. ``reached`` is recall@k by the kind of query."""

    k: int
    lists: int
    candidates: int
    reached: Mapping[str, Reached]


@dataclass(frozen=True)
class Manifest:
    """``file`` holds codes of the vectors at slots 0 to ``slots`` - 1, in ``lists`` lists;
    ``checksum`` is its CRC-32. ``built`` is UTC, ISO 8601; ``seconds`` is what building took."""

    file: str
    checksum: int
    slots: int
    lists: int
    recipe: str
    target: float
    levels: tuple[Level, ...]
    built: str
    seconds: float

    def is_whole(self, folder: Path) -> bool:
        """Whether the index file in ``folder`` is what was written."""
        try:
            return file_checksum(folder / self.file) == self.checksum
        except OSError:
            return False


def manifest_path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.ann.json"


def read_manifest(folder: Path, kind: str) -> Manifest | None:
    """None where there is no index. IndexCorrupt for a manifest that is not what was written."""
    path = manifest_path(folder, kind)
    try:
        kept = json.loads(path.read_bytes())
        body = kept["ann"]
        if kept["checksum"] != _seal(body):
            raise ValueError("checksum")
        return manifest_from(body)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise IndexCorrupt("ann-damaged", file=str(path)) from fault


def manifest_from(body: Mapping[str, Any]) -> Manifest:
    """What ``asdict`` made of a manifest. TypeError, KeyError or AttributeError for anything
    else."""
    levels = tuple(
        Level(**{**row, "reached": {n: Reached(**r) for n, r in row["reached"].items()}})
        for row in body["levels"]
    )
    return Manifest(**{**body, "levels": levels})


def write_manifest(folder: Path, kind: str, manifest: Manifest) -> None:
    """Put ``manifest`` in the place of the one before, and wait until it is on disk."""
    path = manifest_path(folder, kind)
    body = asdict(manifest)
    text = json.dumps({"ann": body, "checksum": _seal(body)}, indent=1)
    beside = path.with_name(path.name + ".new")
    make_private_file(beside)
    with open(beside, "r+b") as file:
        file.truncate()
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(folder)


def file_checksum(path: Path) -> int:
    """CRC-32 of a file: any single changed byte changes it, and it costs half a millisecond a
    megabyte."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = crc32(block, value)
    return value


def _seal(body: object) -> int:
    return crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
