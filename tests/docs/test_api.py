"""Every command in docs/api.md is answered as it says, by a server in a process of its own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_server_process import serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
SHOWN = "http://127.0.0.1:8765"


def commands():
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def test_every_command_is_answered(demo_indexed, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    shutil.copytree(demo_indexed, tmp_path / "photos")
    assert len(commands()) >= 14
    with serving(tmp_path / "photos") as (_, url):
        for command in commands():
            assert SHOWN in command
            asked = command.replace(SHOWN, url).replace("curl ", "curl -sS --fail-with-body ", 1)
            done = subprocess.run(
                ["bash", "-c", asked], cwd=tmp_path, capture_output=True, timeout=60
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "picture.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (tmp_path / "thumbnail.webp").read_bytes()[8:12] == b"WEBP"
