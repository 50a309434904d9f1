"""Embedding a source on Ray: shards to workers, finished ones passed over, a report at the end."""

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
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

import soutu
from soutu.distributed.shards import DeadLetter, Shard, ShardFolder, Source
from soutu.distributed.worker import DECODING, Embedder, WorkerOptions
from soutu.errors import BadInput, MissingExtra, RemoteUnavailable

# The extra ``ray``, asked for before anything here that needs it is imported.


def require_ray() -> None:
    """Raises MissingExtra where Ray or what it brings is not installed."""
    # Read when Ray is imported: nobody's use is reported anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import fsspec
        import pyarrow.parquet
        import ray.data
    except ImportError as fault:
        raise MissingExtra("extra-ray", fault=fault) from fault
    del fsspec, pyarrow, ray


# A Ray cluster to work on: the one at an address, or one of our own on this machine.


STORE = 512_000_000  # bytes of shared memory for decoded pictures, where there is as much
SHARED = Path("/dev/shm")
KNOCK = 10  # seconds
# Ray ends a process that has had no task for a second and starts another for the next, which costs
# a core's second. Two that decode for two encoders wait as long each time: a fifth of all work.
IDLE = 600_000  # milliseconds
LEAST = 80_000_000  # Ray refuses less than 75 MiB


@dataclass(frozen=True)
class Encoders:
    """How many work at the same time, and how many GPUs each has."""

    count: int
    gpus: int = 0


@dataclass(frozen=True)
class Cluster:
    """What a cluster has when a job begins."""

    cpus: int
    gpus: int

    def encoders(self, count: int | None, *, on_gpu: bool) -> Encoders:
        """``count`` of them; None: one a GPU, or one a core."""
        return Encoders(max(1, count or (self.gpus if on_gpu else self.cpus)), int(on_gpu))


@contextmanager
def connected(address: str | None = None, *, cpus: int | None = None) -> Iterator[Cluster]:
    """Yields what the cluster has. Without an ``address`` one is started on this machine
    (with ``cpus`` cores; None: all) and ended afterwards; if this process is connected already,
    that connection is used and kept. Raises RemoteUnavailable."""
    # Ray's C++ side reads these when it starts; what it says there is of no use to anybody here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield _cluster()
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        _wait_for_address(address)
        with _muted():
            ray.init(**_how(address, cpus))
    except (ConnectionError, RuntimeError, ValueError, OSError) as fault:
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise RemoteUnavailable(
            "ray-unavailable", address=address or "local", fault=reason
        ) from fault
    try:
        _silence_ray()
        yield _cluster()
    finally:
        ray.shutdown()


def _cluster() -> Cluster:
    import ray

    told = ray.cluster_resources()
    return Cluster(int(told.get("CPU", 1)), int(told.get("GPU", 0)))


def _how(address: str | None, cpus: int | None) -> dict[str, Any]:
    how: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    if address:
        return how
    # Workers run what runs here, installed or not.
    path = os.pathsep.join(filter(None, [_package(), os.environ.get("PYTHONPATH", "")]))
    return how | {
        "include_dashboard": False,
        "num_cpus": cpus,
        "object_store_memory": _store(),
        "_system_config": {"idle_worker_killing_time_threshold_ms": IDLE},
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }


