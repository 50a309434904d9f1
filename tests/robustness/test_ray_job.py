"""Jobs on real clusters: equal vectors, a node that is lost, a driver that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs the extra ray")
if not Path("/proc/self").exists():
    pytest.skip("looks at processes as Linux shows them", allow_module_level=True)

from soutu.distributed.job import connect, embed
from soutu.distributed.shards import Item, ShardFolder
from soutu.distributed.sources import FolderSource, open_source
from soutu.distributed.worker import WorkerOptions
from soutu.errors import BadInput, ModelMismatch
from soutu.factory import build_encoder
from soutu.images.scan import ImageFile
from soutu.indexing.pipeline import EncodePipeline, IndexOptions
from tests.counting import Counting, Given, Killer
from tests.records import jpegs, samples, write_folder, write_parquet, write_tar

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
STORE = 100_000_000
# A node that is gone (which refuses connections) is noticed in a second or two instead of fifteen;
# one that is merely slow to answer is not taken for it.
SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500,
        "health_check_timeout_ms": 60_000, "health_check_failure_threshold": 3}  # fmt: skip
PATIENCE = 300  # seconds; whatever is waited for comes in a few on an idle machine


@pytest.fixture(scope="module")
def cluster():
    """A head and two more nodes of one core each; this process is connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Ray's nodes and workers inherit these; a token of its own stays out of the home folder.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        node = {"num_cpus": 1, "object_store_memory": STORE}
        head = {**node, "include_dashboard": False, "_system_config": SOON}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.extra = [made.add_node(**node) for _ in range(2)]
        try:
            with connect(made.address):
                yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("tiny", "cpu", threads=1)


def run(source, out, counting, count=2, **how):
    work = WorkerOptions(counting, counting().info, str(out))
    return embed(source, work, model="tiny", workers=count, **how)


def vectors(folder, report):
    """Vectors by key, of all shards; no key twice."""
    found = {}
    for name in report.shards:
        shard = ShardFolder(str(folder)).read(name)
        for row, vector in zip(shard.images, shard.vectors, strict=True):
            assert row.path not in found, f"{row.path} stands in two shards"
            found[row.path] = vector
    return found


def alone(pictures, encoder):
    """The vectors that a run in one process makes."""
    files = [ImageFile(name, 0, 0) for name in pictures]
    with EncodePipeline(encoder, IndexOptions(workers=1)) as pipeline:
        batches = [*pipeline.encode(files, lambda file: pictures[file.path])]
    return {
        file.path: vector
        for batch in batches
        for (file, _), vector in zip(batch.pictures, batch.vectors, strict=True)
    }


def test_folder_tar_and_parquet_give_the_same_vectors(cluster, encoder, tmp_path):
    pictures = jpegs(70)
    folder = write_folder(tmp_path / "photos", pictures)
    write_tar(tmp_path / "tars" / "0.tar", samples(pictures, {"00003.jpg": "灰猫"}))
    write_parquet(tmp_path / "b" / "b.parquet", {"bytes": [*pictures.values()]})
    write_parquet(folder / "p.parquet", {"image_path": [*pictures]})
    wanted = alone(pictures, encoder)
    counting = Counting(tmp_path / "log")
    for place in ("photos", "tars", "b", "photos/p.parquet"):
        out = tmp_path / f"out-{place.replace('/', '-')}"
        report = run(open_source(str(tmp_path / place)), out, counting)
        made = vectors(out, report)
        assert len(made) == 70
        for vector, name in zip(made.values(), pictures, strict=True):
            np.testing.assert_allclose(vector, wanted[name], atol=1e-5)
    assert counting.encoded() == 4 * 70


def test_a_picture_that_crashes_its_process_costs_no_other(cluster, encoder, tmp_path):
    given = [Item(name, "", data) for name, data in jpegs(6).items()]
    given.insert(3, Killer("killer.jpg"))
    given.append(Item("bad.jpg", "", b"no picture"))
    report = run(Given(tuple(given)), tmp_path / "out", Counting(tmp_path / "log"))
    assert (report.images, report.encoded) == (6, 6)
    letters = (tmp_path / "out" / "dead-letters.jsonl").read_text().splitlines()
    told = [(row["key"], row["code"]) for row in map(json.loads, letters)]
    assert told == [("killer.jpg", "image-crashes"), ("bad.jpg", "image-unknown")]


def test_what_stops_a_worker_is_said_as_it_is(cluster, tmp_path):
    folder = write_folder(tmp_path / "photos", jpegs(3))
    source = FolderSource(str(folder), FolderSource(str(folder)).shards()[0].files)
    folder.rename(tmp_path / "moved")
    with pytest.raises(BadInput) as caught:
        run(source, tmp_path / "out", Counting(tmp_path / "log"))
    assert caught.value.code == "source-not-here"
    assert not ShardFolder(str(tmp_path / "out")).finished_names()


