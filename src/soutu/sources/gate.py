"""How many pixels may be decoded at the same time, by all threads together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

PIXELS = 64_000_000  # 200 MB as RGB


class Gate:
    """Lets pictures in while the sum of their pixels is at most ``limit``; a larger picture than
    that goes in alone, so that it costs no more than its own decoding."""

    def __init__(self, limit: int = PIXELS) -> None:
        self._limit, self._inside, self._changed = limit, 0, Condition()

    @contextmanager
    def admit(self, pixels: int) -> Iterator[None]:
        taken = min(pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._inside + taken <= self._limit)
            self._inside += taken
        try:
            yield
        finally:
            with self._changed:
                self._inside -= taken
                self._changed.notify_all()
