"""What a worker does: a whole shard, from its bytes to its finished file.

A shard is one call of one actor, because finishing it must be one act: Ray Data's own writers name
files by block and by attempt, so that a shard whose blocks went to several of them is neither
finished at one moment nor written once when a node is lost. The actor cuts the shard into chunks,
has them decoded by tasks anywhere in the cluster, at most ``ahead`` of them before it encodes the
first (so memory is bounded whatever a shard's size), encodes in the batches of a run on one
machine, and writes one file.
"""

from __future__ import annotations

import pickle
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import WorkerCrashedError

from soutu.distributed.shards import DeadLetter, EmbeddedRow, Item, Shard, ShardFolder
from soutu.errors import BadImage, ModelMismatch, SoutuError
from soutu.images.decode import MAX_PIXELS, content_hash, decode
from soutu.indexing.pipeline import ROOM
from soutu.models.base import Encoder
from soutu.models.preprocess import fit_picture
from soutu.store.base import NewImage
from soutu.types import ModelInfo, Rgb

CHUNK = 32  # pictures that one task decodes
CHUNK_BYTES = 64_000_000  # of files that it is handed
DECODING = 0.5  # of a core is what Ray counts for a task that decodes, and for an encoder on a CPU
RETRIES = 3


@dataclass(frozen=True)
class WorkerOptions:
    """What every worker is told. ``build`` makes the encoder, where the worker runs; ``card`` is
    what it must be; ``ahead`` chunks are decoded before one is encoded."""

    build: Callable[[], Encoder]
    info: ModelInfo
    folder: str
    max_pixels: int = MAX_PIXELS
    batch: int = 0
    ahead: int = 4


@dataclass(frozen=True)
class Chunk:
    """Decoded items in their order: rows and captions of the whole ones, their pixels (n, S, S, 3)
    uint8, the bad ones, and the seconds of a core that it took."""

    rows: list[NewImage]
    captions: list[str]
    pixels: Rgb
    letters: list[DeadLetter]
    seconds: float


def decode_chunk(items: list[Item], card: ModelInfo, max_pixels: int) -> Chunk:
    """Read, hash, decode and cut pictures, as ``indexing.pipeline`` does."""
    start = time.process_time()
    rows, captions, pixels, letters = [], [], [], []
    for item in items:
        try:
            item.key.encode()
            data = item.read()
            seen = decode(
                data,
                max_pixels=max_pixels,
                name=item.key,
                min_side=int(ROOM * card.image_size),
                transform=partial(fit_picture, info=card),
            )
        except BadImage as fault:
            letters.append(DeadLetter.of(item.key, fault))
        except UnicodeEncodeError:
            letters.append(DeadLetter.of(item.key, BadImage("key-not-text", path=item.key)))
        else:
            size, moment = item.size or len(data), item.mtime_ns
            whole = seen.width, seen.height, seen.taken
            rows.append(NewImage(item.key, size, moment, content_hash(data), *whole))
            captions.append(item.caption.encode("utf-8", "replace").decode())
            pixels.append(seen.rgb)
    side = card.image_size
    stack = np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)
    return Chunk(rows, captions, stack, letters, time.process_time() - start)


class Embedder:
    """The encoder of one worker; Ray Data calls it with one shard at a time."""

    def __init__(self, work: WorkerOptions) -> None:
        self._work, self._folder = work, ShardFolder(work.folder)
        task = ray.remote(num_cpus=DECODING, max_retries=RETRIES)(decode_chunk)
        self._decode = task.remote

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Embed ``row["shard"]``; returns its name, the pictures that were embedded now, the
        seconds of a core that they took, and what went wrong, pickled (Ray Data keeps of an
        exception no more than its text)."""
        shard: Shard = row["shard"]
        told: dict[str, Any] = {"name": shard.name, "encoded": 0, "seconds": 0.0, "fault": b""}
        told["began"] = time.time()
        # A worker that was lost may have come as far as this shard's file.
        if self._folder.has(shard.name):
            return told
        try:
            self._encoder  # noqa: B018  (loading it is no part of the work)
            start, told["began"] = time.process_time(), time.time()
            done = self._embed(shard.items())
            self._folder.write(shard.name, done.embedded)
        except SoutuError as fault:
            return told | {"fault": pickle.dumps(fault)}
        seconds = done.decoding + time.process_time() - start
        return told | {"encoded": len(done.embedded.images), "seconds": seconds}

    @cached_property
    def _encoder(self) -> Encoder:
        made, wanted = self._work.build(), self._work.info
        if made.info.fingerprint != wanted.fingerprint:
            raise ModelMismatch("shards-worker", model=wanted.name, node=platform.node())
        return made

    def _embed(self, items: Iterator[Item]) -> _Done:
        vectors = [np.empty((0, self._work.info.dim), np.float32)]
        rows: list[NewImage] = []
        captions: list[str] = []
        letters: list[DeadLetter] = []
        waiting: list[Rgb] = []
        decoding, batch = 0.0, self._work.batch or self._encoder.batch
        for chunk in self._chunks(items):
            rows += chunk.rows
            captions += chunk.captions
            letters += chunk.letters
            decoding += chunk.seconds
            waiting += [*chunk.pixels]
            while len(waiting) >= batch:
                vectors.append(self._encoder.encode_images(waiting[:batch]))
                waiting = waiting[batch:]
        if waiting:
            vectors.append(self._encoder.encode_images(waiting))
        return _Done(EmbeddedRow(rows, captions, np.concatenate(vectors), letters), decoding)

    def _chunks(self, items: Iterator[Item]) -> Iterator[Chunk]:
        ahead: deque[tuple[list[Item], Any]] = deque()
        for part in cut(items):
            if len(ahead) >= self._work.ahead:
                yield from self._taken(*ahead.popleft())
            ahead.append((part, self._ask(part)))
        while ahead:
            yield from self._taken(*ahead.popleft())

    def _ask(self, items: list[Item]) -> Any:  # noqa: ANN401  (a reference to a Chunk to be)
        return self._decode(items, self._work.info, self._work.max_pixels)

    def _taken(self, items: list[Item], asked: Any) -> Iterator[Chunk]:  # noqa: ANN401
        """The chunk; where decoding it kills its process again and again, its items one by one,
        so that a picture that crashes a decoder costs no other."""
        try:
            yield ray.get(asked)
        except WorkerCrashedError:
            if len(items) > 1:
                for item in items:
                    yield from self._taken([item], self._ask([item]))
                return
            key = items[0].key
            fault = Item(key, fault=BadImage("image-crashes", path=key))
            yield decode_chunk([fault], self._work.info, self._work.max_pixels)


@dataclass(frozen=True)
class _Done:
    embedded: EmbeddedRow
    decoding: float


def cut(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Chunks for one task each, small enough to be sent."""
    part: list[Item] = []
    carried = 0
    for item in items:
        weight = len(item.data or b"")
        if part and (len(part) == CHUNK or carried + weight > CHUNK_BYTES):
            yield part
            part, carried = [], 0
        part.append(item)
        carried += weight
    if part:
        yield part
