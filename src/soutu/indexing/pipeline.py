"""Reading, decoding, encoding and storing at the same time, in order and within bounds.

Threads read and decode, others encode, the caller stores: Pillow, hashing and the engines
let go of Python's lock while they work. What comes out is in the order of what went in.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np

from soutu.images.decode import MAX_PIXELS, DecodedImage, PixelBudget, decode
from soutu.models.base import Encoder
from soutu.models.preprocess import fit_picture
from soutu.types import Floats, Rgb

IN_FLIGHT = 64_000_000  # bytes of files that are read and not yet decoded
AHEAD = 64  # pictures that may be ready before they are encoded, while the model is loaded say
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as this many times the model's side
# remains. What that changes in a vector is at most 0.2 % of the distance between pictures
# (benchmarks/results/index_throughput.json); at twice the side it would be a tenth of that, and a
# megapixel would take twice as long.
ROOM = 1.4
TOGETHER, WITHIN = 64, 0.5  # pictures, or seconds' worth of them, that are stored at once

Item = TypeVar("Item")
DecodeResult = TypeVar("DecodeResult")


@dataclass(frozen=True)
class IndexOptions:
    """``workers`` threads decode, ``batch`` pictures are encoded at once; 0: chosen from the
    machine and the encoder. Pictures of more than ``max_pixels`` are left out."""

    workers: int = 0
    batch: int = 0
    max_pixels: int = MAX_PIXELS

    def threads(self) -> int:
        return self.workers or min(32, os.cpu_count() or 1)


class DecodePipeline:
    """The threads of one index run; a context manager that lets go of them, done or not."""

    def __init__(self, encoder: Encoder, pace: IndexOptions) -> None:
        self._encoder, self._pace = encoder, pace
        self._batch = pace.batch or encoder.batch
        self._gate = PixelBudget()
        self._workers = ThreadPoolExecutor(pace.threads(), "soutu-decode")
        self._engine = ThreadPoolExecutor(encoder.max_concurrency, "soutu-encode")

    def __enter__(self) -> DecodePipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._engine.shutdown(cancel_futures=True)

    def ordered(
        self,
        work: Callable[[Item], DecodeResult],
        items: Iterable[Item],
        weight: Callable[[Item], int],
    ) -> Iterator[tuple[Item, DecodeResult]]:
        """Each item with what ``work`` makes of it, in order. So many are worked on ahead that
        one batch can be encoded meanwhile, as long as their ``weight`` is below the bound."""
        ahead: deque[tuple[Item, Future[DecodeResult]]] = deque()
        carried = 0
        for item in items:
            while ahead and (
                len(ahead) >= max(AHEAD, self._batch) or carried + weight(item) > IN_FLIGHT
            ):
                first, future = ahead.popleft()
                yield first, future.result()
                carried -= weight(first)
            ahead.append((item, self._workers.submit(work, item)))
            carried += weight(item)
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()

    def decode(self, source: bytes, shown: str) -> DecodedImage:
        """A picture with its pixels already cut to the model's size, which is a hundredth of a
        camera's. Raises BadImage."""
        card = self._encoder.info
        return decode(
            source,
            max_pixels=self._pace.max_pixels,
            name=shown,
            min_side=int(ROOM * card.image_size),
            budget=self._gate,
            transform=lambda picture: fit_picture(picture, card),
        )

    def encoded(self, pictures: Iterable[tuple[Item, Rgb]]) -> Iterator[tuple[list[Item], Floats]]:
        """The items in batches, with the vectors of their pictures, (n, dim) float32."""
        lanes = self._encoder.max_concurrency
        pending: deque[tuple[list[Item], Future[Floats]]] = deque()
        batch: list[tuple[Item, Rgb]] = []

        def submit(part: Sequence[tuple[Item, Rgb]]) -> None:
            images = [picture for _, picture in part]
            vectors = self._engine.submit(self._encoder.encode_images, images)
            pending.append(([item for item, _ in part], vectors))

        for one in pictures:
            if len(batch) == self._batch:
                submit(batch)
                batch = []
            batch.append(one)
            while pending and (len(pending) > lanes or pending[0][1].done()):
                done, vectors = pending.popleft()
                yield done, vectors.result()
        # The last ones are shared out: no core is idle while another has all of them.
        step = max(1, -(-len(batch) // lanes))
        for start in range(0, len(batch), step):
            submit(batch[start : start + step])
        for done, vectors in pending:
            yield done, vectors.result()


def coalesce(
    batches: Iterable[tuple[list[Item], Floats]],
) -> Iterator[tuple[list[Item], Floats]]:
    """The same items and vectors in fewer, larger batches: each that is stored is a transaction,
    which waits for the disk (5 ms on the machine of the benchmarks)."""
    items: list[Item] = []
    rows: list[Floats] = []
    begun = 0.0
    for more, vectors in batches:
        if not items:
            begun = time.monotonic()
        items += more
        rows.append(vectors)
        if len(items) >= TOGETHER or time.monotonic() - begun >= WITHIN:
            yield items, np.concatenate(rows)
            items, rows = [], []
    if items:
        yield items, np.concatenate(rows)
