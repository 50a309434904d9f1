"""One writer at a time, and any number of readers beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from soutu.errors import IndexCorrupt
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, make, pictures, unit


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "gallery" / ".soutu"


HOLD = """
import sys
from pathlib import Path
from soutu.store.sqlite.store import LocalStore
with LocalStore.open(Path(sys.argv[1])) as store, store.writer():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_writes_and_a_killed_one_lets_go(home):
    make(home)
    command = [sys.executable, "-c", HOLD, str(home)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with LocalStore.open(home) as store:
            with pytest.raises(IndexCorrupt) as caught, store.writer():
                pass
            assert caught.value.code == "index-locked"
            assert caught.value.fields["pid"] == str(holder.pid)
            assert str(holder.pid) in str(caught.value)
            assert store.state().images == 3
            holder.kill()
            holder.wait()
            with store.writer() as writer:
                writer.detach(["图/0001.jpg"])
            assert store.state().images == 2


def test_a_second_writer_in_one_process_is_refused_and_the_first_goes_on(home):
    make(home, 0)
    with LocalStore.open(home) as one, LocalStore.open(home) as two, one.writer() as writer:
        with pytest.raises(IndexCorrupt, match=str(os.getpid())), two.writer():
            pass
        writer.add_images(pictures(1), unit(1, DIM))
        assert two.state().images == 1


def test_a_run_that_fails_keeps_what_it_acknowledged_and_frees_the_lock(home):
    with LocalStore.create_or_open(home, card()) as store:

        def fail() -> None:
            with store.writer() as writer:
                writer.add_images(pictures(2), unit(2, DIM))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert store.state().images == 2
        assert len(store.search_images(unit(DIM), 9).ids) == 2
        with store.writer():
            pass
        assert store.state() == store.state()


def test_readers_beside_a_writer_see_whole_batches(home):
    """Four threads search while batches of five pictures come in: each answer is one state."""
    faults: list[str] = []
    done = threading.Event()

    def read(seed: int) -> int:
        query, last, searches = unit(DIM, seed=seed), 0, 0
        with LocalStore.open(home) as own:
            for store in (own, shared):
                while True:
                    finished = done.is_set()
                    with store.snapshot():
                        found = store.search_images(query, 10_000)
                        rows = store.images(found.ids.tolist())
                        count = store.state().images
                    searches += 1
                    vectors = store.image_vectors(found.ids.tolist())
                    if len(rows) != count or count % 5 or count < last:
                        faults.append(f"{len(rows)} rows, {count} counted, {last} before")
                    if not np.allclose(vectors @ query, found.scores, atol=1e-6):
                        faults.append("a score is not that of its vector")
                    last = count
                    if finished or (store is own and searches > 20):
                        break
        return last

    with LocalStore.create_or_open(home, card()) as shared, ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, seed) for seed in range(4)]
        with shared.writer() as writer:
            for start in range(0, 200, 5):
                writer.add_images(pictures(5, start), unit(5, DIM, seed=start))
        done.set()
        assert [reader.result() for reader in readers] == [200] * 4
    assert faults == []


def test_a_copied_folder_is_a_backup(home, tmp_path):
    """Copied as it lies there, what was written ahead included, and opened elsewhere."""
    make(home)
    with LocalStore.open(home) as store:
        with store.writer() as writer:
            writer.add_images(pictures(5, 100), unit(5, DIM, seed=9))
        query = unit(DIM, seed=5)
        before = store.search_images(query, 1000)
        backup = Path(shutil.copytree(home, tmp_path / "elsewhere" / ".soutu"))
        with store.writer() as writer:
            writer.detach([image.path for image in pictures(5, 100)])
    with LocalStore.open(backup) as store:
        after = store.search_images(query, 1000)
        np.testing.assert_array_equal(after.ids, before.ids)
        np.testing.assert_array_equal(after.scores, before.scores)
        with store.writer() as writer:
            writer.add_images(pictures(1, 200), unit(1, DIM))
    assert check_index(backup)[0] == []
