"""Encode together what several threads ask an encoder for at the same time.

One text of ViT-B/32 takes 4.6 ms in int8 on two cores, eight together 13 (benchmarks/results/
text_latency.json); and threads that each run the model get in each other's way.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Generic, TypeVar

import numpy as np

from soutu.models.base import Encoder
from soutu.types import Floats, Rgb

MAX_PREFETCH = 64  # texts at once: who comes first need not wait for all who come later
MAX_TEXT_BATCH = 64  # who comes later need not wait for more
CACHE_SIZE = 10_000  # texts whose vectors are cached: 20 MB of 512 numbers each

_T = TypeVar("_T")


@dataclass
class BatchCounts:
    """So far: encoded batches, the items in them, and texts found in the cache."""

    batches: int = 0
    encoded: int = 0
    hits: int = 0


class MicroBatcher(Generic[_T]):
    """Calls ``encode`` with up to ``max_batch`` items, from at most ``max_concurrency`` threads.

    A thread that may encode encodes all that is waiting, the others' items as well as its own.
    So nobody waits for company, and a single thread is as fast as without. Where a batch fails,
    each of its items is tried alone, so that an error is that item's.
    """

    def __init__(
        self, encode: Callable[[Sequence[_T]], Floats], max_batch: int, max_concurrency: int
    ) -> None:
        self._encode, self._max_batch = encode, max_batch
        self._slots, self._lock = BoundedSemaphore(max_concurrency), Lock()
        self._waiting: deque[tuple[_T, Future[Floats]]] = deque()
        self.counts = BatchCounts()

    def __call__(self, items: Sequence[_T]) -> list[Floats]:
        """Return the vectors of ``items``, in order; raise the error of the first that failed."""
        own: list[tuple[_T, Future[Floats]]] = [(item, Future()) for item in items]
        with self._lock:
            self._waiting.extend(own)
        while not all(future.done() for _, future in own):
            with self._slots:
                batch = self._next_batch()
                if batch:
                    self._run(batch)
            if not batch:  # another thread has ours
                break
        return [future.result() for _, future in own]

    def _next_batch(self) -> list[tuple[_T, Future[Floats]]]:
        with self._lock:
            count = min(self._max_batch, len(self._waiting))
            self.counts.batches += count > 0
            self.counts.encoded += count
            return [self._waiting.popleft() for _ in range(count)]

    def _run(self, batch: Sequence[tuple[_T, Future[Floats]]]) -> None:
        try:
            vectors = self._encode([item for item, _ in batch])
        except BaseException as error:
            if len(batch) == 1 or not isinstance(error, Exception):
                for _, future in batch:
                    future.set_exception(error)
                return
            for pair in batch:
                self._run([pair])
        else:
            for (_, future), vector in zip(batch, vectors, strict=True):
                future.set_result(vector)


class BatchingEncoder:
    """An ``Encoder`` over another one, for a process that answers many requests.

    The vectors of the latest ``cache_size`` texts are cached.
    """

    def __init__(self, encoder: Encoder, *, cache_size: int = CACHE_SIZE) -> None:
        self.encoder, self.info = encoder, encoder.info
        self.precision: dict[str, str] = getattr(encoder, "precision", {})
        self.confidence: dict[str, tuple[float, ...]] = getattr(encoder, "confidence", {})
        self.text_towers: tuple[str, ...] = getattr(encoder, "text_towers", ())
        self.text_tower_of: Callable[[str], str] = getattr(encoder, "text_tower_of", lambda _: "")
        self.texts = MicroBatcher[str](self._encode_distinct, MAX_TEXT_BATCH, 1)
        self.images = MicroBatcher[Rgb](
            encoder.encode_images, encoder.batch, encoder.max_concurrency
        )
        self._cache_size, self._lock = cache_size, Lock()
        self._cache: OrderedDict[str, Floats] = OrderedDict()

    @property
    def batch(self) -> int:
        """As of the encoder below."""
        return self.encoder.batch

    @property
    def max_concurrency(self) -> int:
        """As of the encoder below."""
        return self.encoder.max_concurrency

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """Return float32 (n, dim), unit rows."""
        if not images:
            return np.empty((0, self.info.dim), np.float32)
        return np.stack(self.images(images))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return float32 (n, dim), unit rows."""
        if not texts:
            return np.empty((0, self.info.dim), np.float32)
        with self._lock:
            vectors = {text: self._cache[text] for text in texts if text in self._cache}
            for text in vectors:
                self._cache.move_to_end(text)
            self.texts.counts.hits += len(vectors)
        if new := [text for text in dict.fromkeys(texts) if text not in vectors]:
            encoded = dict(zip(new, self.texts(new), strict=True))
            vectors |= encoded
            with self._lock:
                self._cache |= encoded
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        return np.stack([vectors[text] for text in texts])

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Return those of ``texts`` whose vectors are not cached."""
        with self._lock:
            return [text for text in texts if text not in self._cache]

    def _encode_distinct(self, texts: Sequence[str]) -> Floats:
        """Two threads that ask for the same text at the same time pay for it once."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors: Floats = self.encoder.encode_texts(list(rows))[[rows[text] for text in texts]]
        return vectors


class TextPrefetcher:
    """Encodes the texts of waiting searches together, before they take a thread.

    ``encode`` runs in a thread of its own, with all the texts that came while it worked at the last
    ones; it is for ``encode`` to cache them. A text alone takes as long as three of 32 (ViT-B/32
    in int8 on two cores: 3.3 ms), and only as many meet as there are threads that search, which are
    few because more get in each other's way. Those that wait here need no thread to meet. To be
    called from one event loop.
    """

    def __init__(self, encode: Callable[[Sequence[str]], object]) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._waiting: deque[tuple[Sequence[str], asyncio.Future[None]]] = deque()
        self._busy = False

    async def __call__(self, texts: Sequence[str]) -> None:
        """Return once ``texts`` are encoded, or could not be: the search meets the error again."""
        if not texts:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, done))
        self._encode_next()
        await done

    def close(self, seconds: float = 20.0) -> bool:
        """Wait for what is being encoded, drop the rest; return whether it has ended in time."""
        return shut_down(self._pool, seconds)

    def _encode_next(self) -> None:
        if self._busy:
            return
        batch: list[str] = []
        futures: list[asyncio.Future[None]] = []
        while self._waiting and (
            not batch or len(batch) + len(self._waiting[0][0]) <= MAX_PREFETCH
        ):
            texts, done = self._waiting.popleft()
            if not done.cancelled():
                batch += texts
                futures.append(done)
        if not futures:
            return
        self._busy = True
        loop = futures[0].get_loop()

        def finish(_: Future[object]) -> None:
            loop.call_soon_threadsafe(self._finish, futures)

        self._pool.submit(self._encode, batch).add_done_callback(finish)

    def _finish(self, futures: Sequence[asyncio.Future[None]]) -> None:
        self._busy = False
        for done in futures:
            if not done.cancelled():
                done.set_result(None)
        self._encode_next()


def shut_down(pool: ThreadPoolExecutor, seconds: float) -> bool:
    """Drop what waits in ``pool``; return whether what runs there has ended within ``seconds``."""
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + seconds
    for thread in pool._threads:
        thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in pool._threads)
