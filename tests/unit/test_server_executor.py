"""What waiting searches ask the model for is encoded together, before they take a thread."""

import asyncio
import threading

import pytest

from soutu.models.batching import MAX_PREFETCH, TextPrefetcher
from soutu.server.exceptions import Busy, TimedOut
from soutu.server.service import SearchExecutor


class Held:
    """Remembers what it was called with; each call waits until it is let go."""

    def __init__(self):
        self.calls, self.go = [], threading.Semaphore(0)

    def __call__(self, texts):
        self.calls.append(list(texts))
        assert self.go.acquire(timeout=10)
        if "bad" in texts:
            raise ValueError("bad")

    async def called(self, times):
        while len(self.calls) < times:
            await asyncio.sleep(0.001)


def test_what_comes_meanwhile_is_one_batch():
    async def run():
        held = Held()
        ahead = TextPrefetcher(held)
        first = asyncio.create_task(ahead(["a"]))
        await held.called(1)
        rest = [asyncio.create_task(ahead(texts)) for texts in (["b"], ["c", "d"], [], ["e"])]
        await asyncio.sleep(0)
        assert [one.done() for one in rest] == [False, False, True, False], "nothing: no wait"
        held.go.release()
        await first
        await held.called(2)
        assert [one.done() for one in rest] == [False, False, True, False]
        held.go.release()
        await asyncio.gather(*rest)
        assert held.calls == [["a"], ["b", "c", "d", "e"]]
        ahead.close()

    asyncio.run(run())


def test_a_fault_holds_nobody_up_and_who_left_is_left_out():
    async def run():
        held = Held()
        ahead = TextPrefetcher(held)
        first = asyncio.create_task(ahead(["bad"]))
        await held.called(1)
        gone, stays = (asyncio.create_task(ahead([text])) for text in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        held.go.release(2)
        await asyncio.gather(first, stays)
        assert held.calls == [["bad"], ["stays"]]
        assert gone.cancelled()
        held.go.release()
        await ahead(["later"])
        ahead.close()

    asyncio.run(run())


def test_there_is_an_end_to_a_batch_but_not_to_what_one_may_ask():
    async def run():
        held = Held()
        ahead = TextPrefetcher(held)
        held.go.release(4)
        long = [f"long {n}" for n in range(MAX_PREFETCH + 1)]
        many = [[f"{n}"] for n in range(MAX_PREFETCH + 3)]
        await asyncio.gather(ahead(["first"]), ahead(long), *(ahead(texts) for texts in many))
        assert list(map(len, held.calls)) == [1, MAX_PREFETCH + 1, MAX_PREFETCH, 3]
        assert held.calls[2] + held.calls[3] == [text for texts in many for text in texts]
        ahead.close()

    asyncio.run(run())


def test_who_waits_for_others_counts_and_may_run_out_of_time():
    async def run():
        work = SearchExecutor("t", 1, 0, 0.2)
        go = asyncio.Event()

        async def first():
            await go.wait()

        waiting = asyncio.create_task(work(lambda: 1, first))
        await asyncio.sleep(0)
        assert work.pending == 1
        with pytest.raises(Busy):
            await work(lambda: 1)
        with pytest.raises(TimedOut):
            await waiting
        assert work.pending == 0, "it has taken no thread"
        go.set()
        assert await work(lambda: 7, first) == 7
        while work.pending:
            await asyncio.sleep(0.001)

        async def broken():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work(lambda: 1, broken)
        assert work.pending == 0
        work.close()

    asyncio.run(run())
