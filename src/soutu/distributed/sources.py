"""Sources of pictures: a folder, tars or Parquet files, here or by URL, cut into shards."""

from __future__ import annotations

import json
import platform
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32
from zlib import error as DeflateError

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from soutu.distributed.filesystem import (
    absolute,
    base_name,
    exists,
    file_size,
    is_remote,
    join,
    list_files,
    open_file,
)
from soutu.distributed.planning import shard_size
from soutu.distributed.shards import Item, Shard, Source, shard_name
from soutu.errors import BadImage, BadInput
from soutu.images.decode import MAX_BYTES
from soutu.images.exclude import Excludes
from soutu.images.scan import IGNORE_FILE, ImageFile, has_image_suffix, walk

TAR_SUFFIXES, PARQUET_SUFFIXES = (".tar", ".tar.gz", ".tgz"), (".parquet",)
BYTES, PATH, CAPTION = "bytes", "image_path", "caption"  # columns
_MAX_TEXT = 1_000_000  # bytes of a text in a tar
_READ_ROWS = 64  # of Parquet at once: with bytes in them they are large

_Member = tuple[tarfile.TarInfo, bytes]


def open_source(path: str, excludes: Excludes | None = None) -> Source:
    """Open a file, a pattern of files (``s3://bucket/*.tar``) or a folder.

    A folder of records (``record_files``) is taken for these; of another one, what ``excludes``
    says is left out.

    Raises
    ------
    BadInput
        There is nothing, or it is no folder and a run is to leave something out.
    """
    path = absolute(path)
    if not path.endswith((*TAR_SUFFIXES, *PARQUET_SUFFIXES)):
        if not exists(path):
            raise BadInput("source-missing", path=path)
        files = record_files(path)
        if not files:
            return FolderSource(path, excludes=excludes)
    elif "*" in path:
        fs, pattern = url_to_fs(path)
        files = sorted(fs.glob(pattern))
        if is_remote(path):
            files = [str(fs.unstrip_protocol(file)) for file in files]
    else:
        files = [path]
    if not files or not exists(files[0]):
        raise BadInput("source-missing", path=path)
    if excludes and excludes.flags:
        raise BadInput("exclude-records", path=path)
    is_parquet = files[0].endswith(PARQUET_SUFFIXES)
    return FileSource(path, files, parquet_shards if is_parquet else tar_shards)


def record_files(folder: str) -> list[str]:
    """Return the tars or Parquet files that a folder consists of; none for one of pictures.

    Such a folder's top holds tars, or else Parquet files (img2dataset writes a Parquet file beside
    each tar), and neither pictures nor folders.
    """
    fs, root = url_to_fs(folder)
    if not fs.isdir(root):
        return []
    names = [name for name in list_files(folder) if not name.startswith(".") and "/" not in name]
    folders = [e["name"] for e in fs.ls(root, detail=True) if e["type"] == "directory"]
    has_folders = any(not base_name(name).startswith(".") for name in folders)
    if has_folders or any(map(has_image_suffix, names)):
        return []
    for suffixes in (TAR_SUFFIXES, PARQUET_SUFFIXES):
        if files := [join(folder, name) for name in names if name.endswith(suffixes)]:
            return files
    return []


@dataclass(frozen=True)
class FileSource:
    """Tars or Parquet files, which ``split`` cuts into shards."""

    path: str
    files: Sequence[str]
    split: Callable[[Iterable[str]], list[Shard]]

    def shards(self) -> list[Shard]:
        """Return the parts that a job is done in."""
        return self.split(self.files)


