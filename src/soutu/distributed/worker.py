"""Embed a whole shard, from its bytes to its finished file.

A shard is one call of one actor, because finishing it must be one act: Ray Data's own writers name
files by block and by attempt, so that a shard whose blocks went to several of them is neither
finished at one moment nor written once when a node is lost. The actor cuts the shard into chunks,
has them decoded by tasks anywhere in the cluster, a few ahead of the one that it encodes (so memory
is bounded whatever a shard's size), encodes in the batches of a run on one machine, and writes one
file.
"""

from __future__ import annotations

import pickle
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import WorkerCrashedError

from soutu.distributed.shards import DeadLetter, Item, Shard, ShardData, ShardFolder
from soutu.errors import BadImage, ModelMismatch, SoutuError
from soutu.images.decode import MAX_PIXELS, content_hash, decode
from soutu.images.noise import silence_libraries
from soutu.indexing.pipeline import ROOM
from soutu.models.base import Encoder
from soutu.models.preprocess import fit_picture
from soutu.store.base import NewImage
from soutu.types import ModelInfo, Rgb

CHUNK = 32  # pictures that one task decodes
CHUNK_BYTES = 64_000_000  # of files that it is handed
CHUNKS_AHEAD = 4  # are decoded before one is encoded
TASK_CPUS = 0.5  # what Ray counts for a task that decodes, and for an encoder on a CPU
RETRIES = 3


@dataclass(frozen=True)
class WorkerOptions:
    """What every worker gets: ``build`` makes its encoder there, ``info`` is what that must be."""

    build: Callable[[], Encoder]
    info: ModelInfo
    folder: str
    max_pixels: int = MAX_PIXELS
    batch: int = 0


@dataclass(frozen=True)
class Chunk:
    """Decoded items in their order: the good ones, the bad ones, the seconds of a core it took.

    ``pixels`` are uint8 (n, side, side, 3).
    """

    images: list[NewImage]
    captions: list[str]
    pixels: Rgb
    dead_letters: list[DeadLetter]
    seconds: float


class Embedder:
    """The encoder of one worker; Ray Data calls it with one shard at a time."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options, self._folder = options, ShardFolder(options.folder)
        task = ray.remote(num_cpus=TASK_CPUS, max_retries=RETRIES)(decode_chunk)
        self._decode = task.remote

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Embed ``row["shard"]``.

        Returns
        -------
        dict
            Its ``name``; ``encoded``, the pictures that were embedded now; ``seconds`` of a core
            that they took; ``began``, when; and ``error``, pickled, because Ray Data keeps of an
            exception no more than its text.
        """
        shard: Shard = row["shard"]
        result = {"name": shard.name, "encoded": 0, "seconds": 0.0, "error": b""}
        result["began"] = time.time()
        # A worker that was lost may have come as far as this shard's file.
        if self._folder.is_finished(shard.name):
            return result
        try:
            self._encoder  # noqa: B018  (loading it is no part of the work)
            start, result["began"] = time.process_time(), time.time()
            data, decoding = self._embed(shard.items())
            self._folder.write(shard.name, data)
        except SoutuError as error:
            return result | {"error": pickle.dumps(error)}
        seconds = decoding + time.process_time() - start
        return result | {"encoded": len(data.images), "seconds": seconds}

    @cached_property
    def _encoder(self) -> Encoder:
        encoder, info = self._options.build(), self._options.info
        if encoder.info.fingerprint != info.fingerprint:
            raise ModelMismatch("shards-worker", model=info.name, node=platform.node())
        return encoder

    def _embed(self, items: Iterable[Item]) -> tuple[ShardData, float]:
        """Return the shard's content, and the seconds of a core that decoding took."""
        data = ShardData([], [], np.empty((0, self._options.info.dim), np.float32), [])
        vectors = [data.vectors]
        pixels: list[Rgb] = []
        decoding, batch = 0.0, self._options.batch or self._encoder.batch
        for chunk in self._decode_ahead(items):
            data.images.extend(chunk.images)
            data.captions.extend(chunk.captions)
            data.dead_letters.extend(chunk.dead_letters)
            decoding += chunk.seconds
            pixels.extend(chunk.pixels)  # += would add numbers
            while len(pixels) >= batch:
                vectors.append(self._encoder.encode_images(pixels[:batch]))
                pixels = pixels[batch:]
        if pixels:
            vectors.append(self._encoder.encode_images(pixels))
        return replace(data, vectors=np.concatenate(vectors)), decoding

    def _decode_ahead(self, items: Iterable[Item]) -> Iterator[Chunk]:
        tasks: deque[tuple[list[Item], Any]] = deque()
        for part in _split(items):
            if len(tasks) >= CHUNKS_AHEAD:
                yield from self._wait_for(*tasks.popleft())
            tasks.append((part, self._start(part)))
        while tasks:
            yield from self._wait_for(*tasks.popleft())

    def _start(self, items: list[Item]) -> Any:  # noqa: ANN401  (a reference to a Chunk to be)
        return self._decode(items, self._options.info, self._options.max_pixels)

    def _wait_for(self, items: list[Item], task: Any) -> Iterator[Chunk]:  # noqa: ANN401
        """Yield the chunk; where decoding it kills its process again and again, its items alone.

        So a picture that crashes a decoder costs no other.
        """
        try:
            yield ray.get(task)
        except WorkerCrashedError:
            if len(items) > 1:
                for item in items:
                    yield from self._wait_for([item], self._start([item]))
                return
            key = items[0].key
            crashed = Item(key, error=BadImage("image-crashes", path=key))
            yield decode_chunk([crashed], self._options.info, self._options.max_pixels)


def _split(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut items into parts for one task each, small enough to be sent."""
    part: list[Item] = []
    size = 0
    for item in items:
        item_size = len(item.data or b"")
        if part and (len(part) == CHUNK or size + item_size > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += item_size
    if part:
        yield part


def decode_chunk(items: list[Item], info: ModelInfo, max_pixels: int) -> Chunk:
    """Read, hash, decode and crop pictures, as ``indexing.pipeline`` does."""
    silence_libraries()
    start = time.process_time()
    images, captions, pixels, dead_letters = [], [], [], []
    for item in items:
        try:
            item.key.encode()
            data = item.read()
            image = decode(
                data,
                max_pixels=max_pixels,
                name=item.key,
                min_side=int(ROOM * info.image_size),
                transform=partial(fit_picture, info=info),
            )
        except BadImage as error:
            dead_letters.append(DeadLetter.of(item.key, error))
        except UnicodeEncodeError:
            dead_letters.append(DeadLetter.of(item.key, BadImage("key-not-text", path=item.key)))
        else:
            file = item.key, item.size or len(data), item.mtime_ns, content_hash(data)
            images.append(NewImage(*file, image.width, image.height, image.taken))
            captions.append(item.caption.encode("utf-8", "replace").decode())
            pixels.append(image.rgb)
    side = info.image_size
    stack = np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)
    return Chunk(images, captions, stack, dead_letters, time.process_time() - start)
