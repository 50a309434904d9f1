"""Watching a folder: what changes is indexed, what need not be is not."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from soutu.errors import IndexCorrupt, MissingExtra
from soutu.fs import write_lock
from soutu.gallery import Gallery
from tests.conftest import heeding_ctrl_c, picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


class Watched:
    """A gallery that is watched by a thread; ``next`` waits for its next report."""

    def __init__(self, gallery):
        self.gallery, self.stop, self.reports = gallery, threading.Event(), []
        self._seen = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        for report in self.gallery.watch(stop=self.stop):
            self.reports.append(report)

    def next(self, seconds=20):
        until = time.monotonic() + seconds
        while len(self.reports) <= self._seen:
            assert time.monotonic() < until, "nothing was reported"
            time.sleep(0.02)
        self._seen += 1
        return self.reports[self._seen - 1]

    def nothing_for(self, seconds):
        time.sleep(seconds)
        return len(self.reports) == self._seen

    def close(self):
        self.stop.set()
        self._thread.join()


@pytest.fixture
def watched(photos, tmp_path):
    pytest.importorskip("watchfiles", reason="watching needs watchfiles (extra watch)")
    with Gallery.open(photos, model=str(write_bundle(tmp_path / "model"))) as gallery:
        watched = Watched(gallery)
        yield watched
        watched.close()


def test_new_changed_renamed_and_removed_files_are_followed(watched, photos):
    assert watched.next().encoded == 3
    Image.fromarray(picture(7)).save(photos / "new.png")
    assert watched.next().encoded == 1
    (photos / "new.png").rename(photos / "sub" / "named.png")
    report = watched.next()
    assert (report.renamed, report.encoded) == (1, 0)
    (photos / "sub" / "named.png").unlink()
    (photos / "sub" / "c.webp").unlink()
    (photos / "sub").rmdir()
    assert watched.next().removed == 2
    assert watched.nothing_for(1.5), "the index itself does not count"


def test_other_files_do_not_count(watched, photos):
    watched.next()
    (photos / "notes.txt").write_text("no picture")
    (photos / ".soutu" / "journal.jsonl").write_text("{}")
    assert watched.nothing_for(3)


def test_what_fails_is_told_and_watching_goes_on(watched, photos):
    watched.next()
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert [str(fault.fields["path"]) for fault in watched.next().failed] == ["broken.jpg"]
    Image.fromarray(picture(8)).save(photos / "broken.jpg")
    report = watched.next()
    assert (report.encoded, report.failed) == (1, ())


def test_while_another_writes_it_waits(watched, photos):
    watched.next()
    with write_lock(photos / ".soutu"):
        Image.fromarray(picture(9)).save(photos / "late.png")
        fault = watched.next()
        assert isinstance(fault, IndexCorrupt)
        assert fault.code == "index-locked"
        assert watched.nothing_for(1.5), "told once"
    assert watched.next().encoded == 1


def test_without_watchfiles_the_extra_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    model = str(write_bundle(tmp_path / "model"))
    with Gallery.open(photos, model=model) as gallery, pytest.raises(MissingExtra) as told:
        next(iter(gallery.watch()))
    assert "soutu[watch]" in str(told.value)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT as POSIX has it")
def test_ctrl_c_ends_the_command_well(photos, tmp_path):
    pytest.importorskip("watchfiles", reason="watching needs watchfiles (extra watch)")
    model = write_bundle(tmp_path / "model")
    code = "from soutu.cli import main; main()"
    command = [sys.executable, "-c", code, "index", photos, "--model", model, "--watch"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=heeding_ctrl_c,
    ) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        lines += process.stderr.read().splitlines()
    assert process.returncode == 0, lines
    assert "watching" in lines[0]
    assert "3" in lines[1]
    assert "stopped watching" in lines[-1]
