"""Encoding together what several threads ask for."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from soutu.models.batching import BatchingEncoder, MicroBatcher


class Slow:
    """An encoder whose first call waits until the test lets it go on."""

    batch, max_concurrency = 4, 2

    def __init__(self):
        self.calls, self.begun, self.go = [], threading.Event(), threading.Event()
        self.info = type("Card", (), {"dim": 2})

    def encode_texts(self, texts):
        self.calls.append(list(texts))
        self.begun.set()
        assert self.go.wait(10)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    encode_images = encode_texts


def together(batching, asked):
    """Ask for each of ``asked`` from a thread of its own, all but the first while it is encoded."""
    slow = batching.encoder
    with ThreadPoolExecutor(len(asked)) as pool:
        first = pool.submit(batching.encode_texts, asked[0])
        assert slow.begun.wait(10)
        rest = [pool.submit(batching.encode_texts, texts) for texts in asked[1:]]
        count = sum(map(len, asked[1:]))
        while len(batching.texts._waiting) < count:
            pass
        slow.go.set()
        return [first, *rest]


def test_what_comes_meanwhile_is_one_batch():
    batching = BatchingEncoder(Slow())
    done = together(batching, [["a"], ["bb", "c"], ["ddd"], ["bb"]])
    assert [one.result()[:, 0].tolist() for one in done] == [[1], [2, 1], [3], [2]]
    first, second = batching.encoder.calls
    assert first == ["a"]
    assert sorted(second) == ["bb", "c", "ddd"]
    assert (batching.texts.counts.batches, batching.texts.counts.encoded) == (2, 5)


def test_a_fault_is_that_texts_alone():
    batching = BatchingEncoder(Slow())
    done = together(batching, [["a"], ["b"], ["bad"], ["c", "bad"], ["d"]])
    assert done[1].result()[0, 1] == ord("b")
    assert done[4].result()[0, 1] == ord("d")
    for one in (done[2], done[3]):
        with pytest.raises(ValueError, match="bad"):
            one.result()
    assert batching.encode_texts(["c"])[0, 1] == ord("c")


def test_texts_are_remembered_the_latest_longest():
    slow = Slow()
    slow.go.set()
    batching = BatchingEncoder(slow, cache_size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        batching.encode_texts([text, text])
    assert list(slow.calls) == [["a"], ["b"], ["c"], ["b"]]
    assert batching.texts.counts.hits == 2
    assert len(batching._cache) == 2


def test_what_is_remembered_is_not_changed_by_who_gets_it():
    slow = Slow()
    slow.go.set()
    batching = BatchingEncoder(slow)
    batching.encode_texts(["a"])[:] = 7
    assert batching.encode_texts(["a"])[0, 0] == 1


def test_many_threads_many_lanes():
    def encode(items):
        return np.array([[item] for item in items], np.float32)

    gathering = MicroBatcher(encode, 3, 2)
    with ThreadPoolExecutor(16) as pool:
        asked = [[n, n + 1, n + 2][: 1 + n % 3] for n in range(500)]
        found = list(pool.map(gathering, asked))
    assert [[int(v[0]) for v in one] for one in found] == asked
    assert gathering.counts.encoded == sum(map(len, asked))
    assert not gathering._waiting


def test_no_texts():
    assert BatchingEncoder(Slow()).encode_texts([]).shape == (0, 2)
    assert BatchingEncoder(Slow()).encode_images([]).shape == (0, 2)


def test_what_a_model_s_card_says_is_known_of_the_encoder_around_it():
    encoder = Slow()
    assert (BatchingEncoder(encoder).confidence, BatchingEncoder(encoder).precision) == ({}, {})
    encoder.confidence, encoder.precision = {"any": (1.0, 2.0, 3.0)}, {"texts": "int8"}
    batching = BatchingEncoder(encoder)
    assert (batching.confidence, batching.precision) == (encoder.confidence, encoder.precision)