def _wait_for_address(address: str | None) -> None:
    """OSError where nobody listens; Ray itself would go on asking for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()


def _package() -> str:
    return str(Path(soutu.__file__).resolve().parents[1])


def _store() -> int:
    """As much as containers give of shared memory, where that is little (Docker: 64 MB)."""
    if not SHARED.is_dir():
        return STORE
    return max(LEAST, min(STORE, int(0.8 * shutil.disk_usage(SHARED).free)))


@contextmanager
def _muted() -> Iterator[None]:
    """Ray's C++ side says on standard error itself that it was asked to say nothing there."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _silence_ray() -> None:
    """Ray Data prints plans and progress of its own; what a run says is the caller's to say."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


READERS = 16  # threads that look into finished shards


@dataclass(frozen=True)
class EmbedReport:
    """What a job did. ``shards`` are all in the source's order, ``skipped`` of them were finished
    before; ``encoded`` pictures were embedded now, all shards hold ``images`` and ``letters``;
    ``seconds`` of wall clock passed, the workers' start included, ``working`` of them since the
    first had its model; ``core_seconds`` is what decoding and encoding took."""

    shards: tuple[str, ...]
    skipped: int
    encoded: int
    images: int
    letters: tuple[DeadLetter, ...]
    seconds: float
    working: float
    core_seconds: float


def embed(
    source: Source,
    work: WorkerOptions,
    *,
    model: str,
    encoders: Encoders,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Embed every picture of ``source`` into Parquet shards in ``work.folder`` with as many
    ``encoders``. The process must be connected (``cluster.connected``).
    ``progress`` is told pictures done and of how many; shards, where only reading tells more.

    A job that was stopped or killed is gone on with by calling this again: finished shards are
    passed over. Raises what the sources and workers raise; BadInput for an empty source (more
    likely a disk that is not mounted) and for shards of another one, ModelMismatch for those of
    another model, RemoteUnavailable where the cluster is lost.
    """
    folder = ShardFolder(work.folder)
    shards = source.shards()
    if not shards:
        raise BadInput("source-empty", place=source.place)
    folder.begin(source.place, model, work.info)
    finished = folder.finished()
    left = [shard for shard in shards if shard.name not in finished]
    told = _Progress(shards, left, progress)
    start, encoded, seconds = time.time(), 0, 0.0
    began = float("inf")
    for row in _rows(left, work, encoders) if left else ():
        if not folder.has(row["name"]):
            raise BadInput("shards-not-shared", folder=work.folder)
        encoded += row["encoded"]
        seconds += row["seconds"]
        began = min(began, row["began"])
        told.done(row["name"])
    end = time.time()
    names = tuple(shard.name for shard in shards)
    # Of slices that a folder no longer has, nobody could tell what is in them twice.
    folder.tidy({*names})
    images, letters = _counted(folder, names)
    folder.write_letters(iter(letters))
    skipped = len(shards) - len(left)
    # A worker's clock may be another machine's.
    working = max(0.0, end - max(start, began)) if left else 0.0
    return EmbedReport(names, skipped, encoded, images, letters, end - start, working, seconds)


def _rows(left: list[Shard], work: WorkerOptions, encoders: Encoders) -> Iterator[dict[str, Any]]:
    """What the workers say of each shard, as they finish."""
    how: dict[str, Any] = {"num_gpus": encoders.gpus} if encoders.gpus else {}
    workers = min(encoders.count, len(left))
    shards = [{"shard": shard} for shard in left]
    jobs = ray.data.from_items(shards, override_num_blocks=len(shards)).map(
        Embedder,
        fn_constructor_kwargs={"work": work},
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=DECODING,
        **how,
    )
    try:
        for row in jobs.iter_rows():
            if row["fault"]:
                raise pickle.loads(row["fault"])
            yield row
    except RayError as fault:
        lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(fault).__name__
        raise RemoteUnavailable("ray-failed", fault=reason) from fault


def _counted(folder: ShardFolder, names: tuple[str, ...]) -> tuple[int, tuple[DeadLetter, ...]]:
    with ThreadPoolExecutor(READERS) as pool:
        found = [*pool.map(folder.counted, names)]
    return sum(n for n, _ in found), tuple(letter for _, more in found for letter in more)


class _Progress:
    """Counts pictures where all shards know theirs, else shards."""

    def __init__(
        self, shards: list[Shard], left: list[Shard], tell: Callable[[int, int], None] | None
    ) -> None:
        known = all(shard.count is not None for shard in shards)
        self._weight = {s.name: (s.count or 0) if known else 1 for s in shards}
        self._tell, self._total = tell, sum(self._weight.values())
        self._done = self._total - sum(self._weight[s.name] for s in left)
        self._say()

    def done(self, name: str) -> None:
        self._done += self._weight[name]
        self._say()

    def _say(self) -> None:
        if self._tell and self._total:
            self._tell(self._done, self._total)
