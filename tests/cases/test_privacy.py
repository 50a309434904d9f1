"""Nothing leaves the machine, and no id is made, unless the person asks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import suppress

import pytest
from PIL import Image

from tests.serving import ROOT, served

OPT_OUT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
ADDRESS = re.compile(r"connect\(.*sa_family=AF_INET6?,|sendto\(.*sa_family=AF_INET6?,")


@pytest.fixture
def gallery(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number, colour in enumerate(["red", "green", "blue"]):
        Image.new("RGB", (64, 48), colour).save(root / f"{number}.png")
    return root


@pytest.fixture
def home(tmp_path):
    """A stranger's home folder, with nothing in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def clean_environment(home):
    """An environment that says nothing of telemetry: as a person's is."""
    mine = {"PYTHONPATH", "PATH", "LC_ALL", "SYSTEMROOT"}
    variables = {name: value for name, value in os.environ.items() if name in mine}
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT / "clip_retrieval", ROOT)))
    return {**variables, "HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": paths}


def run(home, *command, check=True, prefix=()):
    done = subprocess.run(
        [*map(str, prefix), sys.executable, *map(str, command)],
        env=clean_environment(home),
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode in (0, 1), done.stderr
    return done


def soutu(*arguments):
    return ("-c", "from soutu.cli import main; main()", *arguments)


def others_files(home):
    """What libraries have left: all but Soutu's own folders, and caches of compiled fonts."""
    files = [str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()]
    return [name for name in files if not re.match(r"\.(cache|config)/(soutu|matplotlib)/", name)]


SEARCH = """
import sys, time
from soutu import Gallery
with Gallery.open(sys.argv[1], settings={"model": "tiny"}) as gallery:
    gallery.index()
    gallery.search("red", k=1)
time.sleep(float(sys.argv[2]))
"""


def test_commands_leave_nothing_in_the_home_folder(gallery, home):
    run(home, *soutu("index", gallery, "--model", "tiny"))
    run(home, *soutu("search", "red", "-g", gallery))
    run(home, *soutu("caption", gallery / "0.png", "-g", gallery))
    run(home, *soutu("explain", "red", "-g", gallery))
    run(home, *soutu("doctor", "-g", gallery))
    run(home, *soutu("demo"))
    assert others_files(home) == []


def test_the_library_leaves_nothing_in_the_home_folder(gallery, home):
    run(home, "-c", SEARCH, gallery, 1)
    run(home, "-c", 'import soutu; soutu.Model("tiny").encode_texts(["a cat"])')
    assert others_files(home) == []


def test_a_server_leaves_nothing_in_the_home_folder(gallery, home):
    run(home, *soutu("index", gallery, "--model", "tiny"))
    environment = {"HOME": str(home), "USERPROFILE": str(home)}
    with served(gallery, environment=environment) as url:
        urllib.request.urlopen(f"{url}/api/v1/search?q=red", timeout=60).close()
    assert others_files(home) == []


def test_the_scripts_of_the_reference_workspace_leave_nothing(home):
    (home / "clip").mkdir()
    for folder in ("data", "models", "scripts"):
        shutil.copytree(ROOT / "clip_retrieval" / folder, home / "clip" / folder)
    environment = clean_environment(home)
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = [sys.executable, "-m", "scripts.extract_embeddings", "--model", "tiny"]
    subprocess.run(command, env=environment, cwd=home / "clip", check=True, capture_output=True)
    left = [name for name in others_files(home) if not name.startswith("clip")]
    assert left == []


@pytest.mark.ray
def test_workers_of_ray_leave_nothing_and_report_nothing(gallery, home):
    pytest.importorskip("ray.data", reason="needs the extra ray")
    code = """
import sys
import soutu
import soutu.distributed.ingest as ingest
from soutu.cli import main
from ray._common.usage.usage_lib import usage_stats_enabled
ingest.MIN_PICTURES = 0
assert not usage_stats_enabled()
main(["index", sys.argv[1], "--model", "tiny", "--engine", "ray", "--workers", "1"])
"""
    run(home, "-c", code, gallery)
    # A secret between the processes of a cluster, which none of them sends anywhere else.
    assert others_files(home) in ([], [".ray/auth_token"])


def test_what_the_person_has_set_stays(home):
    code = f"import os, soutu; print(*(os.environ[n] for n in {list(OPT_OUT)}))"
    assert run(home, "-c", code).stdout.split() == list(OPT_OUT.values())
    opposite = [f"os.environ[{n!r}] = {str(1 - int(v))!r}" for n, v in OPT_OUT.items()]
    code = f"import os; {'; '.join(opposite)}; {code}"
    assert run(home, "-c", code).stdout.split() == [str(1 - int(v)) for v in OPT_OUT.values()]


def test_the_hub_sends_no_report_of_its_use():
    code = """
import soutu
from huggingface_hub import constants
assert constants.HF_HUB_DISABLE_TELEMETRY
"""
    environment = {n: v for n, v in os.environ.items() if n not in OPT_OUT}
    environment["PYTHONPATH"] = str(ROOT / "src")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""


def traced(home, *command):
    """Run in a network namespace of its own, where nothing can leave; return who was called."""
    tools = [shutil.which("unshare"), shutil.which("strace")]
    if None in tools:
        pytest.skip("needs unshare and strace")
    unshare, strace = tools
    log = home.parent / "trace"
    prefix = (unshare, "-rn", sys.executable, "-c", LOOPBACK, strace, "-f", "-qq", "-o", log)
    prefix += ("-e", "trace=connect,sendto,sendmsg")
    probe = [str(part) for part in (*prefix, "true")]
    with suppress(OSError):
        if subprocess.run(probe, capture_output=True).returncode == 0:
            run(home, *command, prefix=prefix)
            return [line for line in log.read_text(errors="replace").splitlines()
                    if ADDRESS.search(line)]  # fmt: skip
    pytest.skip("this system grants no network namespace or no tracing")
    return []


def test_a_process_that_stays_connects_to_nobody(gallery, home):
    assert traced(home, "-c", SEARCH, gallery, 8) == []


def test_a_command_connects_to_nobody(gallery, home):
    assert traced(home, *soutu("index", gallery, "--model", "tiny")) == []
    assert traced(home, *soutu("search", "红色", "-g", gallery)) == []


@pytest.mark.milvus
def test_milvus_lite_connects_to_nobody_but_itself(gallery, home):
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    store = home.parent / "gallery.db"
    calls = traced(home, *soutu("index", gallery, "--model", "tiny", "--store", store))
    away = [line for line in calls if not re.search(r"127\.0\.0\.1|::1", line)]
    assert away == []
    assert others_files(home) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_home_that_cannot_be_written_is_not_complained_of(gallery, home):
    home.chmod(0o500)
    done = run(home, *soutu("index", gallery, "--model", "tiny"))
    home.chmod(0o700)
    assert "telemetry" not in done.stderr
