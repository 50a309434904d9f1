"""What several threads ask an encoder for at the same time is encoded together.

One text of ViT-B/32 takes 4.6 ms in int8 on two cores, eight together 13 (benchmarks/results/
text_latency.json); and threads that each run the model get in each other's way.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Generic, TypeVar

import numpy as np

from soutu.models.base import Encoder
from soutu.types import Floats, ModelInfo, Rgb

TEXTS = 64  # at once: who comes later need not wait for more
KEPT = 10_000  # texts whose vectors are remembered: 20 MB of 512 numbers each

_T = TypeVar("_T")


@dataclass
class Counts:
    """So far: ``batches`` that were encoded, what was in them, and ``hits``: texts that were
    remembered."""

    batches: int = 0
    encoded: int = 0
    hits: int = 0


class MicroBatcher(Generic[_T]):
    """Calls ``encode`` with up to ``most`` items at a time, from ``lanes`` threads at most. Whoever
    finds a free lane encodes all that has been asked for by then, the others' items as well as
    its own. So nobody waits for company, and a single thread is as fast as without.

    Where a batch fails, each of its items is tried alone: a fault is that item's."""

    def __init__(self, encode: Callable[[Sequence[_T]], Floats], most: int, lanes: int) -> None:
        self._encode, self._most = encode, most
        self._lanes, self._lock = BoundedSemaphore(lanes), Lock()
        self._waiting: deque[tuple[_T, Future[Floats]]] = deque()
        self.counts = Counts()

    def __call__(self, items: Sequence[_T]) -> list[Floats]:
        """The vectors of ``items``, in order; raises what encoding the first faulty one did."""
        asked: list[tuple[_T, Future[Floats]]] = [(item, Future()) for item in items]
        with self._lock:
            self._waiting.extend(asked)
        while not all(future.done() for _, future in asked):
            with self._lanes:
                taken = self._take()
                if taken:
                    self._work(taken)
            if not taken:  # another lane has ours
                break
        return [future.result() for _, future in asked]

    def _take(self) -> list[tuple[_T, Future[Floats]]]:
        with self._lock:
            count = min(self._most, len(self._waiting))
            self.counts.batches += count > 0
            self.counts.encoded += count
            return [self._waiting.popleft() for _ in range(count)]

    def _work(self, taken: Sequence[tuple[_T, Future[Floats]]]) -> None:
        try:
            vectors = self._encode([item for item, _ in taken])
        except BaseException as fault:
            if len(taken) == 1 or not isinstance(fault, Exception):
                for _, future in taken:
                    future.set_exception(fault)
                return
            for one in taken:
                self._work([one])
        else:
            for (_, future), vector in zip(taken, vectors, strict=True):
                future.set_result(vector)


class BatchingEncoder:
    """``Encoder`` over another one, for a process that answers many; the vectors of the latest
    ``kept`` texts are remembered."""

    def __init__(self, encoder: Encoder, *, kept: int = KEPT) -> None:
        self.encoder = encoder
        self.texts = MicroBatcher[str](self._distinct, TEXTS, 1)
        self.images = MicroBatcher[Rgb](
            encoder.encode_images, encoder.batch, encoder.max_concurrency
        )
        self._kept, self._lock = kept, Lock()
        self._vectors: OrderedDict[str, Floats] = OrderedDict()

    @property
    def info(self) -> ModelInfo:
        return self.encoder.info

    @property
    def batch(self) -> int:
        return self.encoder.batch

    @property
    def max_concurrency(self) -> int:
        return self.encoder.max_concurrency

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        if not images:
            return np.empty((0, self.info.dim), np.float32)
        return np.stack(self.images(images))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return np.empty((0, self.info.dim), np.float32)
        known = self._remembered(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            fresh = dict(zip(new, self.texts(new), strict=True))
            self._remember(fresh)
            known |= fresh
        return np.stack([known[text] for text in texts])

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Those of ``texts`` whose vectors are not remembered."""
        with self._lock:
            return [text for text in texts if text not in self._vectors]

    def _distinct(self, texts: Sequence[str]) -> Floats:
        """Two that ask for the same text at the same time pay for it once."""
        order = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        vectors: Floats = self.encoder.encode_texts(list(order))[[order[text] for text in texts]]
        return vectors

    def _remembered(self, texts: Sequence[str]) -> dict[str, Floats]:
        with self._lock:
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
            for text in known:
                self._vectors.move_to_end(text)
            self.texts.counts.hits += len(known)
        return known

    def _remember(self, fresh: dict[str, Floats]) -> None:
        with self._lock:
            self._vectors |= fresh
            while len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)
