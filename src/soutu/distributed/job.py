"""Embed a source on Ray: shards to workers, finished ones skipped, a report at the end."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

import soutu
from soutu.distributed.shards import DeadLetter, Shard, ShardFolder, Source
from soutu.distributed.worker import TASK_CPUS, Embedder, WorkerOptions
from soutu.errors import BadInput, RemoteUnavailable

Progress = Callable[[int, int], None]
SHARED_MEMORY = Path("/dev/shm")
OBJECT_STORE = 512_000_000  # bytes of shared memory for decoded pictures, where there is as much
_LEAST_OBJECT_STORE = 80_000_000  # Ray refuses less than 75 MiB
# Ray ends a process that has had no task for a second and starts another for the next, which costs
# a core's second. Two that decode for two encoders wait as long each time: a fifth of all work.
_IDLE_MS = 600_000
_CONNECT_SECONDS = 10
_READERS = 16  # threads that look into finished shards


@dataclass(frozen=True)
class Cluster:
    """What a cluster has when a job begins."""

    cpus: int
    gpus: int


@contextmanager
def connect(address: str | None = None, *, cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to the cluster at ``address``, or start one on this machine and end it afterwards.

    One of our own has ``cpus`` cores (None: all). If this process is connected already, that
    connection is used and kept.

    Raises
    ------
    RemoteUnavailable
        No cluster answers, or none can be started.
    """
    # Ray's C++ side reads this when it starts; what it says there is of no use to anybody here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        yield _resources()
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():  # where nobody listens Ray would go on asking for minutes
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        with _silence_stderr():
            ray.init(**_init_options(address, cpus))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = address or "local"
        raise RemoteUnavailable("ray-unavailable", address=where, error=reason) from error
    try:
        # Ray Data prints plans and progress of its own; what a run says is the caller's to say.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        yield _resources()
    finally:
        ray.shutdown()


def _resources() -> Cluster:
    resources = ray.cluster_resources()
    return Cluster(int(resources.get("CPU", 1)), int(resources.get("GPU", 0)))


def _init_options(address: str | None, cpus: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    if address:
        return options
    object_store = OBJECT_STORE
    if SHARED_MEMORY.is_dir():  # containers give little of it (Docker: 64 MB)
        free = int(0.8 * shutil.disk_usage(SHARED_MEMORY).free)
        object_store = max(_LEAST_OBJECT_STORE, min(OBJECT_STORE, free))
    # Workers run what runs here, installed or not.
    package = str(Path(soutu.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    return options | {
        "include_dashboard": False,
        "num_cpus": cpus,
        "object_store_memory": object_store,
        "_system_config": {"idle_worker_killing_time_threshold_ms": _IDLE_MS},
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discard what is written to file descriptor 2.

    Ray's C++ side says there itself that it was asked to say nothing there.
    """
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@dataclass(frozen=True)
class EmbedReport:
    """What a job did.

    ``shards`` are all in the source's order, ``skipped`` of them were finished before; ``encoded``
    pictures were embedded now, all shards hold ``images`` and ``dead_letters``. ``seconds`` of wall
    clock passed, the workers' start included, ``working`` of them since the first had its model;
    ``core_seconds`` is what decoding and encoding took.
    """

    shards: tuple[str, ...]
    skipped: int
    encoded: int
    images: int
    dead_letters: tuple[DeadLetter, ...]
    seconds: float
    working: float
    core_seconds: float


def embed(
    source: Source,
    options: WorkerOptions,
    *,
    model: str,
    workers: int,
    gpus: int = 0,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed every picture of ``source`` into Parquet shards in ``options.folder``.

    The process must be connected (``connect``). A job that was stopped or killed is resumed by
    calling this again: finished shards are skipped.

    Parameters
    ----------
    workers, gpus
        How many encoders work at the same time, and how many GPUs each has.
    progress
        Called with pictures done and in all; with shards, where only reading tells more.

    Raises
    ------
    BadInput
        The source is empty (more likely a disk that is not mounted) or cannot be read, or the
        shards there are of another one.
    ModelMismatch
        The shards there are of another model.
    RemoteUnavailable
        The cluster is lost.
    """
    folder = ShardFolder(options.folder)
    shards = source.shards()
    if not shards:
        raise BadInput("source-empty", path=source.path)
    folder.begin(source.path, model, options.info)
    finished = folder.finished_names()
    unfinished = [shard for shard in shards if shard.name not in finished]
    has_counts = all(shard.count is not None for shard in shards)
    weights = {shard.name: (shard.count or 0) if has_counts else 1 for shard in shards}
    total = sum(weights.values())
    done = total - sum(weights[shard.name] for shard in unfinished)
    start, began, encoded, seconds = time.time(), float("inf"), 0, 0.0
    if progress and total:
        progress(done, total)
    for result in _run_workers(unfinished, options, workers, gpus) if unfinished else ():
        if not folder.is_finished(result["name"]):
            raise BadInput("shards-not-shared", folder=options.folder)
        encoded += result["encoded"]
        seconds += result["seconds"]
        began = min(began, result["began"])
        done += weights[result["name"]]
        if progress and total:
            progress(done, total)
    end = time.time()
    names = tuple(shard.name for shard in shards)
    # Of parts that a folder no longer has, nobody could tell what is in them twice.
    folder.clean_up({*names})
    with ThreadPoolExecutor(_READERS) as pool:
        counts, dead_letters = zip(*pool.map(folder.summary, names), strict=True)
    letters = tuple(letter for part in dead_letters for letter in part)
    folder.write_dead_letters(letters)
    return EmbedReport(
        shards=names,
        skipped=len(shards) - len(unfinished),
        encoded=encoded,
        images=sum(counts),
        dead_letters=letters,
        seconds=end - start,
        # A worker's clock may be another machine's.
        working=max(0.0, end - max(start, began)) if unfinished else 0.0,
        core_seconds=seconds,
    )


def _run_workers(
    shards: list[Shard], options: WorkerOptions, workers: int, gpus: int
) -> Iterator[dict[str, Any]]:
    """Yield what the workers say of each shard (``Embedder``), as they finish."""
    rows = [{"shard": shard} for shard in shards]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Embedder,
        fn_constructor_kwargs={"options": options},
        compute=ActorPoolStrategy(size=min(workers, len(shards)), max_tasks_in_flight_per_actor=2),
        num_cpus=TASK_CPUS,
        num_gpus=gpus or None,
    )
    try:
        for row in results.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield row
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise RemoteUnavailable("ray-failed", error=reason) from error