@dataclass(frozen=True)
class FolderSource:
    """A folder of pictures: ``files``, or every picture below it, about ``size`` in a shard.

    Without ``files``, what ``excludes`` says is left out.
    """

    path: str
    files: Sequence[ImageFile | BadImage] | None = None
    size: int = 0  # 0: as ``shard_size`` says
    excludes: Excludes | None = None

    def shards(self) -> list[Shard]:
        """Return shards of at most twice the size.

        Where one ends depends on names nearby alone, so that a file more or less changes a shard
        or two and not all behind it.
        """
        files = [*self._scan()] if self.files is None else self.files
        size = self.size or shard_size(len(files))
        min_size, start = max(1, size // 2), 0
        shards: list[Shard] = []
        for end, file in enumerate(files, 1):
            name = str(_facts(file)[0]).encode("utf-8", "surrogateescape")
            is_end = end - start >= min_size and crc32(name) % min_size == 0
            if is_end or end - start >= 2 * size or end == len(files):
                shards.append(FolderShard(self.path, tuple(files[start:end])))
                start = end
        return shards

    def _scan(self) -> Iterator[ImageFile | BadImage]:
        excludes = self.excludes or Excludes()
        if not is_remote(self.path):
            yield from walk(Path(self.path), excludes=excludes)
            return
        files = list_files(self.path, deep=True)
        excludes.clear()
        for path in files:
            folder, _, name = path.rpartition("/")
            if name == IGNORE_FILE:
                with open_file(join(self.path, path)) as stream:
                    excludes.add_file(stream.read(), f"{folder}/" if folder else "")
        for path, details in files.items():
            is_hidden = any(part.startswith(".") for part in path.split("/"))
            if has_image_suffix(path) and not is_hidden and not excludes.covers(path):
                yield ImageFile(path, int(details.get("size") or 0), _mtime_ns(details))


@dataclass(frozen=True)
class FolderShard:
    """Some files of a folder, in the folder's order, those among them that are no files too."""

    root: str
    files: tuple[ImageFile | BadImage, ...]

    @cached_property
    def name(self) -> str:
        """Return the shard's name."""
        return shard_name("files", map(_facts, self.files))

    @property
    def count(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def items(self) -> Iterator[Item]:
        """Yield the files; BadInput on a machine that does not see the folder."""
        if not is_remote(self.root) and not Path(self.root).is_dir():
            # Each file would count as a bad picture, and the shard as finished.
            raise BadInput("source-not-here", path=self.root, node=platform.node())
        for file in self.files:
            if isinstance(file, BadImage):
                yield Item(str(file.fields["path"]), error=file)
            else:
                path = join(self.root, file.path)
                yield Item(file.path, path, size=file.size, mtime_ns=file.mtime_ns)


def _facts(file: ImageFile | BadImage) -> tuple[str, object, object]:
    if isinstance(file, BadImage):
        return str(file.fields["path"]), file.code, 0
    return file.path, file.size, file.mtime_ns


def _mtime_ns(details: dict[str, object]) -> int:
    """Return a file's time from whatever the storage calls it; 0 where it does not say."""
    names = ("mtime", "LastModified", "updated")
    time = next((details[name] for name in names if details.get(name)), None)
    if isinstance(time, datetime):
        return int(time.timestamp()) * 10**9
    return int(time * 10**9) if isinstance(time, (int, float)) else 0


def parquet_shards(paths: Iterable[str]) -> list[Shard]:
    """Cut Parquet files; raise BadInput for a file that is none or lacks its columns."""
    counts = [(path, _count_rows(path)) for path in paths]
    step = shard_size(sum(rows for _, rows in counts))
    return [
        ParquetShard(path, file_size(path), start, min(start + step, rows))
        for path, rows in counts
        for start in range(0, rows, step)
    ]


def _count_rows(path: str) -> int:
    with open_file(path) as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise BadInput("source-unreadable", path=path, reason=reason) from error
        names = file.schema_arrow.names
        if BYTES not in names and PATH not in names:
            raise BadInput("parquet-columns", path=path, names=", ".join(names))
        return int(file.metadata.num_rows)


@dataclass(frozen=True)
class ParquetShard:
    """Rows ``start`` to ``stop`` of a Parquet file with paths of pictures or their bytes.

    Columns are ``bytes`` or ``image_path``, and perhaps ``caption``. With bytes a picture's key is
    its path where that column is there too, else ``file.parquet/row``; relative paths are looked
    up beside the file.
    """

    path: str
    size: int
    start: int
    stop: int

    @cached_property
    def name(self) -> str:
        """Return the shard's name."""
        label = base_name(self.path)
        return shard_name(label, (label, self.size, self.start, self.stop))

    @property
    def count(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start

    def items(self) -> Iterator[Item]:
        """Yield the rows' pictures; other row groups of the file are not read."""
        with open_file(self.path) as stream:
            file = pq.ParquetFile(stream)
            groups: list[int] = []
            first = start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if stop > self.start and start < self.stop:
                    first = first if groups else start
                    groups.append(group)
                start = stop
            if not groups:
                return
            columns = [n for n in (BYTES, PATH, CAPTION) if n in file.schema_arrow.names]
            batches = file.iter_batches(_READ_ROWS, groups, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, first):
                if self.start <= number < self.stop:
                    yield self._item(number, row)

    def _item(self, number: int, row: dict[str, Any]) -> Item:
        path, data = row.get(PATH), row.get(BYTES)
        key = path or f"{base_name(self.path)}/{number}"
        caption = (row.get(CAPTION) or "").strip()
        if data is not None:
            return Item(key, "", data, caption, len(data))
        if not path:
            return Item(key, caption=caption, error=BadImage("parquet-no-picture", path=key))
        if not is_remote(path) and not path.startswith("/"):
            path = join(self.path.rpartition("/")[0], path)
        return Item(key, path, caption=caption)


def tar_shards(paths: Iterable[str]) -> list[Shard]:
    """Return a shard for each tar."""
    return [TarShard(path, file_size(path)) for path in paths]


@dataclass(frozen=True)
class TarShard:
    """One tar of webdataset or img2dataset: a picture, its text and its JSON share a name.

    It is read once from front to back, as object storage likes it, and nothing is unpacked to a
    disk; a picture's key is ``shard.tar/name.jpg``.
    """

    path: str
    size: int
    count: None = None

    @cached_property
    def name(self) -> str:
        """Return the shard's name."""
        label = base_name(self.path)
        return shard_name(label, (label, self.size))

    def items(self) -> Iterator[Item]:
        """Yield the tar's pictures, and a bad item where it is damaged."""
        label = base_name(self.path)
        sample: dict[str, _Member] = {}
        stem = ""
        with open_file(self.path) as stream:
            try:
                for member, data in _members(stream):
                    path = PurePosixPath(member.name)
                    # What the files of a sample share: the name up to its first dot.
                    member_stem = str(path.with_name(path.name.partition(".")[0] or path.name))
                    if member_stem != stem:
                        yield from _sample_item(label, sample)
                        sample, stem = {}, member_stem
                    sample[member.name] = member, data
                yield from _sample_item(label, sample)
            except (tarfile.TarError, EOFError, DeflateError, OSError) as error:
                # What came before is whole; where the rest should be nobody can say.
                yield from _sample_item(label, sample)
                reason = " ".join(str(error).split()) or type(error).__name__
                yield Item(label, error=BadImage("tar-damaged", path=label, reason=reason))


def _members(stream: object) -> Iterator[_Member]:
    """Yield ordinary files that belong to a sample, with their bytes; none for too large ones."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:  # type: ignore[call-overload]
        for member in tar:
            is_image = has_image_suffix(member.name)
            if not member.isfile() or not (is_image or member.name.endswith((".txt", ".json"))):
                continue
            if member.size > (MAX_BYTES if is_image else _MAX_TEXT):
                yield member, b""
                continue
            file = tar.extractfile(member)
            if file is not None:
                yield member, file.read()
            tar.members = []  # else every header stays in memory to the end


def _sample_item(label: str, sample: dict[str, _Member]) -> Iterator[Item]:
    """Yield the sample's picture; nothing where it has none (a download that failed, say)."""
    image = next((name for name in sample if has_image_suffix(name)), None)
    if image is None:
        return
    member, data = sample[image]
    name = image.removeprefix("./")
    key = f"{label}/{name}"
    error = None
    if name.startswith("/") or ".." in name.split("/"):
        # A key is a path in the index, and others join it to a folder.
        key, error = label, BadImage("tar-name", path=label, name=image)
    elif not member.size:
        error = BadImage("image-empty", path=key)
    elif not data:
        error = BadImage("image-file-too-large", path=key, limit=MAX_BYTES)
    mtime_ns = int(member.mtime) * 10**9
    yield Item(key, "", data, _sample_caption(sample), member.size, mtime_ns, error)


def _sample_caption(sample: dict[str, _Member]) -> str:
    """Return the text beside the picture, else the JSON's ``caption``."""
    for name, (_, data) in sample.items():
        if name.endswith(".txt"):
            return data.decode("utf-8", "replace").strip()
    for name, (_, data) in sample.items():
        if name.endswith(".json"):
            try:
                fields = json.loads(data)
            except (ValueError, RecursionError):
                return ""
            caption = fields.get("caption") if isinstance(fields, dict) else None
            return caption.strip() if isinstance(caption, str) else ""
    return ""
