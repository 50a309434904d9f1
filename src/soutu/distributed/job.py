"""Embedding a source on Ray: shards to workers, finished ones passed over, a report at the end."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from soutu.distributed.cluster import Encoders
from soutu.distributed.embed import DECODING, Embedder, Work
from soutu.distributed.items import Shard, Source
from soutu.distributed.shards import Letter, ShardFolder
from soutu.errors import BadInput, RemoteUnavailable

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
    letters: tuple[Letter, ...]
    seconds: float
    working: float
    core_seconds: float


def embed(
    source: Source,
    work: Work,
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
    folder.begin(source.place, model, work.card)
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


def _rows(left: list[Shard], work: Work, encoders: Encoders) -> Iterator[dict[str, Any]]:
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


def _counted(folder: ShardFolder, names: tuple[str, ...]) -> tuple[int, tuple[Letter, ...]]:
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
