"""Tars as webdataset and img2dataset write them: a picture, its text and its JSON share a name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from zlib import error as BadDeflate

from soutu.distributed.items import Item, Shard, shard_name
from soutu.distributed.places import name_of, opened, size_of
from soutu.errors import BadImage
from soutu.sources.decode import MAX_BYTES
from soutu.sources.images import has_image_suffix

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
        with opened(self.place) as stream:
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
