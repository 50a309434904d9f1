"""Send pictures as files: only indexed ones, only from inside the gallery, and thumbnails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from threading import Lock

from PIL import Image

from soutu.errors import BadImage
from soutu.fs import atomic_write
from soutu.images.decode import decode, format_of, read_file
from soutu.server.exceptions import NotFound

MAX_FILE_BYTES = 300_000_000  # of a file that is sent as it is
BROWSER_TYPES = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "AVIF": "image/avif", "BMP": "image/bmp",
}  # fmt: skip
"""What browsers show; all else is turned into WebP."""
WEBP, MAX_WEBP_SIDE = "image/webp", 16_000  # pixels that a WebP can have along a side
PRUNE_EVERY = 500  # new thumbnails
MAX_LOCKS = 10_000


@dataclass(frozen=True)
class MediaFile:
    """What a browser gets."""

    data: bytes
    media_type: str
    etag: str


def file_inside(root: Path, paths: Sequence[str], image_id: int) -> Path:
    """Return the first of ``paths`` that is a file inside ``root``, wherever links lead.

    Raises
    ------
    NotFound
        Where none is.
    """
    top = os.path.realpath(root)
    for path in paths:
        real = os.path.realpath(root / path)
        with suppress(ValueError, OSError):
            if os.path.commonpath([top, real]) == top and Path(real).is_file():
                return Path(real)
    raise NotFound("server-file-gone", id=image_id)


def read_original(file: Path, max_pixels: int) -> MediaFile:
    """Read a file as it is if browsers show its format, by its content: a name proves nothing.

    Raises
    ------
    BadImage
        For what is no picture (any more).
    """
    data = read_file(file, name=file.name, max_bytes=MAX_FILE_BYTES)
    etag = blake2b(data, digest_size=16).hexdigest()
    media_type = BROWSER_TYPES.get(format_of(data[:64]) or "")
    if media_type:
        return MediaFile(data, media_type, etag)
    rgb = decode(data, max_pixels=max_pixels, name=file.name).rgb
    return MediaFile(_encode_webp(Image.fromarray(rgb), MAX_WEBP_SIDE, 85), WEBP, etag)


class ThumbnailCache:
    """WebP files in ``folder`` (0700), upright, about ``max_bytes`` of them at most.

    The least recently used go first. A file that changes has another thumbnail.
    """

    def __init__(self, folder: Path, max_bytes: int, max_pixels: int) -> None:
        self._folder, self._max_bytes, self._max_pixels = folder, max_bytes, max_pixels
        self._lock, self._locks = Lock(), dict[str, Lock]()
        self._count = 0

    def etag(self, file: Path, side: int) -> str:
        """Name the thumbnail without making it; NotFound where the file is gone."""
        try:
            stat = file.stat()
        except OSError as error:
            raise NotFound("server-file-gone", id=file.name) from error
        key = f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{side}"
        return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def get(self, file: Path, side: int) -> MediaFile:
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
                pixels = self._max_pixels
                rgb = decode(file, max_pixels=pixels, name=file.name, min_side=side).rgb
                data = _encode_webp(Image.fromarray(rgb), side, 80)
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


def _encode_webp(image: Image.Image, side: int, quality: int) -> bytes:
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    try:
        image.save(buffer, "WEBP", quality=quality, method=2)
    except (OSError, ValueError) as error:  # one pixel high and very wide, say
        raise BadImage("image-damaged", path="", reason=str(error)) from error
    return buffer.getvalue()