def test_a_node_with_another_model_is_refused(cluster, tmp_path):
    source = FolderSource(str(write_folder(tmp_path / "photos", jpegs(3))))
    counting = Counting(tmp_path / "log")
    other = type(counting().info)(**{**vars(counting().info), "fingerprint": "other"})
    with pytest.raises(ModelMismatch) as caught:
        embed(source, WorkerOptions(counting, other, str(tmp_path / "out")), model="tiny",
              workers=1)  # fmt: skip
    assert caught.value.code == "shards-worker"


def test_a_job_that_is_done_does_nothing_and_another_model_is_refused(cluster, tmp_path):
    source = FolderSource(str(write_folder(tmp_path / "photos", jpegs(30))), size=10)
    counting, told = Counting(tmp_path / "log"), []
    first = run(source, tmp_path / "out", counting, progress=lambda *x: told.append(x))
    assert told[0] == (0, 30)
    assert told[-1] == (30, 30)
    again = run(source, tmp_path / "out", counting)
    assert (again.skipped, again.encoded, again.images) == (len(first.shards), 0, 30)
    assert counting.encoded() == 30
    card = counting().info
    work = WorkerOptions(
        counting, type(card)(**{**vars(card), "space": "other"}), str(tmp_path / "out")
    )
    with pytest.raises(ModelMismatch):
        embed(source, work, model="other", workers=1)


def test_slices_that_a_folder_no_longer_has_leave_the_shards(cluster, tmp_path):
    folder = write_folder(tmp_path / "photos", jpegs(12))
    out, counting = tmp_path / "out", Counting(tmp_path / "log")
    run(FolderSource(str(folder), size=4), out, counting)
    (folder / "00000.jpg").unlink()
    report = run(FolderSource(str(folder), size=4), out, counting)
    assert sorted(vectors(out, report)) == [f"{i:05}.jpg" for i in range(1, 12)]
    assert ShardFolder(str(out)).finished_names() == {*report.shards}


DRIVER = """
import sys
from pathlib import Path
from soutu.distributed.job import connect, embed
from soutu.distributed.sources import FolderSource
from soutu.distributed.worker import WorkerOptions
from tests.counting import Counting, Given, Killer
photos, out, log, address = sys.argv[1:]
counting = Counting(Path(log), limit=160)
options = WorkerOptions(counting, counting().info, out)
with connect(address):
    embed(FolderSource(photos, size=16), options, model="tiny", workers=2)
"""


def test_a_driver_that_is_killed_repeats_a_shard_a_worker_at_most(cluster, encoder, tmp_path):
    pictures = jpegs(320)
    folder = write_folder(tmp_path / "photos", pictures)
    out, counting = tmp_path / "out", Counting(tmp_path / "log")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(out), str(counting.log), cluster.address]
    )
    shards = ShardFolder(str(out))
    end = time.monotonic() + PATIENCE
    while len([*out.glob("*.parquet")]) < 4:
        assert driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    while any(map(is_running, counting.pids())):  # Ray ends workers whose driver is dead
        assert time.monotonic() < end
        time.sleep(0.05)
    before = shards.finished_names()
    report = run(FolderSource(str(folder), size=16), out, counting)
    assert before <= {*report.shards}
    assert report.skipped == len(before) < len(report.shards)
    made = vectors(out, report)
    assert sorted(made) == sorted(pictures)
    largest = max(len(shards.read(name).images) for name in report.shards)
    assert 320 <= counting.encoded() <= 320 + 2 * largest


def is_running(pid):
    """Whether the process is there, and not merely waited for by its parent."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def test_a_node_that_is_lost_costs_no_picture(cluster, encoder, tmp_path):
    """Last: the cluster has one node less from here on."""
    pictures = jpegs(240)
    folder = write_folder(tmp_path / "photos", pictures)
    counting = Counting(tmp_path / "log", pause=0.02)
    lost = []

    def lose(done, total):
        if done >= total // 3 and not lost:
            lost.append(cluster.extra.pop())
            cluster.remove_node(lost[0], allow_graceful=False)

    source = FolderSource(str(folder), size=16)
    report = run(source, tmp_path / "out", counting, count=3, progress=lose)
    assert lost
    made, wanted = vectors(tmp_path / "out", report), alone(pictures, encoder)
    assert sorted(made) == sorted(pictures)
    for name, vector in made.items():
        np.testing.assert_allclose(vector, wanted[name], atol=1e-5)


def test_a_cluster_that_is_not_there():
    code = (
        "from soutu.distributed.job import connect\n"
        "from soutu.errors import RemoteUnavailable\n"
        "try:\n"
        "    with connect('127.0.0.1:1'): pass\n"
        "except RemoteUnavailable as fault: print(fault.code, fault)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
    )
    assert done.stdout.startswith("ray-unavailable"), done.stderr
    assert "127.0.0.1:1" in done.stdout
