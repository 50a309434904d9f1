"""What a source's name stands for: a folder of pictures, tars or Parquet files."""

from __future__ import annotations

import json
import platform
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from zlib import crc32
from zlib import error as BadDeflate

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from soutu.distributed.filesystem import (
    absolute,
    exists,
    is_remote,
    join,
    listed,
    name_of,
    open_file,
    size_of,
)
from soutu.distributed.shards import Item, Shard, Source, shard_name
from soutu.errors import BadImage, BadInput
from soutu.images.decode import MAX_BYTES
from soutu.images.scan import ImageFile, has_image_suffix, walk

# How large the parts of a job are.


def shard_size(count: int) -> int:
    """Pictures in a slice of ``count``: seconds to a minute of one worker's work, which is what a
    worker that dies costs; more where there would be too many files."""
    return 1000 if count <= 1_000_000 else 10_000


# A folder of pictures, here or in object storage, cut into slices.


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


# Parquet files of pictures' paths or of their bytes.


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
        with open_file(self.place) as stream:
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
    with open_file(place) as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as fault:
            reason = " ".join(str(fault).split())
            raise BadInput("source-unreadable", place=place, reason=reason) from fault
        names = file.schema_arrow.names
        if BYTES not in names and PATH not in names:
            raise BadInput("parquet-columns", place=place, names=", ".join(names))
        return int(file.metadata.num_rows)


# Tars as webdataset and img2dataset write them: a picture, its text and its JSON share a name.


MAX_TEXT = 1_000_000
Member = tuple[tarfile.TarInfo, bytes]


@dataclass(frozen=True)
class TarShard:
    """One tar. It is read once from front to back, as object storage likes it, and nothing is
    unpacked to a disk; a picture's key is ``shard.tar/name.jpg``."""

    place: str
    size: int
    count: None = None

    @cached_property
    def name(self) -> str:
        return shard_name(name_of(self.place), (name_of(self.place), self.size))

    def items(self) -> Iterator[Item]:
        label = name_of(self.place)
        with open_file(self.place) as stream:
            sample: dict[str, Member] = {}
            stem = ""
            try:
                for member, data in _members(stream):
                    path = PurePosixPath(member.name)
                    if str(path.with_name(_stem(path))) != stem:
                        yield from _item(label, sample)
                        sample, stem = {}, str(path.with_name(_stem(path)))
                    sample[member.name] = member, data
                yield from _item(label, sample)
            except (tarfile.TarError, EOFError, BadDeflate, OSError) as fault:
                # What came before is whole; where the rest should be nobody can say.
                yield from _item(label, sample)
                reason = " ".join(str(fault).split()) or type(fault).__name__
                yield Item(label, fault=BadImage("tar-damaged", path=label, reason=reason))


def tar_shards(places: Iterable[str]) -> list[Shard]:
    return [TarShard(place, size_of(place)) for place in places]


def _members(stream: object) -> Iterator[Member]:
    """Ordinary files that belong to a sample, with their bytes."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:  # type: ignore[call-overload]
        for member in tar:
            picture = has_image_suffix(member.name)
            limit = MAX_BYTES if picture else MAX_TEXT
            wanted = picture or member.name.endswith((".txt", ".json"))
            if not member.isfile() or not wanted:
                continue
            if member.size > limit:
                yield member, b""
                continue
            file = tar.extractfile(member)
            if file is not None:
                yield member, file.read()
            tar.members = []  # else every header stays in memory to the end


def _stem(path: PurePosixPath) -> str:
    """What the files of a sample share: the name up to its first dot."""
    return path.name.partition(".")[0] or path.name


def _item(label: str, sample: dict[str, Member]) -> Iterator[Item]:
    """The sample's picture; nothing where it has none (a download that failed, say)."""
    picture = next((name for name in sample if has_image_suffix(name)), None)
    if picture is None:
        return
    member, data = sample[picture]
    name = picture.removeprefix("./")
    key = f"{label}/{name}"
    fault = None
    if name.startswith("/") or ".." in name.split("/"):
        # A key is a path in the index, and others join it to a folder.
        key, fault = label, BadImage("tar-name", path=label, name=picture)
    elif not member.size:
        fault = BadImage("image-empty", path=key)
    elif not data:
        fault = BadImage("image-file-too-large", path=key, limit=MAX_BYTES)
    caption = _caption(sample)
    moment = int(member.mtime) * 10**9
    yield Item(key, "", data, caption, member.size, moment, fault)


def _caption(sample: dict[str, Member]) -> str:
    """The text beside the picture, else the JSON's ``caption``."""
    texts = [data for name, (_, data) in sample.items() if name.endswith(".txt")]
    if texts:
        return texts[0].decode("utf-8", "replace").strip()
    for name, (_, data) in sample.items():
        if name.endswith(".json"):
            try:
                told = json.loads(data)
            except (ValueError, RecursionError):
                return ""
            caption = told.get("caption") if isinstance(told, dict) else None
            return caption.strip() if isinstance(caption, str) else ""
    return ""


TARS, PARQUET = (".tar", ".tar.gz", ".tgz"), (".parquet",)
Cut = Callable[[Iterable[str]], list[Shard]]


@dataclass(frozen=True)
class FileSource:
    """Tars or Parquet files, which ``cut`` makes shards of."""

    place: str
    files: Sequence[str]
    cut: Cut

    def shards(self) -> list[Shard]:
        return self.cut(self.files)


def open_source(place: str) -> Source:
    """A file, a pattern of files (``s3://bucket/*.tar``) or a folder. A folder whose top holds
    tars, or else Parquet files, and neither pictures nor folders is taken for these (img2dataset
    writes a Parquet file beside each tar). Raises BadInput where there is nothing."""
    place = absolute(place)
    if place.endswith((*TARS, *PARQUET)):
        files = _globbed(place) if "*" in place else [place]
        if not files or not exists(files[0]):
            raise BadInput("source-missing", place=place)
        return FileSource(place, files, _cut(place))
    if not exists(place):
        raise BadInput("source-missing", place=place)
    found = records(place)
    if found:
        return FileSource(place, found, _cut(found[0]))
    return FolderSource(place)


def records(folder: str) -> list[str]:
    """The tars or Parquet files that a folder consists of; empty for a folder of pictures."""
    fs, root = url_to_fs(folder)
    if not fs.isdir(root):
        return []
    names = [n for n in listed(folder) if not n.startswith(".") and "/" not in n]
    folders = [e for e in fs.ls(root, detail=True) if e["type"] == "directory"]
    if any(map(has_image_suffix, names)) or any(not _hidden(e["name"]) for e in folders):
        return []
    for suffixes in (TARS, PARQUET):
        if fitting := [join(folder, name) for name in names if name.endswith(suffixes)]:
            return fitting
    return []


def _hidden(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].startswith(".")


def _globbed(pattern: str) -> list[str]:
    fs, path = url_to_fs(pattern)
    found = sorted(fs.glob(path))
    return [str(fs.unstrip_protocol(one)) for one in found] if is_remote(pattern) else found


def _cut(name: str) -> Cut:
    return parquet_shards if name.endswith(PARQUET) else tar_shards
