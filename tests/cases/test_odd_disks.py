"""Disks that are full, read-only or pulled out, and files of odd times, stop no search."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from soutu.fs import modified_ns
from soutu.gallery import Gallery
from soutu.images.scan import walk
from tests.cases.commands import MAIN, pictures, soutu

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits and permissions of POSIX")
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # not one byte can be written to any file
"""


@pytest.fixture
def gallery(tmp_path):
    folder = pictures(tmp_path / "g", "a.png", "b.png")
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index()
    return folder


@pytest.mark.parametrize("command", [["search", "cat"], ["info"], ["explain", "cat"],
                                     ["caption", "{g}/a.png"], ["export", "--help"]])  # fmt: skip
def test_a_full_disk_is_searched(gallery, command):
    words = [word.format(g=gallery) for word in command]
    done = soutu(*words, "-g", gallery, code=FULL + MAIN)
    assert done.returncode in (0, 1), done.stderr
    if command[0] == "search":
        assert b"not logged" in done.stderr
        assert b"a.png" in done.stdout


def test_a_full_disk_is_named_by_what_must_write(gallery):
    pictures(gallery, "new/c.png")
    done = soutu("index", gallery, code=FULL + MAIN)
    assert (done.returncode, b"bug" in done.stderr) == (5, False), done.stderr
    assert soutu("index", gallery).returncode == 0


KILLED = """
import os, sys
from soutu.gallery import Gallery
gallery = Gallery.open(sys.argv[1], settings={"model": "tiny"})
gallery.index()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(tmp_path):
    """An index whose writer was killed: its rows stand in the log beside the database."""
    folder = pictures(tmp_path / "k", "a.png", "b.png", "c.png")
    done = subprocess.run([sys.executable, "-c", KILLED, folder], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    log = folder / ".soutu" / "rows.db-wal"
    assert log.stat().st_size
    return folder


def freeze(folder):
    for path in (*folder.rglob("*"), folder):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def thaw(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)


@pytest.mark.parametrize("shared_memory", [True, False])
def test_what_was_committed_is_found_on_a_frozen_disk(killed, shared_memory):
    if not shared_memory:
        (killed / ".soutu" / "rows.db-shm").unlink()
    prefix = ()
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everything, and cannot be kept from it here")
        prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    freeze(killed)
    before = {path.name: path.stat().st_size for path in (killed / ".soutu").iterdir()}
    for command in (["info"], ["search", "cat", "-k", "9", "--paths-only"]):
        done = soutu(*command, "-g", killed, prefix=prefix, cwd="/")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(b".png") in (0, 3), "all or, in info, none is named"
    assert done.stdout.count(b".png") == 3
    after = {path.name: path.stat().st_size for path in (killed / ".soutu").iterdir()}
    assert before == after
    thaw(killed)
    with closing(Gallery.open(killed)) as opened:
        assert opened.doctor().healthy


def test_a_log_for_which_there_is_no_room_anywhere_is_named(killed):
    done = soutu("search", "cat", "-g", killed, code=FULL + MAIN)
    assert (done.returncode, b"bug" in done.stderr) == (5, False), done.stderr
    assert soutu("search", "cat", "-g", killed).returncode == 0


@pytest.mark.parametrize("year", [1600, 1677, 1901, 1960, 1970, 2038, 2262, 2263, 2400, 2486, 9000])
def test_files_of_far_times_are_pictures(gallery, year):
    seconds = (year - 1970) * 31_556_952
    try:
        os.utime(gallery / "a.png", (seconds, seconds))
    except (OSError, OverflowError):
        pytest.skip("this system has no such time")
    [status] = [file for file in walk(gallery) if file.path == "a.png"]
    assert -(2**63) <= status.mtime_ns < 2**63
    assert status.mtime_ns == modified_ns((gallery / "a.png").stat())
    pictures(gallery, "far.png")
    os.utime(gallery / "far.png", (seconds, seconds))
    with Gallery.open(gallery) as opened:
        assert opened.index().failed == ()
        assert opened.index().encoded == 0
        assert len(opened.search("cat")) >= 2
        opened.search(gallery / "a.png")
        assert opened.replay().left_out == {}
        for where in ("modified >= 2000", "modified < 2000", "not modified = 2020"):
            opened.search("cat", where=where)
