"""Embedding on Ray: what it costs beside one process, and what a lost node and a killed driver do.

``python -m benchmarks.ray_embedding [--images 20000] [--pace 4000] [--parts pace,loss,kill]``

``pace``: ViT-B/32 in int8 with random weights (which change no speed) on JPEGs of 256 pixels; the
pipeline of one process against a Ray job with a worker a core, in turns, each over the same
pictures, without either's start; and core-seconds a picture from 1,000 to ``--images``. ``loss``:
``tiny`` on a cluster of three nodes, one of which is killed in the middle. ``kill``: the driver is
killed and the job begun again. Needs the extras ``ray``, ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.record import save
from soutu.distributed.ingest import require_ray
from soutu.distributed.job import EmbedReport, connect, embed
from soutu.distributed.shards import ShardFolder
from soutu.distributed.sources import FolderSource
from soutu.distributed.worker import WorkerOptions
from soutu.factory import build_encoder
from soutu.images.scan import ImageFile
from soutu.indexing.pipeline import EncodePipeline, IndexOptions
from tests.counting import Counting

ROOT = Path(__file__).parents[1]
MODEL = "bench-ViT-B-32"
STORE = 200_000_000


def pictures(folder: Path, count: int, side: int) -> Path:
    """``count`` small JPEGs, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    have = len([*folder.glob("*.jpg")])
    for number in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        if number >= have:
            image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR)
            image.save(folder / f"{number:06}.jpg", quality=90)
    return folder


def prepare_model() -> None:
    from soutu.factory import sample_inputs
    from soutu.models.bundle import models_folder
    from soutu.models.export import export
    from soutu.models.open_clip import checkpoint_of, load

    if not (models_folder() / MODEL).is_dir():
        export(load(checkpoint_of("ViT-B-32", "random:0")), MODEL, sample_inputs(), "int8")


def first(folder: Path, count: int, scratch: Path) -> Path:
    """A folder with links to the first ``count`` pictures."""
    part = scratch / f"first-{count}"
    part.mkdir()
    for file in sorted(folder.glob("*.jpg"))[:count]:
        (part / file.name).hardlink_to(file)
    return part


def alone(model: str, folder: Path) -> tuple[float, float, dict[str, Any]]:
    """Seconds that one process takes over the pictures, those of a core, and their vectors by
    name."""
    encoder = build_encoder(model, "cpu")
    files = sorted(folder.glob("*.jpg"))
    encoder.encode_images([np.zeros((224, 224, 3), np.uint8)])
    results: dict[str, Any] = {}
    start, used = time.perf_counter(), time.process_time()
    pictures = [ImageFile(file.name, 0, 0) for file in files]

    def read(picture: ImageFile) -> bytes:
        return (folder / picture.path).read_bytes()

    with EncodePipeline(encoder, IndexOptions()) as pipeline:
        for batch in pipeline.encode(pictures, read):
            names = [picture.path for picture, _ in batch.pictures]
            results.update(zip(names, batch.vectors, strict=True))
    return time.perf_counter() - start, time.process_time() - used, results


def job(folder: Path, out: Path, size: int, workers: int) -> EmbedReport:
    build = partial(build_encoder, MODEL, "cpu", threads=1)
    work = WorkerOptions(build, build().info, str(out))
    source = FolderSource(str(folder), size=size)
    return embed(source, work, model=MODEL, workers=workers)


