"""What waiting searches will ask the model for, encoded together before they take a thread.

A text alone takes as long as three of 32 (ViT-B/32 in int8 on two cores: 3.3 ms), and only as
many meet as there are threads that search, which are few because more get in each other's way.
Those that wait here need no thread to meet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

MOST = 64  # texts at once: who comes first need not wait for all who come later


class Ahead:
    """Calls ``encode`` in a thread of its own, with all the texts that came while it worked at the
    last ones. It is for ``encode`` to remember what it did; a fault is not told: whoever asks for
    that text again meets it. To be called from one event loop."""

    def __init__(self, encode: Callable[[Sequence[str]], object]) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._waiting: deque[tuple[Sequence[str], asyncio.Future[None]]] = deque()
        self._busy = False

    async def __call__(self, texts: Sequence[str]) -> None:
        """Returns once ``texts`` have been encoded, or could not be."""
        if not texts:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, done))
        self._begin()
        await done

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        if self._busy:
            return
        taken: list[asyncio.Future[None]] = []
        texts: list[str] = []
        while self._waiting and (not texts or len(texts) + len(self._waiting[0][0]) <= MOST):
            more, done = self._waiting.popleft()
            if not done.cancelled():
                texts += more
                taken.append(done)
        if not taken:
            return
        self._busy = True
        loop = taken[0].get_loop()

        def over(_: Future[object]) -> None:
            loop.call_soon_threadsafe(self._over, taken)

        self._pool.submit(self._encode, texts).add_done_callback(over)

    def _over(self, taken: Sequence[asyncio.Future[None]]) -> None:
        self._busy = False
        for done in taken:
            if not done.cancelled():
                done.set_result(None)
        self._begin()
