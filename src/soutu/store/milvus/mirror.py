"""What a writer knows of the gallery while it runs: paths and captions, fetched once.

About a kilobyte a path. It follows what the writer makes visible; after a fault it is fetched anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from soutu.store.base import StoredFile
from soutu.store.milvus.connection import Row
from soutu.store.milvus.reading import path_of
from soutu.store.milvus.spaces import Tables
from soutu.store.milvus.tables import seen


@dataclass
class Mirror:
    """The rows of ``files`` by path and of ``captions`` by id, as of ``epoch``."""

    tables: Tables
    epoch: int
    _owned: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    @cached_property
    def files(self) -> dict[str, Row]:
        rows = {path_of(row["path"]): row for row in self.tables.files.rows(seen(self.epoch))}
        for path, row in rows.items():
            self._owned[row["image"]].add(path)
        return rows

    @cached_property
    def captions(self) -> dict[int, Row]:
        return {row["id"]: row for row in self.tables.captions.rows(seen(self.epoch))}

    def file(self, path: str) -> StoredFile | None:
        row = self.files.get(path)
        if row is None:
            return None
        return StoredFile(path, row["size"], row["mtime_ns"], row["image"])

    def has_path(self, image: int) -> bool:
        _ = self.files
        return bool(self._owned.get(image))

    def captions_of(self, images: set[int]) -> set[int]:
        if not images:
            return set()
        return {id_ for id_, row in self.captions.items() if row["image"] in images}

    def put_file(self, path: str, row: Row | None) -> None:
        before = self.files.pop(path, None)
        if before is not None:
            self._owned[before["image"]].discard(path)
        if row is not None:
            self.files[path] = row
            self._owned[row["image"]].add(path)