def all_seconds() -> float:
    """Seconds of a core that this machine has worked: Ray's servers, and processes that have ended
    since, are nobody's children here. Nothing else may run beside."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split()[1:9]
    user, nice, system, _idle, _waits, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def steady(report: EmbedReport) -> float:
    """Pictures a second once the workers have their models."""
    return report.encoded / report.working


def pace(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    prepare_model()
    cores = os.cpu_count() or 1
    folder = pictures(args.data / "256", args.images, 256)
    part = first(folder, args.pace, scratch)
    single, spread, with_loading, single_core = [], [], [], []
    core: dict[str, float] = {}
    everything: dict[str, float] = {}
    with connect(cpus=cores):
        for number in range(args.rounds):
            seconds, used, _ = alone(MODEL, part)
            single.append(args.pace / seconds)
            single_core.append(1000 * used / args.pace)
            report = job(part, scratch / f"pace-{number}", args.size, cores)
            spread.append(steady(report))
            with_loading.append(report.encoded / report.seconds)
            print(f"one process {single[-1]:.1f}/s, Ray {spread[-1]:.1f}/s "
                  f"({with_loading[-1]:.1f}/s with its models' loading)", flush=True)  # fmt: skip
        for count in sorted({1000, 4000, args.images}):
            if count <= args.images:
                some = first(folder, count, scratch / "counts") if count != args.pace else part
                before = all_seconds()
                report = job(some, scratch / f"count-{count}", args.size, cores)
                everything[str(count)] = round(1000 * (all_seconds() - before) / count, 2)
                core[str(count)] = round(1000 * report.core_seconds / report.encoded, 2)
                print(f"{count} pictures: {core[str(count)]} core-ms each", flush=True)
    ratio = statistics.median(b / a for a, b in zip(single, spread, strict=True))
    return {
        "pictures": args.pace,
        "one process, pictures/s": round(statistics.median(single), 1),
        "Ray, pictures/s": round(statistics.median(spread), 1),
        "Ray with models' loading, pictures/s": round(statistics.median(with_loading), 1),
        "Ray to one process": round(ratio, 3),
        "core-ms a picture, one process": round(statistics.median(single_core), 2),
        "core-ms a picture by job": core,
        "with all else that runs, and the workers' start": everything,
        "most to least": round(max(core.values()) / min(core.values()), 3),
    }


def loss(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    folder = pictures(args.data / "64", args.images, 64)
    counting = Counting(scratch / "loss.log")
    node = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    extra = [cluster.add_node(**node) for _ in range(2)]
    lost: list[int] = []

    def lose(done: int, total: int) -> None:
        if done >= total // 2 and not lost:
            lost.append(done)
            cluster.remove_node(extra[0], allow_graceful=False)

    out = scratch / "loss"
    work = WorkerOptions(counting, counting().info, str(out))
    try:
        with connect(cluster.address):
            report = embed(FolderSource(str(folder), size=500), work, model="tiny",
                           workers=3, progress=lose)  # fmt: skip
    finally:
        cluster.shutdown()
    return {"lost after": lost[0], "encoded in all": counting.encoded(),
            "seconds": round(report.seconds, 1), **equal(folder, out, report)}  # fmt: skip


def equal(folder: Path, out: Path, report: EmbedReport) -> dict[str, Any]:
    """Every picture once, and how far its vector is from one process's."""
    expected, keys, furthest = alone("tiny", folder)[2], [], 0.0
    for name in report.shards:
        shard = ShardFolder(str(out)).read(name)
        for row, vector in zip(shard.images, shard.vectors, strict=True):
            keys.append(row.path)
            furthest = max(furthest, float(np.abs(vector - expected[row.path]).max()))
    assert sorted(keys) == sorted(expected), "a picture is missing or stands twice"
    assert furthest < 1e-5, furthest
    return {"pictures": len(keys), "each once": True, "largest difference": furthest}


DRIVER = "from benchmarks.ray_embedding import drive; drive()"


def drive() -> None:
    """The process that is killed, and the one that goes on: ``FOLDER OUT LOG``."""
    folder, out, log = sys.argv[1:]
    counting = Counting(Path(log))
    with connect(cpus=2):
        embed(
            FolderSource(folder, size=500),
            WorkerOptions(counting, counting().info, out),
            model="tiny",
            workers=2,
        )


def kill(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    folder = pictures(args.data / "64", args.images, 64)
    out, counting = scratch / "kill", Counting(scratch / "kill.log")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", DRIVER, str(folder), str(out), str(counting.log)]
    driver = subprocess.Popen(command, env=environment)
    shards = args.images // 500
    while driver.poll() is None and len([*out.glob("*.parquet")]) < shards // 2:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = len([*out.glob("*.parquet")])
    subprocess.run(command, env=environment, check=True)
    sizes = [len(ShardFolder(str(out)).read(p.stem).images) for p in out.glob("*.parquet")]
    repeated = counting.encoded() - args.images
    assert sum(sizes) == args.images
    assert repeated <= 2 * max(sizes), "more than a shard a worker was repeated"
    return {"pictures": args.images, "shards": len(sizes), "finished when killed": finished,
            "repeated pictures": repeated, "largest shard": max(sizes), "workers": 2}  # fmt: skip


PARTS = {"pace": pace, "loss": loss, "kill": kill}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--pace", type=int, default=4000, help="pictures for the comparison")
    parser.add_argument("--size", type=int, default=250, help="pictures in a shard of pace")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "soutu-ray")
    parser.add_argument("--dry", action="store_true", help="print, do not save")
    args = parser.parse_args()
    require_ray()
    os.environ.setdefault("SOUTU_MODELS", str(args.data / "models"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    results: dict[str, Any] = {}
    args.data.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=args.data))
    (scratch / "counts").mkdir()
    try:
        for name in args.parts.split(","):
            results[name] = PARTS[name](args, scratch)
            print(name, results[name], flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not args.dry:
        print(save("ray_embedding", {"model": "ViT-B-32 int8, random weights", **results}))


if __name__ == "__main__":
    main()
