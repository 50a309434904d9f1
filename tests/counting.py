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
    """Builds ``tiny``; each batch becomes a line in ``log``, and takes ``pause`` seconds more."""

    log: Path
    pause: float = 0.0

    def __call__(self) -> _Counted:
        return _Counted(self)

    def encoded(self) -> int:
        """Pictures so far, in all processes."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


class _Counted:
    max_concurrency = 1

    def __init__(self, how: Counting) -> None:
        self._how, self._inner = how, build_encoder("tiny", "cpu", threads=1)
        self.info, self.batch = self._inner.info, self._inner.batch

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        time.sleep(self._how.pause)
        done = self._inner.encode_images(images)
        # One write of a line to a file opened for appending is not torn.
        line = os.open(self._how.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(line, f"{len(images)}\n".encode())
        os.close(line)
        return done

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
    place: str = "/given"
    name: str = "given-1"
    count: None = None

    def shards(self) -> list[Shard]:
        return [self]

    def items(self) -> Iterator[Item]:
        return iter(self.given)
