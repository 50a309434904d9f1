"""``soutu serve`` in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import heeding_ctrl_c

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from soutu.cli import main; main()", "serve"]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "SOUTU_LANG": "en"}


@contextmanager
def serving(folder, *how):
    """The process and the address that it says, which it says once it answers."""
    with subprocess.Popen(
        [*COMMAND, str(folder), "--port", "0", *how], env=environment(), stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, preexec_fn=heeding_ctrl_c,
    ) as process:  # fmt: skip
        try:
            line = process.stderr.readline()
            (url,) = re.findall(r"http://\S+:\d+", line)
            yield process, url
        finally:
            process.kill()


def get(url, query=None, **headers):
    address = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
        return answer.read()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_told_to_stop(demo_gallery, sent):
    with serving(demo_gallery) as (process, url):
        found = json.loads(get(f"{url}/api/v1/search", {"q": "灰猫", "k": 2}))
        assert "灰" in found["hits"][0]["caption"]
        assert get(f"{url}/").startswith(b"<!")
        assert b"soutu_index_images 50.0" in get(f"{url}/metrics")
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err


def test_a_port_that_is_taken(demo_gallery):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, str(demo_gallery), "--port", port], env=environment(),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert port in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_an_index(tmp_path):
    done = subprocess.run(
        [*COMMAND, str(tmp_path), "--port", "0"], env=environment(),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3
    assert "soutu index" in done.stderr


def test_what_a_browser_of_another_site_asks_is_refused(demo_gallery):
    with serving(demo_gallery) as (_, url):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{url}/api/v1/stats", Host="evil.example")
        with caught.value as answer:
            assert json.loads(answer.read())["error"]["status"] == answer.code == 421


@pytest.mark.parametrize("package", ["starlette", "fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_is_named(demo_gallery, package):
    code = f"import sys; sys.modules[{package!r}] = None; from soutu.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(demo_gallery), "--port", "0"],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3
    assert "soutu[server]" in done.stderr
    assert "Traceback" not in done.stderr
