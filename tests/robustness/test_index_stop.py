"""Ctrl-C while indexing: a clean end, nothing lost, and the next run goes on. And memory."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from soutu.indexing.pipeline import TOGETHER
from tests.conftest import heeding_ctrl_c, picture

MAIN = "from soutu.cli import main; main()"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and memory as POSIX has them")


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path):
    for i in range(400):
        Image.fromarray(picture(i, 640, 480)).save(tmp_path / f"{i}.png", compress_level=1)
    index = [sys.executable, "-c", MAIN, "index", str(tmp_path), "--model", "tiny", "--json"]
    running = subprocess.Popen(
        [*index, "--batch", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    slab = next_slab(tmp_path, running)
    # More than are stored at once: what came first counts by then.
    while slab.stat().st_size < 1.5 * TOGETHER * 512 * 4 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    done = subprocess.run(index, capture_output=True, text=True, check=True, timeout=300)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["found"] == 400
    assert 0 < report["encoded"] < 400
    assert report["encoded"] + report["unchanged"] == 400


def next_slab(folder, running):
    """The file of vectors, once it is there."""
    while running.poll() is None:
        found = [*folder.glob(".soutu/spaces/*/images*")]
        if found:
            return found[0]
        time.sleep(0.01)
    pytest.fail(f"the run ended too soon: {running.communicate()}")


PEAK = """
import resource, sys
from soutu import Gallery
with Gallery.open(sys.argv[1], model="tiny", settings={"workers": int(sys.argv[2])}) as gallery:
    print(gallery.index().encoded)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(folder, workers):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(workers)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    encoded, size = done.stdout.split()
    return int(encoded), int(size)


def test_large_pictures_are_decoded_one_at_a_time(tmp_path):
    """Four threads and four pictures of 60 megapixels cost what one costs."""
    one, four = tmp_path / "one", tmp_path / "four"
    for folder, count in ((one, 1), (four, 4)):
        folder.mkdir()
        for i in range(count):
            grey = np.full((7500, 8000), 40 * i, np.uint8)
            Image.fromarray(grey).save(folder / f"{i}.png", compress_level=1)
    alone, together = peak(one, 1), peak(four, 4)
    assert (alone[0], together[0]) == (1, 4)
    assert together[1] < alone[1] + 180_000_000, "60 MB a grey picture, 240 MB its colours"
