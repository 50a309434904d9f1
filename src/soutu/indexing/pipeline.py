"""Decode and encode pictures at the same time, in order and within bounds.

Threads read and decode, others encode, the caller stores: Pillow, hashing and the engines
let go of Python's lock while they work. What comes out is in the order of what went in.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from soutu.errors import BadImage
from soutu.images.decode import MAX_PIXELS, DecodedImage, PixelBudget, decode
from soutu.images.exclude import Excludes
from soutu.models.base import Encoder
from soutu.models.preprocess import fit_picture
from soutu.types import Floats

MAX_BYTES_AHEAD = 64_000_000  # of files that are read and not yet decoded
AHEAD = 64  # pictures that may be ready before they are encoded, while the model is loaded say
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as this many times the model's side
# remains. What that changes in a vector is at most 0.2 % of the distance between pictures
# (benchmarks/results/index_throughput.json); at twice the side it would be a tenth of that, and a
# megapixel would take twice as long.
ROOM = 1.4
STORE_COUNT, STORE_SECONDS = 64, 0.5  # pictures, or seconds' worth of them, stored together


class Picture(Protocol):
    """What is decoded."""

    @property
    def path(self) -> str:
        """Its name for messages."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...


Item = TypeVar("Item")
Output = TypeVar("Output")
AnyPicture = TypeVar("AnyPicture", bound=Picture)


@dataclass(frozen=True)
class IndexOptions:
    """How fast to encode, and what.

    ``workers`` threads decode, ``batch`` pictures are encoded at once; 0: chosen from the
    machine and the encoder. Pictures of more than ``max_pixels`` are left out. ``retry``: read
    also those that could not be read before and have not changed; ``rehash``: read every file.
    What ``excludes`` says is left out.
    """

    workers: int = 0
    batch: int = 0
    max_pixels: int = MAX_PIXELS
    retry: bool = False
    rehash: bool = False
    excludes: Excludes | None = None


@dataclass(frozen=True)
class Batch(Generic[AnyPicture]):
    """Pictures in order, their ``vectors`` (n, dim) float32, and those that cannot be decoded."""

    pictures: list[tuple[AnyPicture, DecodedImage]]
    vectors: Floats
    failed: list[tuple[AnyPicture, BadImage]]


class EncodePipeline(AbstractContextManager["EncodePipeline"]):
    """The threads of one run, which end with the context; those of ``workers`` decode."""

    def __init__(self, encoder: Encoder, options: IndexOptions) -> None:
        self._encoder, self._max_pixels = encoder, options.max_pixels
        self._batch = options.batch or encoder.batch
        self._budget = PixelBudget()
        threads = options.workers or min(32, os.cpu_count() or 1)
        self.workers = ThreadPoolExecutor(threads, "soutu-decode")
        self._engine = ThreadPoolExecutor(encoder.max_concurrency, "soutu-encode")

    def __exit__(self, *_: object) -> None:
        """End the threads; what they have not begun is dropped."""
        self.workers.shutdown(cancel_futures=True)
        self._engine.shutdown(cancel_futures=True)

    def encode(
        self, pictures: Iterable[AnyPicture], read: Callable[[AnyPicture], bytes]
    ) -> Iterator[Batch[AnyPicture]]:
        """Decode and encode ``pictures``, whose bytes ``read`` returns in a thread.

        So many are decoded ahead that one batch can be encoded meanwhile. Failed ones come with
        the next batch, of which the last may be empty.
        """
        lanes = self._encoder.max_concurrency
        batch: list[tuple[AnyPicture, DecodedImage]] = []
        pending: deque[tuple[list[tuple[AnyPicture, DecodedImage]], Future[Floats]]] = deque()
        failed: list[tuple[AnyPicture, BadImage]] = []
        for picture, decoded in map_ahead(
            self.workers,
            lambda picture: self._decode(picture, read),
            pictures,
            lambda picture: picture.size,
            max(AHEAD, self._batch),
        ):
            if isinstance(decoded, BadImage):
                failed.append((picture, decoded))
                continue
            if len(batch) == self._batch:
                pending.append((batch, self._encode(batch)))
                batch = []
            batch.append((picture, decoded))
            while pending and (len(pending) > lanes or pending[0][1].done()):
                part, vectors = pending.popleft()
                yield Batch(part, vectors.result(), failed)
                failed = []
        # The last ones are shared out: no core is idle while another has all of them.
        step = max(1, -(-len(batch) // lanes))
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            pending.append((part, self._encode(part)))
        for part, vectors in pending:
            yield Batch(part, vectors.result(), failed)
            failed = []
        if failed:
            yield Batch([], np.empty((0, self._encoder.info.dim), np.float32), failed)

    def _encode(self, batch: list[tuple[AnyPicture, DecodedImage]]) -> Future[Floats]:
        images = [decoded.rgb for _, decoded in batch]
        return self._engine.submit(self._encoder.encode_images, images)

    def _decode(
        self, picture: AnyPicture, read: Callable[[AnyPicture], bytes]
    ) -> DecodedImage | BadImage:
        """Decode and cut to the model's size, which is a hundredth of a camera's."""
        info = self._encoder.info
        try:
            return decode(
                read(picture),
                max_pixels=self._max_pixels,
                name=picture.path,
                min_side=int(ROOM * info.image_size),
                budget=self._budget,
                transform=lambda image: fit_picture(image, info),
            )
        except BadImage as error:
            return error


def map_ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Output],
    items: Iterable[Item],
    size: Callable[[Item], int],
    ahead: int = AHEAD,
) -> Iterator[tuple[Item, Output]]:
    """Yield each item with ``work(item)``, in order, working ahead in the threads of ``pool``.

    Up to ``ahead`` items are begun at a time, of at most ``MAX_BYTES_AHEAD`` by ``size``.
    """
    pending: deque[tuple[Item, Future[Output]]] = deque()
    total = 0
    for item in items:
        while pending and (len(pending) >= ahead or total + size(item) > MAX_BYTES_AHEAD):
            first, future = pending.popleft()
            yield first, future.result()
            total -= size(first)
        pending.append((item, pool.submit(work, item)))
        total += size(item)
    while pending:
        first, future = pending.popleft()
        yield first, future.result()


def coalesce(batches: Iterable[Batch[AnyPicture]]) -> Iterator[Batch[AnyPicture]]:
    """Merge batches into fewer, larger ones.

    Each that is stored is a transaction, which waits for the disk (5 ms on the machine of the
    benchmarks).
    """
    merged: Batch[AnyPicture] | None = None
    start = 0.0
    for batch in batches:
        if merged is None:
            merged, start = batch, time.monotonic()
        else:
            merged = Batch(
                merged.pictures + batch.pictures,
                np.concatenate([merged.vectors, batch.vectors]),
                merged.failed + batch.failed,
            )
        if len(merged.pictures) >= STORE_COUNT or time.monotonic() - start >= STORE_SECONDS:
            yield merged
            merged = None
    if merged is not None:
        yield merged
