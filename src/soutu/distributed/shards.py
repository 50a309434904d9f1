"""Items, shards and sources of a job, and finished shards as Parquet files in one folder.

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
    list_files,
    open_file,
    read_image,
    remove,
    write_file,
)
from soutu.errors import BadImage, BadInput, ModelMismatch, SoutuError
from soutu.store.base import NewImage
from soutu.types import Floats, ModelInfo

MANIFEST, DEAD_LETTERS = "manifest.json", "dead-letters.jsonl"
SUFFIX = ".parquet"
FORMAT = 1
_BAD_ITEMS = b"soutu.bad"  # in a file's metadata


@dataclass(frozen=True)
class Item:
    """One picture of a source; ``key`` names it in the index.

    Its bytes are ``data``, or are read from ``path`` by whoever decodes it. ``mtime_ns`` is 0 where
    nothing tells it; ``error`` says that it is known already not to be readable.
    """

    key: str
    path: str = ""
    data: bytes | None = None
    caption: str = ""
    size: int = 0
    mtime_ns: int = 0
    error: BadImage | None = None

    def read(self) -> bytes:
        """Return the file's bytes, or raise BadImage."""
        if self.error is not None:
            raise self.error
        return read_image(self.path, self.key) if self.data is None else self.data


class Shard(Protocol):
    """A part of a source that one worker embeds and that is finished as a whole; picklable."""

    @property
    def name(self) -> str:
        """Return a file's name: the same for the same pictures, another when they change."""
        ...

    @property
    def count(self) -> int | None:
        """Return how many items it has; None where only reading it would tell."""
        ...

    def items(self) -> Iterator[Item]:
        """Yield its pictures in a fixed order; BadInput if this machine cannot read the source."""
        ...


class Source(Protocol):
    """Where pictures come from."""

    @property
    def path(self) -> str:
        """Return the path or URL that names it."""
        ...

    def shards(self) -> list[Shard]:
        """Return the parts that a job is done in."""
        ...


def shard_name(label: str, facts: Iterable[object]) -> str:
    """Return ``label`` as far as every storage takes it, and 64 bits of a hash of ``facts``."""
    hasher = hashlib.blake2b(digest_size=8)
    for fact in facts:
        hasher.update(repr(fact).encode("utf-8", "surrogateescape") + b"\0")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in label)
    return f"{safe[:48]}-{hasher.hexdigest()}"


@dataclass(frozen=True)
class DeadLetter:
    """An item that could not be embedded: its key, the error's code, English text and fields."""

    key: str
    code: str
    message: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, key: str, error: SoutuError) -> DeadLetter:
        """Return the dead letter of the item ``key``."""
        fields = {k: v if isinstance(v, (int, float)) else str(v) for k, v in error.fields.items()}
        return cls(key, error.code, error.message(), fields)


@dataclass(frozen=True)
class ShardData:
    """What a finished shard holds, in the source's order, and its bad items.

    ``captions`` are "" for none, ``vectors`` float32 (n, dim).
    """

    images: list[NewImage]
    captions: list[str]
    vectors: Floats
    dead_letters: list[DeadLetter]


class ShardFolder:
    """The finished shards of one job, in a folder or at a URL."""

    def __init__(self, path: str) -> None:
        self.path = path

    def begin(self, source: str, model: str, info: ModelInfo) -> None:
        """Write what the shards are of, or check that it is what they are of.

        Raises
        ------
        BadInput
            They are of another source, or of a newer format.
        ModelMismatch
            They are of another model.
        """
        path = join(self.path, MANIFEST)
        if not exists(path):
            manifest = {
                "format": FORMAT,
                "source": source,
                "model": model,
                "space": info.space,
                "fingerprint": info.fingerprint,
                "dim": info.dim,
            }
            text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
            write_file(path, text.encode())
            return
        with open_file(path) as stream:
            try:
                manifest = json.load(stream)
                if not {"format", "source", "model", "space", "fingerprint"} <= {*manifest}:
                    raise ValueError("fields are missing")
                known = str(manifest["source"])
            except (ValueError, TypeError) as error:
                raise BadInput("shards-damaged", file=path, error=error) from error
        if manifest["format"] != FORMAT:
            raise BadInput("shards-format", folder=self.path, format=manifest["format"])
        if (manifest["space"], manifest["fingerprint"]) != (info.space, info.fingerprint):
            models = {"known": manifest["model"], "model": model}
            raise ModelMismatch("shards-model", folder=self.path, **models)
        if known != source:
            raise BadInput("shards-source", folder=self.path, known=known, source=source)

    def finished_names(self) -> set[str]:
        """Return the names of the shards that need no more work."""
        names = {name for name in list_files(self.path) if not name.startswith(".")}
        return {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)}

    def is_finished(self, name: str) -> bool:
        """Tell whether the shard ``name`` needs no more work."""
        return exists(self._file(name))

    def write(self, name: str, shard: ShardData) -> None:
        """Write the file of a finished shard."""
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
        bad_items = json.dumps([asdict(letter) for letter in shard.dead_letters]).encode()
        table = table.replace_schema_metadata({_BAD_ITEMS: bad_items})
        sink = pa.BufferOutputStream()
        # Vectors look random: a dictionary or a compressor would only cost time.
        pq.write_table(table, sink, compression="none", use_dictionary=False)
        write_file(self._file(name), bytes(sink.getvalue()))

    def read(self, name: str) -> ShardData:
        """Read a finished shard; raise BadInput for a file that is not as it was written."""
        path = self._file(name)
        with open_file(path) as stream:
            try:
                table = pq.read_table(stream)
                dead_letters = _dead_letters(table.schema.metadata)
                column = table.column("vector").combine_chunks()
                vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
                rows = table.drop_columns(["vector"]).to_pylist()
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise BadInput("shards-damaged", file=path, error=error) from error
        captions = [row["caption"] for row in rows]
        fields = ("key", "size", "mtime_ns", "content", "width", "height", "taken")
        images = [NewImage(*(row[field] for field in fields)) for row in rows]
        return ShardData(images, captions, np.asarray(vectors, np.float32), dead_letters)

    def summary(self, name: str) -> tuple[int, list[DeadLetter]]:
        """Return how many pictures a finished shard holds, and its bad items."""
        path = self._file(name)
        with open_file(path) as stream:
            try:
                file = pq.ParquetFile(stream)  # whose vectors stay unread
                return int(file.metadata.num_rows), _dead_letters(file.schema_arrow.metadata)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise BadInput("shards-damaged", file=path, error=error) from error

    def clean_up(self, names: set[str]) -> None:
        """Remove shards of other ``names``, and what a killed worker left half-written."""
        for name in list_files(self.path):
            is_unfinished = name.endswith(".new") or name.startswith(".")  # the second: by 0.1
            is_shard = name.endswith(SUFFIX)
            if (is_unfinished and SUFFIX in name) or (
                is_shard and name.removesuffix(SUFFIX) not in names
            ):
                remove(join(self.path, name))

    def write_dead_letters(self, dead_letters: Iterable[DeadLetter]) -> None:
        """Write all bad items to one file, a JSON object a line."""
        rows = ({"key": x.key, "code": x.code, "message": x.message} for x in dead_letters)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_file(join(self.path, DEAD_LETTERS), lines.encode())

    def _file(self, name: str) -> str:
        return join(self.path, name + SUFFIX)


def _dead_letters(metadata: dict[bytes, bytes] | None) -> list[DeadLetter]:
    return [DeadLetter(**row) for row in json.loads((metadata or {}).get(_BAD_ITEMS, b"[]"))]
