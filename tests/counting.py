"""An encoder that writes down what it encodes, for workers in other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from soutu.distributed.shards import Item, Shard
from soutu.factory import build_encoder
from soutu.types import Floats, Rgb


@dataclass(frozen=True)
class Counting:
    """Builds ``tiny``; each batch becomes a line in ``log``, and takes ``pause`` seconds more.

    After ``limit`` pictures each process waits until it is killed. ``pids`` lists them.
    """

    log: Path
    pause: float = 0.0
    limit: int | None = None

    def __call__(self) -> _Counted:
        return _Counted(self)

    def encoded(self) -> int:
        """Pictures so far, in all processes."""
        return sum(self._read(self.log))

    def pids(self) -> list[int]:
        """Processes that have built an encoder."""
        return self._read(self.log.with_suffix(".pids"))

    @staticmethod
    def append(file: Path, number: int) -> None:
        # One write of a line to a file opened for appending is not torn.
        line = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(line, f"{number}\n".encode())
        os.close(line)

    @staticmethod
    def _read(file: Path) -> list[int]:
        return [*map(int, file.read_text().split())] if file.exists() else []


class _Counted:
    max_concurrency = 1

    def __init__(self, counting: Counting) -> None:
        self._counting, self._inner = counting, build_encoder("tiny", "cpu", threads=1)
        self.info, self.batch = self._inner.info, self._inner.batch
        counting.append(counting.log.with_suffix(".pids"), os.getpid())

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        counting = self._counting
        while counting.limit is not None and counting.encoded() >= counting.limit:
            time.sleep(0.05)
        time.sleep(counting.pause)
        vectors = self._inner.encode_images(images)
        counting.append(counting.log, len(images))
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        return self._inner.encode_texts(texts)


@dataclass(frozen=True)
class Killer(Item):
    """A picture that crashes whatever process decodes it."""

    def read(self) -> NoReturn:
        os._exit(1)


@dataclass(frozen=True)
class Given:
    """A source of one shard with these items."""

    given: tuple[Item, ...]
    path: str = "/given"
    name: str = "given-1"
    count: None = None

    def shards(self) -> list[Shard]:
        return [self]

    def items(self) -> Iterator[Item]:
        return iter(self.given)
