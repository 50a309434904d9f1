"""A folder of pictures, here or in object storage, cut into slices."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

from soutu.distributed.items import Item, Shard, shard_name
from soutu.distributed.places import is_remote, join, listed
from soutu.distributed.slices import shard_size
from soutu.errors import BadImage, BadInput
from soutu.sources.images import ImageFile, has_image_suffix, walk

Found: TypeAlias = "ImageFile | BadImage"


@dataclass(frozen=True)
class FolderShard:
    """Some files of a folder, in the folder's order, those among them that are no files too."""

    root: str
    files: tuple[Found, ...]

    @cached_property
    def name(self) -> str:
        return shard_name("files", map(_facts, self.files))

    @property
    def count(self) -> int:
        return len(self.files)

    def items(self) -> Iterator[Item]:
        if not is_remote(self.root) and not Path(self.root).is_dir():
            # Each file would be told as a bad picture, and the shard as finished.
            raise BadInput("source-not-here", place=self.root, node=platform.node())
        for file in self.files:
            if isinstance(file, BadImage):
                yield Item(str(file.fields["path"]), fault=file)
            else:
                place = join(self.root, file.path)
                yield Item(file.path, place, size=file.size, mtime_ns=file.mtime_ns)


@dataclass(frozen=True)
class FolderSource:
    """``files``: those to embed, or None for every picture below the folder, in slices of
    ``size`` (0: ``shard_size``)."""

    place: str
    files: Sequence[Found] | None = None
    size: int = 0

    def shards(self) -> list[Shard]:
        files = [*self._found()] if self.files is None else self.files
        return [FolderShard(self.place, part) for part in _slices(files, self.size)]

    def _found(self) -> Iterator[Found]:
        if not is_remote(self.place):
            yield from walk(Path(self.place))
            return
        for path, told in listed(self.place, deep=True).items():
            hidden = any(part.startswith(".") for part in path.split("/"))
            if has_image_suffix(path) and not hidden:
                yield ImageFile(path, int(told.get("size") or 0), _changed(told))


def _slices(files: Sequence[Found], size: int) -> Iterator[tuple[Found, ...]]:
    """About ``size`` files each, at most twice as many. Where one ends depends on names nearby
    alone, so that a file more or less changes a slice or two and not all behind it."""
    size = size or shard_size(len(files))
    least, start = max(1, size // 2), 0
    for end, file in enumerate(files, 1):
        due = crc32(_facts(file)[0].encode("utf-8", "surrogateescape")) % least == 0
        if end - start >= 2 * size or (end - start >= least and due):
            yield tuple(files[start:end])
            start = end
    if start < len(files):
        yield tuple(files[start:])


def _facts(file: Found) -> tuple[str, object, object]:
    if isinstance(file, BadImage):
        return str(file.fields["path"]), file.code, 0
    return file.path, file.size, file.mtime_ns


def _changed(told: dict[str, object]) -> int:
    """Nanoseconds, from whatever the storage calls it; 0 where it does not say."""
    moment = next((told[k] for k in ("mtime", "LastModified", "updated") if told.get(k)), None)
    if isinstance(moment, datetime):
        return int(moment.timestamp()) * 10**9
    return int(moment * 10**9) if isinstance(moment, (int, float)) else 0
