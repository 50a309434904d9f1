"""Killed a hundred times, at steps of all that writes: indexing, compacting, building codes,
bringing an old index up to date. What was acknowledged is there, every search answers, and nothing
has to be rebuilt.

``python -m tests.robustness.test_kill JOB HOME STEP`` is the process that is killed. It prints a
line for all that it was told is done.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from soutu.fs import DATABASE
from soutu.store import ann_build
from soutu.store.base import NewCaption
from soutu.store.sqlite import store as sqlite_store
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.schema import SCHEMA_VERSION
from soutu.store.sqlite.store import LocalStore
from tests.killing import Steps
from tests.store_samples import DIM, card, pictures, unit

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
        while True:
            target = 0.8 + start % 100 / 1000  # another each time, or nothing would be due
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
# Steps at which each is killed: 25, spread over several rounds, at all places within one.
KILLS = {"index": range(3, 650, 26), "compact": range(5, 4100, 164), "build": range(2, 280, 11)}


def killed(job: str, home: Path, step: int) -> list[list[str]]:
    """Run the job in a process that kills itself at this step; return the lines that it printed."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.robustness.test_kill", job, str(home), str(step)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        check=False,
    )
    assert process.returncode == (-signal.SIGKILL if step else 0), process.stderr
    return [line.split() for line in process.stdout.splitlines()]


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
        for path in sorted(wanted)[:: len(wanted) // 5]:
            best = store.search_images(vector(wanted[path]), 1)
            assert path in store.images(best.ids.tolist())[0].paths
        captions = store.search_captions(vector(0), 100_000)
        assert len(captions.ids) == store.state().captions
    # A compaction that was cut short leaves a folder, which the next run removes.
    assert [issue for issue in check_index(home)[0] if issue.harm] == []


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


@pytest.mark.parametrize("job", list(KILLS))
def test_what_was_acknowledged_survives_every_kill(home, job):
    if job == "build":
        pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")
    added, gone = set(range(0, 100 * BATCH, BATCH)), {}
    finished = 0
    for step in KILLS[job]:
        for line in killed(job, home, step):
            match line:
                case ["added", start]:
                    added.add(int(start))
                case ["going", start]:
                    gone[int(start)] = False
                case ["gone", start]:
                    gone[int(start)] = True
                case ["compacted" | "built"]:
                    finished += 1
        check(home, added, gone)
    assert len(added) > 100 + len(KILLS[job]) // 2, "the job has got somewhere"
    assert (finished > 0) == (job != "index")
    with LocalStore.open(home) as store, store.writer() as writer:  # the next run sweeps up
        writer.refresh_ann(lambda: unit(60, DIM, seed=1), target=0.9)
    [folder] = (home / "spaces").iterdir()
    assert len(list(folder.glob("image.ann*"))) in (0, 2)
    check(home, added, gone)


def test_an_old_index_survives_every_kill(tmp_path):
    def copy(name: str) -> Path:
        return Path(shutil.copytree(VERSION_1, tmp_path / name / ".soutu"))

    [[_, steps]] = (line for line in killed("migrate", copy("whole"), 0) if line[0] == "steps")
    versions = set()
    for step in range(1, int(steps), 4):
        home = copy(str(step))
        killed("migrate", home, step)
        with closing(sqlite3.connect(home / DATABASE)) as connection:
            versions.add(*connection.execute("PRAGMA user_version").fetchone())
        with LocalStore.open(home) as store:
            assert store.state().images == 292
            files = store.files()
            ids = [files[image.path].image_id for image in pictures(50, 50)]
            np.testing.assert_array_equal(store.image_vectors(ids), unit(50, DIM, seed=50))
            assert len(store.search_images(unit(DIM), 1000).ids) == 292
            assert store.get_meta("root") == "/gallery"
        assert [issue for issue in check_index(home)[0] if issue.harm] == []
    assert versions == {1, SCHEMA_VERSION}, "some were killed before it was done, and some after"


if __name__ == "__main__":
    with Steps(int(sys.argv[3])) as steps:
        JOBS[sys.argv[1]](Path(sys.argv[2]))
    print("steps", steps.count)
