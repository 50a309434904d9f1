"""Parquet files of pictures' paths or of their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from soutu.distributed.items import Item, Shard, shard_name
from soutu.distributed.places import is_remote, join, name_of, opened, size_of
from soutu.distributed.slices import shard_size
from soutu.errors import BadImage, BadInput

BYTES, PATH, CAPTION = "bytes", "image_path", "caption"
READ = 64  # rows at once: with bytes in them they are large


@dataclass(frozen=True)
class ParquetShard:
    """Rows ``start`` to ``stop`` of a file with a column ``bytes`` or ``image_path`` and perhaps
    ``caption``. With bytes a picture's key is its path where that column is there too, else
    ``file.parquet/row``; relative paths are looked up beside the file."""

    place: str
    size: int
    start: int
    stop: int

    @cached_property
    def name(self) -> str:
        label = name_of(self.place)
        return shard_name(label, (label, self.size, self.start, self.stop))

    @property
    def count(self) -> int:
        return self.stop - self.start

    def items(self) -> Iterator[Item]:
        with opened(self.place) as stream:
            row = 0
            file = pq.ParquetFile(stream)
            groups = []
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows > self.start and row < self.stop:
                    groups.append((group, row))
                row += rows
            if not groups:
                return
            row = groups[0][1]
            names = [n for n in (BYTES, PATH, CAPTION) if n in file.schema_arrow.names]
            for batch in file.iter_batches(READ, [g for g, _ in groups], columns=names):
                for told in batch.to_pylist():
                    if self.start <= row < self.stop:
                        yield self._item(row, told)
                    row += 1

    def _item(self, row: int, told: dict[str, Any]) -> Item:
        path, data = told.get(PATH), told.get(BYTES)
        key = path or f"{name_of(self.place)}/{row}"
        caption = (told.get(CAPTION) or "").strip()
        if data is not None:
            return Item(key, "", data, caption, len(data))
        if not path:
            return Item(key, caption=caption, fault=BadImage("parquet-no-picture", path=key))
        folder = self.place.rpartition("/")[0]
        there = path if is_remote(path) or path.startswith("/") else join(folder, path)
        return Item(key, there, caption=caption)


def parquet_shards(places: Iterable[str]) -> list[Shard]:
    """Raises BadInput for a file that is no Parquet or lacks its columns."""
    found = [(place, _rows(place)) for place in places]
    step = shard_size(sum(rows for _, rows in found))
    return [
        ParquetShard(place, size_of(place), start, min(start + step, rows))
        for place, rows in found
        for start in range(0, rows, step)
    ]


def _rows(place: str) -> int:
    with opened(place) as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as fault:
            reason = " ".join(str(fault).split())
            raise BadInput("source-unreadable", place=place, reason=reason) from fault
        names = file.schema_arrow.names
        if BYTES not in names and PATH not in names:
            raise BadInput("parquet-columns", place=place, names=", ".join(names))
        return int(file.metadata.num_rows)
