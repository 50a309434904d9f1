"""``soutu index --engine ray``: the same index as without, and tars into an index."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs the extra ray")

from soutu.distributed.job import connect
from soutu.store.sqlite.store import LocalStore
from tests.records import jpegs, samples, write_folder, write_tar

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    with connect(cpus=2):
        yield


def indexed(folder):
    """Rows and vectors of an index, by path."""
    with LocalStore.open(folder / ".soutu") as store:
        files = store.files()
        ids = sorted({file.image_id for file in files.values()})
        rows = {row.paths: (row.width, row.height, row.captions) for row in store.images(ids)}
        vectors = {row.paths: v for row, v in zip(store.images(ids), store.image_vectors(ids),
                                                  strict=True)}  # fmt: skip
        return {p: (f.size, f.mtime_ns) for p, f in files.items()}, rows, vectors


def test_decoders_stay_between_their_tasks(cluster, tmp_path):
    """To start one again costs as much as it decodes in a second: Ray would, after one."""
    import ray

    @ray.remote(num_cpus=0.5)
    def task():
        (tmp_path / str(os.getpid())).touch()
        while len([*tmp_path.iterdir()]) < 4:  # each in a process of its own
            time.sleep(0.05)
        return os.getpid()

    before = {*ray.get([task.remote() for _ in range(4)], timeout=300)}
    time.sleep(4)
    assert len(before) == 4, "more than Ray keeps for two cores"
    assert [pid for pid in before if not Path(f"/proc/{pid}").exists()] == []


def test_a_folder_ends_in_the_same_index(cluster, tmp_path, soutu, monkeypatch):
    monkeypatch.setattr("soutu.distributed.ingest.MIN_PICTURES", 0)
    plain = write_folder(tmp_path / "plain", jpegs(40))
    (plain / "copy.jpg").write_bytes((plain / "00003.jpg").read_bytes())
    (plain / "bad.jpg").write_bytes(b"no picture")
    (plain / "captions.csv").write_text("image_path,caption\n00001.jpg,灰猫\n", "utf-8")
    spread = shutil.copytree(plain, tmp_path / "spread")
    ray = ("--engine", "ray", "--workers", 2)
    for turn in ("first", "second"):
        reports = []
        for folder, how in ((plain, ()), (spread, ray)):
            captions = ("--captions", folder / "captions.csv")
            code, out, err = soutu("index", folder, "--model", "tiny", "--json", *captions, *how)
            assert code == 0, err
            told = json.loads(out)
            told.pop("generation")
            reports.append(told)
        assert reports[0] == reports[1], turn
        (files, rows, vectors), (files2, rows2, vectors2) = indexed(plain), indexed(spread)
        assert (files, rows) == (files2, rows2), turn
        for paths, vector in vectors.items():
            np.testing.assert_allclose(vector, vectors2[paths], atol=1e-5)
        if turn == "second":
            break
        for folder in (plain, spread):  # renamed, removed, new, changed
            (folder / "00005.jpg").rename(folder / "moved.jpg")
            (folder / "00006.jpg").unlink()
            shutil.copy2(plain / "00003.jpg", folder / "00007.jpg")
        for name, data in jpegs(2, seed=7).items():
            (plain / f"new-{name}").write_bytes(data)
            shutil.copy2(plain / f"new-{name}", spread)
    assert not (spread / ".soutu" / "ray").exists()


def test_tars_become_shards_and_an_index(cluster, tmp_path, soutu):
    pictures = jpegs(12)
    tars = tmp_path / "tars"
    write_tar(tars / "00000.tar", samples(pictures, {"00003.jpg": "灰猫"}))
    where = ("--index", tmp_path / "index", "--shards", tmp_path / "out", "--model", "tiny")
    code, out, err = soutu("index", tars, "--engine", "ray", *where, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert {k: told[k] for k in ("images", "shards", "encoded", "failed", "added", "captions")} == {
        "images": 12, "shards": 1, "encoded": 12, "failed": 0, "added": 12, "captions": 1
    }  # fmt: skip
    assert "12 pictures" in err
    code, out, _ = soutu("search", "灰猫", "--index", tmp_path / "index", "--paths-only")
    assert code == 0
    assert "00000.tar/00003.jpg" in out
    code, _, err = soutu("index", tars, "--index", tmp_path / "index")
    assert code == 2, "a folder's run would forget all that was in the tars"
    assert "--engine ray" in err


def test_options_that_do_not_go_together(soutu, tmp_path, photos):
    tar = write_tar(tmp_path / "x.tar", jpegs(1))
    for wrong in (
        (photos, "--shards", tmp_path), (photos, "--address", "x:1"),
        (photos, "--engine", "ray", "--watch"), (photos, "--engine", "ray", "--dry-run"),
        (tar, "--engine", "ray"),
    ):  # fmt: skip
        code, _, err = soutu("index", *wrong)
        assert code == 2, wrong
        assert "--shards" in err


def test_without_the_extra_it_is_named(soutu, monkeypatch, photos):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    code, _, err = soutu("index", photos, "--engine", "ray")
    assert code == 3
    assert "soutu[ray]" in err


def test_nothing_but_our_words_is_printed_and_no_process_is_left(tmp_path):
    folder = write_folder(tmp_path / "photos", jpegs(3))
    arguments = ["index", folder, "--engine", "ray", "--model", "tiny", "--shards", tmp_path / "s",
                 "--workers", "1"]  # fmt: skip
    mark = f"SOUTU_MARK={tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", "from soutu.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "SOUTU_MARK": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith(str(folder)) for line in lines)
    if Path("/proc/self/environ").is_file():
        end = time.monotonic() + 120  # those that were told to end are allowed to
        while (left := [*marked(mark)]) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left


def marked(mark):
    """Processes that were started with this in their environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                yield (process / "cmdline").read_bytes()
