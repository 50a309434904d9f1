"""Eight processes search while another writes 10,000 rows: no error, and every answer whole."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from soutu.store import ann_build
from soutu.store.base import NewCaption
from soutu.store.sqlite import store as sqlite_store
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

ROWS, BATCH, FIRST, READERS = 10_000, 500, 1_000, 8
WAIT_EVERY = 2_500  # rows: then every reader looks before the writer goes on
SMALL = 5_000  # from which codes are built here, so that readers change from one to the other


def batch(start: int) -> np.ndarray:
    return unit(BATCH, DIM, seed=start)


def look(store: LocalStore, seed: int) -> int:
    """One consistent look: all calls in a snapshot must say the same. Returns the rows seen."""
    query = unit(DIM, seed=seed)
    with store.snapshot():
        state = store.state()
        ten, every = store.search_images(query, 10), store.search_images(query, ROWS * 2)
        rows = store.images(ten.ids.tolist())
        captions = store.search_captions(query, 5)
        told = store.captions(captions.ids.tolist())
        vectors = store.image_vectors(ten.ids.tolist())
    assert state.images == len(every.ids), "what is counted is what is found"
    assert (state.images - FIRST) % BATCH == 0, "a batch is seen whole or not at all"
    assert len(set(every.ids.tolist())) == len(every.ids)
    assert (np.diff(every.scores) <= 0).all()
    assert ten.scores[0] >= every.scores[9] - 1e-6
    for row, vector, score in zip(rows, vectors, ten.scores, strict=True):
        start = (int(row.paths[0][2:-4]) - FIRST) // BATCH * BATCH + FIRST
        own = int(row.paths[0][2:-4])
        expected = unit(FIRST, DIM)[own] if own < FIRST else batch(start)[own - start]
        np.testing.assert_array_equal(vector, expected)
        assert abs(float(vector @ query) - score) < 1e-5
    assert all(row.text == f"说明 {row.image_id}" for row in told)
    return state.images


def read(home: Path, number: int, looks: Synchronized[int], done: Event) -> int:
    """Look until the writer has ended, counting ``looks``; return how many states were seen."""
    sqlite_store.EXACT_BELOW = SMALL
    seen = set()
    with LocalStore.open(home) as store:
        while not done.is_set():
            seen.add(look(store, 1000 * number + looks.value))
            looks.value += 1
        assert look(store, number) == FIRST + ROWS
    return len(seen)


def wait_for_looks(looks: list[Synchronized[int]], readers: list[multiprocessing.Process]) -> None:
    """Return once every reader has looked again, however slow the machine is."""
    before = [count.value for count in looks]
    for count, seen, reader in zip(looks, before, readers, strict=True):
        while count.value == seen and reader.is_alive():
            time.sleep(0.002)


def run(work: Callable[..., object], queue: multiprocessing.Queue, *arguments: object) -> None:
    try:
        queue.put(("ok", work(*arguments)))
    except BaseException as fault:
        queue.put(("fault", repr(fault)))


def test_eight_readers_beside_a_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(ann_build, "EXACT_BELOW", SMALL)
    home = tmp_path / ".soutu"
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        ids = writer.add_images(pictures(FIRST), unit(FIRST, DIM))
        writer.replace_captions([NewCaption(id_, f"说明 {id_}") for id_ in ids[:50]])
        rows = writer.captions_without_vector()
        writer.set_caption_vectors([row.id for row in rows], unit(50, DIM, seed=1))
    context = multiprocessing.get_context("spawn")
    queue, done = context.Queue(), context.Event()
    looks = [context.Value("q", 0) for _ in range(READERS)]
    readers = [
        context.Process(target=run, args=(read, queue, home, number, looks[number], done))
        for number in range(READERS)
    ]
    for reader in readers:
        reader.start()
    try:
        wait_for_looks(looks, readers)
        with LocalStore.open(home) as store:
            for start in range(FIRST, FIRST + ROWS, BATCH):
                with store.writer() as writer:
                    writer.add_images(pictures(BATCH, start), batch(start))
                    writer.refresh_ann(lambda: unit(100, DIM, seed=5), target=0.9)
                if start % WAIT_EVERY == 0:
                    wait_for_looks(looks, readers)
    finally:
        done.set()
    answers = [queue.get() for _ in readers]
    for reader in readers:
        reader.join()
    assert [kind for kind, _ in answers] == ["ok"] * READERS, answers
    assert all(states >= ROWS // WAIT_EVERY for _, states in answers), answers
