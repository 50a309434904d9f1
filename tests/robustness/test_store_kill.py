"""A writer killed at any step: whatever it had acknowledged is there, and right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from soutu.store.base import NewCaption
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

STEPS = range(200, 670, 47)  # at which it is killed; a round takes about 130
BATCH = 4

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL as POSIX has it")


def write_until_killed(home: Path) -> None:
    """Add batches, their captions, and now and then vectors anew; print what is acknowledged."""
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        start = len(store.files())
        captions = [NewCaption(row.image_id, row.text) for row in store.all_captions()]
        while True:
            batch = pictures(BATCH, start)
            ids = writer.add_images(batch, unit(BATCH, DIM, seed=start))
            print("images", start, flush=True)
            captions += [NewCaption(id_, f"说明 {id_}") for id_ in ids]
            writer.replace_captions(captions)
            rows = writer.captions_without_vector()
            writer.set_caption_vectors(
                [row.id for row in rows], np.stack([unit(DIM, seed=row.image_id) for row in rows])
            )
            print("captions", len(captions), flush=True)
            start += BATCH


def killed_at(home: Path, step: int) -> list[tuple[str, int]]:
    """Run the writer until it kills itself at this step; return what it acknowledged."""
    code = f"""
import sys
from tests.killing import Steps
from tests.robustness.test_store_kill import *
with Steps({step}):
    write_until_killed(Path(sys.argv[1]))
"""
    writer = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        check=False,
    )
    assert writer.returncode == -signal.SIGKILL, writer.stderr
    words = [line.split() for line in writer.stdout.splitlines()]
    return [(kind, int(number)) for kind, number in words]


def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path):
    home = tmp_path / ".soutu"
    LocalStore.create_or_open(home, card()).close()
    batches: set[int] = set()
    captioned = 0
    for step in STEPS:
        for kind, number in killed_at(home, step):
            if kind == "images":
                batches.add(number)
            else:
                captioned = max(captioned, number)
        with LocalStore.open(home) as store:
            files = store.files()
            assert len(files) % BATCH == 0
            assert batches <= set(range(0, len(files), BATCH))
            for start in range(0, len(files), BATCH):
                ids = [files[image.path].image_id for image in pictures(BATCH, start)]
                expected = unit(BATCH, DIM, seed=start)
                np.testing.assert_array_equal(store.image_vectors(ids), expected)
            assert store.state().images == len(files)
            assert store.state().captions >= captioned
            best = store.search_captions(unit(DIM, seed=1), 1)
            if captioned:
                assert store.captions(best.ids.tolist())[0].image_id == 1
            assert len(store.search_images(unit(DIM), 10_000).ids) == len(files)
    assert check_index(home)[0] == []
    assert len(batches) >= len(STEPS)
