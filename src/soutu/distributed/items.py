"""A picture on its way to a worker, and shards: the parts that a job is done in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from soutu.distributed.places import read_image
from soutu.errors import BadImage


@dataclass(frozen=True)
class Item:
    """One picture of a source. ``key`` names it in the index; its bytes are ``data``, or are read
    from ``place`` by whoever decodes it. ``size`` in bytes; ``mtime_ns`` 0 where nothing tells
    it; ``fault`` where it is known already that it cannot be read."""

    key: str
    place: str = ""
    data: bytes | None = None
    caption: str = ""
    size: int = 0
    mtime_ns: int = 0
    fault: BadImage | None = None

    def read(self) -> bytes:
        """Raises BadImage."""
        if self.fault is not None:
            raise self.fault
        return read_image(self.place, self.key) if self.data is None else self.data


class Shard(Protocol):
    """A part of a source that one worker embeds and that is finished as a whole; picklable."""

    @property
    def name(self) -> str:
        """The same for the same pictures, another when they change; a file's name."""
        ...

    @property
    def count(self) -> int | None:
        """How many items it has; None where only reading it would tell."""
        ...

    def items(self) -> Iterator[Item]:
        """Its pictures in a fixed order. Raises BadInput where the source as a whole cannot be
        read from this machine."""
        ...


class Source(Protocol):
    """Where pictures come from."""

    @property
    def place(self) -> str: ...

    def shards(self) -> list[Shard]: ...


def shard_name(label: str, facts: Iterable[object]) -> str:
    """``label`` as far as every storage takes it, and 64 bits of what ``facts`` say."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts:
        digest.update(repr(fact).encode("utf-8", "surrogateescape") + b"\0")
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in label)
    return f"{kept[:48]}-{digest.hexdigest()}"
