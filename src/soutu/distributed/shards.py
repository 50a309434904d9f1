"""Finished shards: Parquet files in one folder, here or in object storage, and what they are of.

A shard's file is written whole or not at all, so its name alone says that it is finished: this is
the checkpoint of a job. What could not be read stands in the file's own metadata, so that pictures
and bad items of a shard become final in the same moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from soutu.distributed.filesystem import (
    exists,
    join,
    listed,
    open_file,
    read_image,
    remove,
    write_whole,
)
from soutu.errors import BadImage, BadInput, ModelMismatch, SoutuError
from soutu.store.base import NewImage
from soutu.types import Floats, ModelInfo

# A picture on its way to a worker, and shards: the parts that a job is done in.


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


MANIFEST, LETTERS = "manifest.json", "dead-letters.jsonl"
SUFFIX = ".parquet"
BAD = b"soutu.bad"
FORMAT = 1


@dataclass(frozen=True)
class DeadLetter:
    """An item that could not be embedded: its key, the error's code and its English wording;
    ``fields`` are the error's own, as texts."""

    key: str
    code: str
    message: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, key: str, error: SoutuError) -> DeadLetter:
        fields = {k: v if isinstance(v, (int, float)) else str(v) for k, v in error.fields.items()}
        return cls(key, error.code, error.message(), fields)


@dataclass(frozen=True)
class EmbeddedRow:
    """What a finished shard holds: rows, their captions ("" for none) and vectors (n, dim), in the
    source's order, and its bad items."""

    images: list[NewImage]
    captions: list[str]
    vectors: Floats
    letters: list[DeadLetter]


def to_bytes(shard: EmbeddedRow) -> bytes:
    """The shard's Parquet file."""
    rows, dim = shard.images, shard.vectors.shape[1]
    flat = pa.array(shard.vectors.reshape(-1), pa.float32())
    table = pa.table(
        {
            "key": pa.array([r.path for r in rows], pa.string()),
            "content": pa.array([r.content for r in rows], pa.binary(32)),
            "width": pa.array([r.width for r in rows], pa.int32()),
            "height": pa.array([r.height for r in rows], pa.int32()),
            "taken": pa.array([r.taken for r in rows], pa.string()),
            "caption": pa.array(shard.captions, pa.string()),
            "size": pa.array([r.size for r in rows], pa.int64()),
            "mtime_ns": pa.array([r.mtime_ns for r in rows], pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, dim),
        }
    )
    told = json.dumps([asdict(letter) for letter in shard.letters])
    sink = pa.BufferOutputStream()
    # Vectors look random: a dictionary or a compressor would only cost time.
    with_letters = table.replace_schema_metadata({BAD: told.encode()})
    pq.write_table(with_letters, sink, compression="none", use_dictionary=False)
    return bytes(sink.getvalue())


class ShardFolder:
    """The finished shards of one job."""

    def __init__(self, place: str) -> None:
        self.place = place

    def begin(self, source: str, model: str, card: ModelInfo) -> None:
        """Say what the shards are of, or check that it is what they are of. Raises ModelMismatch
        for another model, BadInput for another source or a newer form."""
        mine = {
            "format": FORMAT,
            "source": source,
            "model": model,
            "space": card.space,
            "fingerprint": card.fingerprint,
            "dim": card.dim,
        }
        path = join(self.place, MANIFEST)
        if not exists(path):
            write_whole(path, (json.dumps(mine, ensure_ascii=False, indent=2) + "\n").encode())
            return
        told = self._manifest(path)
        if told.get("format") != FORMAT:
            raise BadInput("shards-format", folder=self.place, format=told.get("format"))
        if (told["space"], told["fingerprint"]) != (card.space, card.fingerprint):
            named = {"known": told["model"], "model": model}
            raise ModelMismatch("shards-model", folder=self.place, **named)
        if told["source"] != source:
            raise BadInput("shards-source", folder=self.place, known=told["source"], source=source)

    def _manifest(self, path: str) -> dict[str, Any]:
        with open_file(path) as stream:
            try:
                told = json.load(stream)
                if not {"format", "source", "model", "space", "fingerprint"} <= {*told}:
                    raise ValueError("fields are missing")
            except (ValueError, TypeError) as fault:
                raise BadInput("shards-damaged", file=path, fault=fault) from fault
        return dict(told)

    def finished(self) -> set[str]:
        """Names of the shards that need no more work."""
        found = [name for name in listed(self.place) if name.endswith(SUFFIX)]
        return {n.removesuffix(SUFFIX) for n in found if not n.startswith(".")}

    def has(self, name: str) -> bool:
        return exists(self.path(name))

    def path(self, name: str) -> str:
        return join(self.place, name + SUFFIX)

    def write(self, name: str, shard: EmbeddedRow) -> None:
        write_whole(self.path(name), to_bytes(shard))

    def read(self, name: str) -> EmbeddedRow:
        """Raises BadInput for a file that is not as it was written."""
        path = self.path(name)
        with open_file(path) as stream:
            try:
                table = pq.read_table(stream)
                letters = _letters(table.schema.metadata)
                column = table.column("vector").combine_chunks()
                vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
                rows = table.drop_columns(["vector"]).to_pylist()
            except (pa.ArrowException, OSError, KeyError, ValueError) as fault:
                raise BadInput("shards-damaged", file=path, fault=fault) from fault
        return EmbeddedRow(
            [_row(row) for row in rows],
            [row["caption"] for row in rows],
            np.asarray(vectors, np.float32),
            letters,
        )

    def counted(self, name: str) -> tuple[int, list[DeadLetter]]:
        """How many pictures a finished shard holds, and its bad items; its vectors stay unread."""
        with open_file(self.path(name)) as stream:
            try:
                told = pq.ParquetFile(stream)
                return int(told.metadata.num_rows), _letters(told.schema_arrow.metadata)
            except (pa.ArrowException, OSError, ValueError) as fault:
                raise BadInput("shards-damaged", file=self.path(name), fault=fault) from fault

    def tidy(self, names: set[str]) -> None:
        """Remove shards of other ``names``, and what a worker that was killed left half-written."""
        for name in listed(self.place):
            left = name.startswith(".") and SUFFIX in name
            if left or (name.endswith(SUFFIX) and name.removesuffix(SUFFIX) not in names):
                remove(join(self.place, name))

    def write_letters(self, letters: Iterator[DeadLetter]) -> int:
        """Write all bad items to one file, a JSON object a line; returns how many there are."""
        kept = ({"key": x.key, "code": x.code, "message": x.message} for x in letters)
        lines = [json.dumps(row) + "\n" for row in kept]
        write_whole(join(self.place, LETTERS), "".join(lines).encode())
        return len(lines)


def _row(told: dict[str, Any]) -> NewImage:
    return NewImage(
        told["key"],
        told["size"],
        told["mtime_ns"],
        told["content"],
        told["width"],
        told["height"],
        told["taken"],
    )


def _letters(metadata: dict[bytes, bytes] | None) -> list[DeadLetter]:
    return [DeadLetter(**row) for row in json.loads((metadata or {}).get(BAD, b"[]"))]
