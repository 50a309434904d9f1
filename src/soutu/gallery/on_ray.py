"""Indexing with Ray: many processes or machines embed the pictures, this one stores them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import DEFAULT, build_encoder
from soutu.config import Config, load_config
from soutu.distributed.extra import require
from soutu.gallery import upkeep
from soutu.gallery.opened import RECORDS, Opened
from soutu.store.home import absolute

if TYPE_CHECKING:
    from soutu.distributed.fill import FillReport
    from soutu.distributed.items import Source
    from soutu.distributed.job import EmbedReport
    from soutu.store.base import VectorStore

Progress = Callable[[int, int], None]
FEW = 32  # pictures are encoded by the run itself before Ray has started
SCRATCH = "ray"  # below the index: shards that are not to be kept


@dataclass
class OnRay:
    """How Ray is to embed: the cluster at ``address`` or one on this machine, ``workers`` encoders
    (None: one a GPU with ``--device cuda``, else one a core), and where finished ``shards`` are to
    be kept (a folder or URL that every machine reaches). ``report`` is what was done last."""

    address: str | None = None
    workers: int | None = None
    shards: str | None = None
    report: EmbedReport | None = None

    def __post_init__(self) -> None:
        """Raises MissingExtra."""
        require()

    def fill(self, opened: Opened, store: VectorStore, progress: Progress | None) -> int:
        """Embed what the gallery's folder has and its index has not; returns how many pictures
        were stored."""
        from soutu.distributed.fill import fill_folder, missing_files
        from soutu.distributed.folders import FolderSource
        from soutu.distributed.shards import ShardFolder

        root = str(opened.root)
        missing = missing_files(opened.root, store)
        if len(missing) <= FEW and not self.shards:
            return 0
        # Shards that are kept are of all that there is; others only of what is missing.
        source = FolderSource(root, None if self.shards else missing)
        with self.place(opened, root) as place:
            done = self.embed(source, place, opened.model, opened.config, progress)
            return fill_folder(store, ShardFolder(place), done.shards)

    @contextmanager
    def place(self, opened: Opened, source: str) -> Iterator[str]:
        """Where shards go; those that are not to be kept are removed once they are stored."""
        from soutu.distributed.items import shard_name
        from soutu.distributed.places import join

        if self.shards:
            yield self.shards
            return
        scratch = opened.home / SCRATCH
        # A run that was killed is gone on with, unless it was of another model.
        yield join(str(scratch), shard_name("", (opened.encoder.card.fingerprint, source)))
        shutil.rmtree(scratch, ignore_errors=True)

    def embed(
        self, source: Source, place: str, model: str, config: Config, progress: Progress | None
    ) -> EmbedReport:
        """Embed ``source`` with ``model`` into shards at ``place``."""
        from soutu.distributed import places
        from soutu.distributed.cluster import connected
        from soutu.distributed.embed import Work
        from soutu.distributed.job import embed

        on_gpu = config.device == "cuda"
        named = places.absolute(model) if Path(model).is_dir() else model
        build = partial(build_encoder, named, config.device, threads=0 if on_gpu else 1)
        card, batch = build().card, config.batch or 0
        work = Work(build, card, places.absolute(place), config.max_pixels, batch)
        with connected(self.address, cpus=None if self.address else self.workers) as cluster:
            encoders = cluster.encoders(self.workers, on_gpu=on_gpu)
            self.report = embed(source, work, model=model, encoders=encoders, progress=progress)
        return self.report


def is_records(place: str) -> bool:
    """Whether a name stands for tars, Parquet files or something remote, and not for a folder of
    pictures on this machine. Raises MissingExtra."""
    require()
    from soutu.distributed.places import is_remote
    from soutu.distributed.sources import PARQUET, TARS, records

    return is_remote(place) or place.endswith((*TARS, *PARQUET)) or bool(records(place))


def index_records(
    place: str,
    on_ray: OnRay,
    *,
    index: str | None,
    settings: Mapping[str, object],
    progress: Progress | None = None,
) -> FillReport | None:
    """Embed tars, Parquet files or a remote folder; with ``index`` its shards fill the index that
    is or will be there. What was embedded: ``on_ray.report``."""
    from soutu.distributed.fill import fill_records
    from soutu.distributed.shards import ShardFolder
    from soutu.distributed.sources import open_source

    source = open_source(place)
    home = absolute(Path(index)) if index else None
    config = load_config(home, settings)
    if home is None:
        assert on_ray.shards is not None, "shards or an index, or nothing would be left"
        on_ray.embed(source, on_ray.shards, config.model or DEFAULT, config, progress)
        return None
    with Opened(_root(source.place, home), home, config) as opened:
        opened._store = store = opened._create_store(opened.encoder.card)
        opened._remember(None, None)
        if store.recall(RECORDS) != source.place:
            store.remember(RECORDS, source.place)
        with on_ray.place(opened, source.place) as shards:
            done = on_ray.embed(source, shards, opened.model, config, progress)
            filled = fill_records(store, opened.encoder, ShardFolder(shards), done.shards)
        upkeep.refresh(store, opened.encoder, config)
        return filled


def _root(source: str, home: Path) -> Path:
    """What the index takes for its folder: keys begin with the names of files there."""
    from soutu.distributed.places import is_remote

    if is_remote(source):
        return home
    return Path(source) if Path(source).is_dir() else Path(source).parent
