"""The examples run as their first lines say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from soutu.images.scan import demo_data

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("query", "expected"), [("red", "red.png"), ("一张蓝图", "blue.png")])
def test_own_encoder(tmp_path, query, expected):
    for index, name in enumerate(("red", "green", "blue")):
        pixels = np.zeros((20, 20, 3), np.uint8)
        pixels[..., index] = 200
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert expected in run("own_encoder.py", tmp_path, query)[0]


def test_own_store(tmp_path):
    for file in sorted((demo_data() / "images").iterdir())[:4]:
        shutil.copy(file, tmp_path)
    *hits, last = run("own_store.py", tmp_path)
    assert len(hits) == 3
    assert last == "searches: 1"


def test_every_example_is_run():
    here = Path(__file__).read_text("utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert f'"{file.name}"' in here, file.name
