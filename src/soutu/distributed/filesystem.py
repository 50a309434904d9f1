"""Files here or in object storage, by path or by URL (``s3://…``, whatever fsspec knows)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

from soutu.errors import BadImage, BadInput
from soutu.fs import atomic_write
from soutu.images.decode import MAX_BYTES, read_file

TRIES, PAUSE = 3, 0.5  # of a remote read; seconds before the second, twice that before the third


def is_remote(place: str) -> bool:
    return "://" in place


def absolute(place: str) -> str:
    """``place`` as every process can open it, whatever folder that runs in."""
    return place if is_remote(place) else os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def name_of(place: str) -> str:
    """The last part of the path."""
    return place.rstrip("/").rpartition("/")[2]


def open_file(place: str) -> IO[bytes]:
    """A stream to read from. Raises BadInput for what cannot be opened."""
    with _reading(place):
        return cast("IO[bytes]", fsspec.open(place, "rb").open())


def read_image(place: str, shown: str) -> bytes:
    """The bytes of one picture's file; a remote one is tried again, because storage that is
    asked a million times fails sometimes. Raises BadImage."""
    if not is_remote(place):
        return read_file(Path(place), name=shown)
    for turn in range(TRIES):
        try:
            with fsspec.open(place, "rb") as stream:
                data = cast("bytes", stream.read(MAX_BYTES + 1))
            break
        except FileNotFoundError as fault:
            raise BadImage("image-unreadable", path=shown, reason=_reason(fault)) from fault
        except Exception as fault:
            if turn + 1 == TRIES:
                raise BadImage("image-unreadable", path=shown, reason=_reason(fault)) from fault
            time.sleep(PAUSE * 2**turn)
    if not data:
        raise BadImage("image-empty", path=shown)
    if len(data) > MAX_BYTES:
        raise BadImage("image-file-too-large", path=shown, limit=MAX_BYTES)
    return data


def listed(folder: str, *, deep: bool = False) -> dict[str, dict[str, Any]]:
    """Files below ``folder`` by their path in it, sorted, with what the storage tells of each.
    Raises BadInput for a folder that cannot be listed."""
    with _reading(folder):
        fs, root = url_to_fs(folder)
        found = fs.find(root, detail=True, maxdepth=None if deep else 1)
    prefix = root.rstrip("/") + "/"
    return {path.removeprefix(prefix): found[path] for path in sorted(found)}


def size_of(place: str) -> int:
    """Bytes of a file. Raises BadInput where it cannot be asked."""
    with _reading(place):
        fs, path = url_to_fs(place)
        return int(fs.size(path) or 0)


def exists(place: str) -> bool:
    """Raises BadInput where it cannot be asked."""
    with _reading(place):
        fs, path = url_to_fs(place)
        return bool(fs.exists(path))


def write_whole(place: str, data: bytes) -> None:
    """Either all of ``data`` is at ``place`` or what was there before: beside and renamed on a
    disk, one upload in object storage, where nothing shows before it is whole. Raises BadInput
    where it cannot be written."""
    with _writing(place):
        if is_remote(place):
            fs, path = url_to_fs(place)
            fs.makedirs(fs._parent(path), exist_ok=True)
            fs.pipe_file(path, data)
        else:
            target = Path(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as file:
                file.write(data)


def remove(place: str) -> None:
    """Raises BadInput where it is there and cannot be removed."""
    with _writing(place), suppress(FileNotFoundError):
        fs, path = url_to_fs(place)
        fs.rm_file(path)


@contextmanager
def _reading(place: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:  # each kind of storage has errors of its own
        raise BadInput("source-unreadable", place=place, reason=_reason(fault)) from fault


@contextmanager
def _writing(place: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        raise BadInput("shards-unwritable", place=place, reason=_reason(fault)) from fault


def _reason(fault: Exception) -> str:
    told = getattr(fault, "strerror", None) or " ".join(str(fault).split())
    return str(told or type(fault).__name__)
