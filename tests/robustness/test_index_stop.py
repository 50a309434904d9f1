"""Ctrl-C while indexing: a clean end, nothing lost, and the next run goes on. And memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from soutu.indexing.pipeline import STORE_COUNT
from tests.conftest import heeding_ctrl_c, picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and memory as POSIX has them")
MAIN = "from soutu.cli import main; main()"
# Ctrl-C as soon as the first batch of pictures is stored for good.
STOP = """
import os, signal
from soutu.store.sqlite.writer import LocalWriter

add_images = LocalWriter.add_images

def add_and_interrupt(writer, images, vectors):
    ids = add_images(writer, images, vectors)
    os.kill(os.getpid(), signal.SIGINT)
    return ids

LocalWriter.add_images = add_and_interrupt
"""


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path):
    count = 3 * STORE_COUNT
    for i in range(count):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png", compress_level=1)
    index = ["index", str(tmp_path), "--model", "tiny", "--json"]
    stopped = subprocess.run(
        [sys.executable, "-c", STOP + MAIN, *index, "--batch", "4"],
        capture_output=True,
        text=True,
        preexec_fn=heeding_ctrl_c,
        check=False,
        timeout=300,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *index],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["found"] == count
    assert 0 < report["encoded"] < count
    assert report["encoded"] + report["unchanged"] == count


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
