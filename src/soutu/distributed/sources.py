"""What a source's name stands for: a folder of pictures, tars or Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fsspec.core import url_to_fs

from soutu.distributed.folders import FolderSource
from soutu.distributed.items import Shard, Source
from soutu.distributed.parquet import parquet_shards
from soutu.distributed.places import absolute, exists, is_remote, join, listed
from soutu.distributed.tars import tar_shards
from soutu.errors import BadInput
from soutu.sources.images import has_image_suffix

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
