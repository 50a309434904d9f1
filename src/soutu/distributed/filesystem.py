"""Read and write files here or in object storage, by path or by URL (``s3://…``), with fsspec."""

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
from soutu.fs import FileTooLarge, atomic_write, read_stream
from soutu.images.decode import MAX_BYTES, read_file

TRIES, PAUSE = 3, 0.5  # of a remote read; seconds before the second, twice that before the third


def is_remote(path: str) -> bool:
    """Tell whether ``path`` is a URL."""
    return "://" in path


def absolute(path: str) -> str:
    """Return ``path`` as every process can open it, whatever folder that runs in."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


def join(folder: str, name: str) -> str:
    """Return the path of ``name`` in ``folder``."""
    return f"{folder.rstrip('/')}/{name}"


def base_name(path: str) -> str:
    """Return the last part of the path."""
    return path.rstrip("/").rpartition("/")[2]


def open_file(path: str) -> IO[bytes]:
    """Open a stream to read from; raise BadInput for what cannot be opened."""
    with _translate_errors("source-unreadable", path):
        return cast("IO[bytes]", fsspec.open(path, "rb").open())


def read_image(path: str, name: str) -> bytes:
    """Read one picture's file, which errors call ``name``.

    A remote file is tried again, because storage that is asked a million times fails sometimes.

    Raises
    ------
    BadImage
        It cannot be read, is empty or too large.
    """
    if not is_remote(path):
        return read_file(Path(path), name=name)
    for attempt in range(TRIES):
        try:
            with fsspec.open(path, "rb") as stream:
                data = read_stream(stream, getattr(stream, "size", None) or 0, MAX_BYTES)
            break
        except FileTooLarge:
            raise BadImage("image-file-too-large", path=name, limit=MAX_BYTES) from None
        except Exception as error:
            if isinstance(error, FileNotFoundError) or attempt + 1 == TRIES:
                raise BadImage("image-unreadable", path=name, reason=_reason(error)) from error
            time.sleep(PAUSE * 2**attempt)
    if not data:
        raise BadImage("image-empty", path=name)
    return data


def list_files(folder: str, *, deep: bool = False) -> dict[str, dict[str, Any]]:
    """Return the files below ``folder``, sorted by path, with what the storage says of each."""
    with _translate_errors("source-unreadable", folder):
        fs, root = url_to_fs(folder)
        files = fs.find(root, detail=True, maxdepth=None if deep else 1)
    prefix = root.rstrip("/") + "/"
    return {path.removeprefix(prefix): files[path] for path in sorted(files)}


def file_size(path: str) -> int:
    """Return the bytes of a file."""
    with _translate_errors("source-unreadable", path):
        fs, inner = url_to_fs(path)
        return int(fs.size(inner) or 0)


def exists(path: str) -> bool:
    """Tell whether there is a file or folder."""
    with _translate_errors("source-unreadable", path):
        fs, inner = url_to_fs(path)
        return bool(fs.exists(inner))


def write_file(path: str, data: bytes) -> None:
    """Write ``data`` to ``path`` as a whole, or leave what was there before.

    On a disk it is written beside and renamed; in object storage it is one upload, where nothing
    shows before it is whole.
    """
    with _translate_errors("shards-unwritable", path):
        if is_remote(path):
            fs, inner = url_to_fs(path)
            fs.makedirs(fs._parent(inner), exist_ok=True)
            fs.pipe_file(inner, data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(data)


def remove(path: str) -> None:
    """Remove a file; it may be gone already."""
    with _translate_errors("shards-unwritable", path), suppress(FileNotFoundError):
        fs, inner = url_to_fs(path)
        fs.rm_file(inner)


@contextmanager
def _translate_errors(code: str, path: str) -> Iterator[None]:
    """Raise BadInput for any error: each kind of storage has its own."""
    try:
        yield
    except Exception as error:
        raise BadInput(code, path=path, reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(text or type(error).__name__)
