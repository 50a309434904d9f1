"""A Ray cluster to work on: the one at an address, or one of our own on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soutu
from soutu.errors import RemoteUnavailable

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
        _knock(address)
        with _muted():
            ray.init(**_how(address, cpus))
    except (ConnectionError, RuntimeError, ValueError, OSError) as fault:
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise RemoteUnavailable(
            "ray-unavailable", address=address or "local", fault=reason
        ) from fault
    try:
        _hush()
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


def _knock(address: str | None) -> None:
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


def _hush() -> None:
    """Ray Data prints plans and progress of its own; what a run says is the caller's to say."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
