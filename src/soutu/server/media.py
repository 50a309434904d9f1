"""Pictures as files: only indexed ones, only from inside the gallery, and small ones of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from threading import Lock

from PIL import Image

from soutu.errors import BadImage
from soutu.images.decode import decode, format_of, read_file
from soutu.server.exceptions import NotFound

LARGEST = 300_000_000  # bytes of a file that is sent as it is
SHOWN = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "AVIF": "image/avif", "BMP": "image/bmp",
}  # fmt: skip
"""What browsers show; all else is turned into WebP."""
WEBP, WIDEST = "image/webp", 16_000  # pixels that a WebP can have along a side
_OFTEN = 500  # thumbnails between two looks at how much room they take


@dataclass(frozen=True)
class SentFile:
    data: bytes
    kind: str
    etag: str


def inside(root: Path, paths: Sequence[str], id_: int) -> Path:
    """The first of ``paths`` that is a file inside ``root``, wherever links may lead. NotFound
    where none is."""
    top = os.path.realpath(root)
    for path in paths:
        real = os.path.realpath(root / path)
        with suppress(ValueError, OSError):
            if os.path.commonpath([top, real]) == top and Path(real).is_file():
                return Path(real)
    raise NotFound("server-file-gone", id=id_)


def original(file: Path, max_pixels: int) -> SentFile:
    """The file as it is, if browsers show its kind. By its content: a name proves nothing.
    Raises BadImage for what is no picture (any more)."""
    data = read_file(file, name=file.name, max_bytes=LARGEST)
    kind = SHOWN.get(format_of(data[:64]) or "")
    etag = blake2b(data, digest_size=16).hexdigest()
    if kind:
        return SentFile(data, kind, etag)
    shown = decode(data, max_pixels=max_pixels, name=file.name).rgb
    return SentFile(_webp(Image.fromarray(shown), WIDEST, 85), WEBP, etag)


class Thumbnails:
    """WebP, upright, made once and kept in ``folder`` (0700), at most about ``most`` bytes: those
    that were not asked for longest go first. A file that changes has another thumbnail."""

    def __init__(self, folder: Path, most: int, max_pixels: int) -> None:
        self._folder, self._most, self._pixels = folder, most, max_pixels
        self._lock, self._locks = Lock(), dict[str, Lock]()
        self._made = 0

    def etag(self, file: Path, side: int) -> str:
        """Names the thumbnail without making it; NotFound where the file is gone."""
        try:
            known = file.stat()
        except OSError as fault:
            raise NotFound("server-file-gone", id=file.name) from fault
        told = f"{file}\0{known.st_size}\0{known.st_mtime_ns}\0{side}"
        return blake2b(told.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def get(self, file: Path, side: int) -> SentFile:
        """``side``: pixels of its longer side at most. Raises BadImage as ``decode``."""
        etag = self.etag(file, side)
        kept = self._folder / etag[:2] / f"{etag}.webp"
        with self._one(etag):
            data = _read(kept)
            if data is None:
                data = self._make(file, side)
                self._keep(kept, data)
        return SentFile(data, WEBP, etag)

    def _one(self, etag: str) -> Lock:
        """One lock for each that is being made; they are few and small, and go with the others."""
        with self._lock:
            if len(self._locks) > 10_000:
                self._locks.clear()
            return self._locks.setdefault(etag, Lock())

    def _make(self, file: Path, side: int) -> bytes:
        rgb = decode(file, max_pixels=self._pixels, name=file.name, min_side=side).rgb
        return _webp(Image.fromarray(rgb), side, 80)

    def _keep(self, kept: Path, data: bytes) -> None:
        """A disk that is full or read-only costs time, not answers."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept.parent.mkdir(exist_ok=True, mode=0o700)
            beside = kept.with_name(f"{kept.stem}.{secrets.token_hex(4)}")
            beside.write_bytes(data)
            beside.replace(kept)
        with self._lock:
            self._made += 1
            due = self._made % _OFTEN == 0
        if due:
            self.prune()

    def prune(self) -> None:
        """Forget the least recent ones beyond the room there is."""
        found = []
        for file in self._folder.glob("??/*"):
            with suppress(OSError):
                known = file.stat()
                found.append((known.st_mtime, known.st_size, file))
        room = self._most
        for _, size, file in sorted(found, reverse=True):
            room -= size
            if room < 0:
                with suppress(OSError):
                    file.unlink()


def _read(kept: Path) -> bytes | None:
    try:
        data = kept.read_bytes()
        os.utime(kept)
    except OSError:
        return None
    return data or None


def _webp(image: Image.Image, side: int, quality: int) -> bytes:
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    kept = BytesIO()
    try:
        image.save(kept, "WEBP", quality=quality, method=2)
    except (OSError, ValueError) as fault:  # one pixel high and very wide, say
        raise BadImage("image-damaged", path="", reason=str(fault)) from fault
    return kept.getvalue()
