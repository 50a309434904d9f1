"""Killed a hundred times, at random moments of all that writes: indexing, compacting, building
codes, bringing an old index up to date. What was acknowledged is there, every search answers, and
nobody has to repair anything.

``python -m tests.robustness.test_kill JOB HOME`` is the process that is killed. It prints a line
for all that it was told is done.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from soutu.store import ann_build
from soutu.store.base import NewCaption
from soutu.store.sqlite import store as sqlite_store
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

KILLS = 25  # of each job
BATCH = 4
VERSION_1 = Path(__file__).parents[1] / "indexes" / "version-1"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL as POSIX has it")


def vector(number: int) -> np.ndarray:
    """That of picture ``number``, whoever asks."""
    return unit(DIM, seed=number)


def vectors(start: int) -> np.ndarray:
    return np.stack([vector(number) for number in range(start, start + BATCH)])


def told(*words: object) -> None:
    print(*words, flush=True)


def highest(store: LocalStore) -> int:
    """The number of the next picture, multiples of BATCH; it also counts those that are gone."""
    numbers = [int(path[2:6]) for path in store.files()]
    return max(numbers, default=-BATCH) // BATCH * BATCH + BATCH


def index(home: Path) -> None:
    """Add pictures and captions, batch after batch."""
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        told("begin")
        start = highest(store)
        while True:
            ids = writer.add_images(pictures(BATCH, start), vectors(start))
            told("added", start)
            writer.replace_captions([NewCaption(id_, f"说明 {id_}") for id_ in ids])
            rows = writer.captions_without_vector()
            writer.set_caption_vectors([r.id for r in rows], vectors(start)[: len(rows)])
            start += BATCH


def compact(home: Path) -> None:
    """Add four pictures, let two go, compact; again and again."""
    with LocalStore.open(home) as store:
        told("begin")
        start = highest(store)
        while True:
            with store.writer() as writer:
                writer.add_images(pictures(BATCH, start), vectors(start))
                told("added", start)
                gone = [image.path for image in pictures(2, start)]
                told("going", start)
                writer.detach(gone)
                told("gone", start)
            store.compact()
            told("compacted")
            start += BATCH


def build(home: Path) -> None:
    """Build the codes for one target after another."""
    ann_build.EXACT_BELOW = 100
    with LocalStore.open(home) as store, store.writer() as writer:
        told("begin")
        start = highest(store)
        targets = iter(lambda: random.uniform(0.8, 0.95), None)
        for target in targets:
            writer.add_images(pictures(BATCH, start), vectors(start))
            told("added", start)
            assert writer.refresh_ann(lambda: unit(60, DIM, seed=1), target=target) == ["image"]
            told("built")
            start += BATCH


def migrate(home: Path) -> None:
    told("begin")
    with LocalStore.open(home):
        told("migrated")


JOBS: dict[str, Callable[[Path], None]] = {
    "index": index, "compact": compact, "build": build, "migrate": migrate
}  # fmt: skip
SECONDS = {"index": 0.3, "compact": 0.4, "build": 1.0, "migrate": 0.05}


def killed(job: str, home: Path, moments: random.Random) -> Iterator[list[str]]:
    """Run the job, kill it a moment after it has begun; the lines that it printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.robustness.test_kill", job, str(home)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begin\n", process.stderr.read()
        time.sleep(moments.uniform(0, SECONDS[job]))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().splitlines()
        faults = process.stderr.read()
    stopped = process.returncode == -signal.SIGKILL
    assert stopped or job == "migrate", f"{job} ended by itself: {faults}"
    yield from (line.split() for line in lines)


def check(home: Path, added: set[int], gone: dict[int, bool]) -> None:
    """``added``: first numbers of batches that are surely there; ``gone``: those of which two were
    to go, and whether that was acknowledged."""
    with LocalStore.open(home) as store:
        files = store.files()
        wanted = {image.path: start + row for start in added
                  for row, image in enumerate(pictures(BATCH, start))
                  if not (start in gone and row < 2)}  # fmt: skip
        assert wanted.keys() <= files.keys(), "an acknowledged picture is lost"
        for start, acknowledged in gone.items():
            if acknowledged:
                assert not {image.path for image in pictures(2, start)} & files.keys()
        stored = store.image_vectors([files[path].image_id for path in wanted])
        expected = np.stack([vector(number) for number in wanted.values()])
        np.testing.assert_array_equal(stored, expected)
        assert len(store.search_images(vector(0), 100_000).ids) == store.state().images
        for path in random.Random(len(wanted)).sample(sorted(wanted), 5):
            best = store.search_images(vector(wanted[path]), 1)
            assert path in store.images(best.ids.tolist())[0].paths
        captions = store.search_captions(vector(0), 100_000)
        assert len(captions.ids) == store.state().captions
    assert check_index(home)[0] == []


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A hundred batches, from which codes are worth building here."""
    monkeypatch.setattr(sqlite_store, "EXACT_BELOW", 100)
    monkeypatch.setattr(ann_build, "EXACT_BELOW", 100)
    home = tmp_path / ".soutu"
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        for start in range(0, 100 * BATCH, BATCH):
            writer.add_images(pictures(BATCH, start), vectors(start))
    return home


@pytest.mark.parametrize("job", ["index", "compact", "build"])
def test_what_was_acknowledged_survives_every_kill(home, job):
    if job == "build":
        pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")
    moments = random.Random(f"{job} 20261124")
    added, gone = set(range(0, 100 * BATCH, BATCH)), {}
    done = 0
    for _ in range(KILLS):
        for line in killed(job, home, moments):
            match line:
                case ["added", start]:
                    added.add(int(start))
                case ["going", start]:
                    gone[int(start)] = False
                case ["gone", start]:
                    gone[int(start)] = True
                case _:
                    done += 1
        check(home, added, gone)
    assert len(added) > 100 + KILLS // 2, "the job has got somewhere"
    if job != "index":
        assert done > 0
    with LocalStore.open(home) as store, store.writer() as writer:  # the next run sweeps up
        writer.refresh_ann(lambda: unit(60, DIM, seed=1), target=0.9)
    [folder] = (home / "spaces").iterdir()
    assert len(list(folder.glob("image.ann*"))) in (0, 2)
    check(home, added, gone)


def test_an_old_index_survives_every_kill(tmp_path):
    moments = random.Random(20261124)
    finished = 0
    for number in range(KILLS):
        home = Path(shutil.copytree(VERSION_1, tmp_path / f"{number}" / ".soutu"))
        finished += ["migrated"] in list(killed("migrate", home, moments))
        with LocalStore.open(home) as store:
            assert store.state().images == 292
            files = store.files()
            ids = [files[image.path].image_id for image in pictures(50, 50)]
            np.testing.assert_array_equal(store.image_vectors(ids), unit(50, DIM, seed=50))
            assert len(store.search_images(unit(DIM), 1000).ids) == 292
            assert store.get_meta("root") == "/gallery"
        assert check_index(home)[0] == []
    assert 0 < finished < KILLS, "some were killed before the end, and not all"


if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]))
