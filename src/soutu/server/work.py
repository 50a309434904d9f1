"""Work that is not for the event loop: a fixed set of threads, a bounded queue, a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from soutu.server.problems import Busy, TimedOut

_T = TypeVar("_T")


class Work:
    """``threads`` of its own: each keeps a connection to the index open, so a pool that grows and
    shrinks would leave them behind. Beyond ``queue`` waiting requests, Busy; after ``seconds``,
    TimedOut (what has begun then goes on, and still counts)."""

    def __init__(self, name: str, threads: int, queue: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._most, self._seconds = threads + queue, seconds
        self._lock, self.pending = Lock(), 0

    async def __call__(
        self, work: Callable[[], _T], first: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """What ``work`` returns; ``first`` is awaited before it takes a thread."""
        with self._lock:
            if self.pending >= self._most:
                raise Busy("server-busy", retry_after=1)
            self.pending += 1
        counted = False

        async def done() -> _T:
            nonlocal counted
            if first is not None:
                await first()
            future = self._pool.submit(work)
            counted = True
            future.add_done_callback(self._done)
            return await asyncio.wrap_future(future)

        try:
            return await asyncio.wait_for(done(), self._seconds)
        except asyncio.TimeoutError:
            raise TimedOut("server-slow", seconds=f"{self._seconds:g}") from None
        finally:
            if not counted:
                self._done()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, _: object = None) -> None:
        with self._lock:
            self.pending -= 1
