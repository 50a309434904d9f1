"""Send pictures as files: only indexed ones, only from inside the gallery, and thumbnails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from soutu.errors import BadImage
from soutu.fs import atomic_write, open_beneath
from soutu.images.decode import format_of
from soutu.server.exceptions import NotFound

MAX_FILE_BYTES = 300_000_000  # of a file that is converted
CHUNK_BYTES = 262_144  # of a file, in memory at a time
BROWSER_TYPES = (
    "image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp",
)  # fmt: skip
"""What browsers show; all else is turned into WebP."""
MEDIA_TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "AVIF": "image/avif", "BMP": "image/bmp", "TIFF": "image/tiff", "JPEG2000": "image/jp2",
    "PPM": "image/x-portable-anymap", "HEIF": "image/heic",
}  # fmt: skip
WEBP, MAX_WEBP_SIDE = "image/webp", 16_000  # pixels that a WebP can have along a side
ORIGINAL_QUALITY, THUMBNAIL_QUALITY = 85, 80
PRUNE_EVERY = 500  # new thumbnails
MAX_LOCKS = 10_000


@dataclass(frozen=True)
class MediaFile:
    """What a browser gets."""

    data: bytes
    media_type: str
    etag: str


@dataclass(frozen=True)
class GalleryFile:
    """A file of the gallery: opened, so that what was checked is what is read."""

    path: Path
    stream: BinaryIO
    status: os.stat_result

    def __enter__(self) -> GalleryFile:
        """Close the file at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.stream.close()

    @property
    def etag(self) -> str:
        """Name the content without reading it."""
        return _etag(self, "")

    def media_type(self) -> str:
        """Return the type, by the content: a name proves nothing; "" for what is no picture."""
        self.stream.seek(0)
        return MEDIA_TYPES.get(format_of(self.stream.read(64)) or "", "")

    def read(self) -> bytes:
        """Read all of it; BadImage where it is empty or too long."""
        if self.status.st_size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES
            raise BadImage("image-file-too-large", path=self.path.name, limit=limit)
        self.stream.seek(0)
        data = self.stream.read(MAX_FILE_BYTES)
        if not data:
            raise BadImage("image-empty", path=self.path.name)
        return data

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from ``start`` to ``stop`` as they are sent; then close."""
        with self.stream as stream:
            stream.seek(start)
            while start < stop:
                data = await asyncio.to_thread(stream.read, min(CHUNK_BYTES, stop - start))
                if not data:  # cut short meanwhile: the client sees that some is missing
                    return
                start += len(data)
                yield data


def open_inside(root: Path, paths: Sequence[str], image_id: int) -> GalleryFile:
    """Open the first of ``paths`` that is a file inside ``root``, wherever links lead.

    Raises
    ------
    NotFound
        Where none is.
    """
    top = os.path.realpath(root)
    for path in paths:
        with suppress(ValueError, OSError):
            real = os.path.realpath(root / path)
            if os.path.commonpath([top, real]) == top:
                # Resolved once: a link that takes a folder's place from now on is not followed.
                handle = open_beneath(top, Path(real).relative_to(top).parts)
                return GalleryFile(Path(real), open(handle, "rb"), os.fstat(handle))
    raise NotFound("server-file-gone", id=image_id)


def _etag(file: GalleryFile, variant: str) -> str:
    status = file.status
    key = f"{file.path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0{variant}"
    return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


class ThumbnailCache:
    """WebP files in ``folder`` (0700), upright, about ``max_bytes`` of them at most.

    The least recently used go first. A file that changes has another thumbnail. ``convert`` makes
    WebP of a file, with a longest side and a quality.
    """

    def __init__(
        self, folder: Path, max_bytes: int, convert: Callable[[GalleryFile, int, int], bytes]
    ) -> None:
        self._folder, self._max_bytes, self._convert = folder, max_bytes, convert
        self._lock, self._locks = Lock(), dict[str, Lock]()
        self._count = 0

    def etag(self, file: GalleryFile, side: int) -> str:
        """Name the thumbnail without making it."""
        return _etag(file, str(side))

    def get(self, file: GalleryFile, side: int) -> MediaFile:
        """Return the thumbnail whose longer side has at most ``side`` pixels, made once.

        Raises
        ------
        BadImage
            As ``decode``.
        """
        etag = self.etag(file, side)
        cached = self._folder / etag[:2] / f"{etag}.webp"
        with self._lock:  # few and small: they go all together
            if len(self._locks) > MAX_LOCKS:
                self._locks.clear()
            lock = self._locks.setdefault(etag, Lock())
        with lock:
            data = b""
            with suppress(OSError):
                data = cached.read_bytes()
                os.utime(cached)
            if not data:
                data = self._convert(file, side, THUMBNAIL_QUALITY)
                self._store(cached, data)
        return MediaFile(data, WEBP, etag)

    def _store(self, cached: Path, data: bytes) -> None:
        with suppress(OSError):  # a disk that is full or read-only costs time, not answers
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            cached.parent.mkdir(exist_ok=True, mode=0o700)
            with atomic_write(cached, private=True, durable=False) as output:
                output.write(data)
        with self._lock:
            self._count += 1
            due = self._count % PRUNE_EVERY == 0
        if due:
            self.prune()

    def prune(self) -> None:
        """Remove the least recently used beyond ``max_bytes``."""
        files = []
        for file in self._folder.glob("??/*"):
            with suppress(OSError):
                stat = file.stat()
                files.append((stat.st_mtime, stat.st_size, file))
        room = self._max_bytes
        for _, size, file in sorted(files, reverse=True):
            room -= size
            if room < 0:
                with suppress(OSError):
                    file.unlink()
