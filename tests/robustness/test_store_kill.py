"""A writer killed at random moments: whatever it had acknowledged is there, and right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from soutu.store.base import NewCaption
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

KILLS = 10
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


def killed_after(home: Path, seconds: float) -> list[tuple[str, int]]:
    """Run the writer, kill it ``seconds`` after its first word; returns what it acknowledged."""
    code = "from tests.robustness.test_store_kill import *; write_until_killed(Path(sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
    assert writer.returncode == -signal.SIGKILL
    words = [line.split() for line in lines if line.strip()]
    return [(kind, int(number)) for kind, number in words]


def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path):
    home, moments = tmp_path / ".soutu", random.Random(20240501)
    batches: set[int] = set()
    captioned = 0
    for _ in range(KILLS):
        for kind, number in killed_after(home, moments.uniform(0, 0.25)):
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
    assert len(batches) >= KILLS
