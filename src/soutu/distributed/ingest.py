"""Indexing with Ray: many processes or machines embed the pictures, this one stores them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soutu import maintenance
from soutu.distributed.job import require_ray
from soutu.distributed.shards import EmbeddedRow, ShardFolder
from soutu.factory import build_encoder
from soutu.fs import absolute
from soutu.gallery import RECORDS, Gallery
from soutu.images.scan import ImageFile
from soutu.indexing.diff import diff, first_files
from soutu.indexing.indexer import encode_captions
from soutu.models.base import Encoder
from soutu.models.catalog import DEFAULT
from soutu.settings import Settings, load_settings
from soutu.store.base import NewCaption, NewImage, VectorStore, Writer

if TYPE_CHECKING:
    from soutu.distributed.job import EmbedReport
    from soutu.distributed.shards import Source

# From finished shards into an index: any ``VectorStore``, through its writer alone.
#
# What is stored already is passed over, so that filling can be stopped and repeated. Shards are
# read
# one at a time, in the source's order.


ROWS = 1000  # in one transaction


@dataclass(frozen=True)
class FillReport:
    """``added`` pictures (or paths, or vectors of this model) that the index did not have,
    ``captions`` likewise."""

    added: int
    captions: int


def missing_files(root: Path, store: VectorStore) -> list[ImageFile]:
    """What an index run over ``root`` would encode, before it is known which files are renamed:
    those that are new or look changed, and one of each picture without a vector of this model.
    Raises BadInput as ``scan`` does."""
    files = diff(root, store).stale
    for file in first_files([*store.files().values()], store.images_without_vector()):
        files.append(ImageFile(file.path, file.size, file.mtime_ns))
    return [*dict.fromkeys(files)]


def fill_folder(store: VectorStore, folder: ShardFolder, names: Sequence[str]) -> int:
    """Store a picture of each content that is new, or lacks a vector of this model, with its first
    path. All else that a folder's index needs (copies, renames, what is gone, captions) is what
    ``indexing.index_folder`` does afterwards, which takes these files for unchanged. Returns how
    many."""
    with store.writer() as writer:
        fill = _Fill(store, writer, copies=False)
        for name in names:
            fill.take(folder.read(name))
    return fill.added


def fill_records(
    store: VectorStore, encoder: Encoder, folder: ShardFolder, names: Sequence[str]
) -> FillReport:
    """Store every picture under its key, and the captions, whose texts are encoded here."""
    with store.writer() as writer:
        fill = _Fill(store, writer, copies=True)
        for name in names:
            fill.take(folder.read(name))
        new = fill.add_captions()
        encode_captions(writer, encoder)
    return FillReport(fill.added, new)


@dataclass
class _Fill:
    """One filling while it is under way. ``copies``: further keys of known content count too."""

    store: VectorStore
    writer: Writer
    copies: bool
    added: int = 0
    captions: dict[tuple[int, str], None] = field(default_factory=dict)
    _lacking: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lacking = {*self.writer.images_without_vector()}

    def take(self, shard: EmbeddedRow) -> None:
        for start in range(0, len(shard.images), ROWS):
            part = shard.images[start : start + ROWS]
            known = self.writer.known_content(list({row.content for row in part}))
            wanted = self._wanted(part, known)
            if wanted:
                rows = [part[i] for i in wanted]
                ids = self.writer.add_images(rows, shard.vectors[[start + i for i in wanted]])
                known |= {row.content: id_ for row, id_ in zip(rows, ids, strict=True)}
                self._lacking -= {*ids}
                self.added += len(wanted)
            for row, caption in zip(part, shard.captions[start : start + ROWS], strict=True):
                if caption and self.copies:
                    self.captions[known[row.content], caption] = None

    def _wanted(self, part: Sequence[NewImage], known: dict[bytes, int]) -> list[int]:
        paths = self._paths(known.values()) if self.copies else {}
        wanted, fresh = [], set()
        for i, row in enumerate(part):
            image = known.get(row.content)
            new = image is None or image in self._lacking
            if self.copies:
                take = new or row.path not in paths.get(image or 0, ())
            else:
                take = new and row.content not in fresh
            if take:
                wanted.append(i)
                fresh.add(row.content)
        return wanted

    def _paths(self, ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
        return {row.id: row.paths for row in self.store.images(sorted(set(ids)))}

    def add_captions(self) -> int:
        """Put the captions behind those there are; returns how many are new."""
        stored = self.store.all_captions()
        there = {(caption.image_id, caption.text) for caption in stored}
        fresh = [key for key in self.captions if key not in there]
        if fresh:
            kept = [NewCaption(one.image_id, one.text, one.tags) for one in stored]
            self.writer.replace_captions([*kept, *(NewCaption(*key) for key in fresh)])
        return len(fresh)


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
        require_ray()

    def fill(self, opened: Gallery, store: VectorStore, progress: Progress | None) -> int:
        """Embed what the gallery's folder has and its index has not; returns how many pictures
        were stored."""
        from soutu.distributed.shards import ShardFolder
        from soutu.distributed.sources import FolderSource

        root = str(opened.root)
        missing = missing_files(opened.root, store)
        if len(missing) <= FEW and not self.shards:
            return 0
        # Shards that are kept are of all that there is; others only of what is missing.
        source = FolderSource(root, None if self.shards else missing)
        with self.place(opened, root) as place:
            done = self.embed(source, place, opened.model, opened.settings, progress)
            return fill_folder(store, ShardFolder(place), done.shards)

    @contextmanager
    def place(self, opened: Gallery, source: str) -> Iterator[str]:
        """Where shards go; those that are not to be kept are removed once they are stored."""
        from soutu.distributed.filesystem import join
        from soutu.distributed.shards import shard_name

        if self.shards:
            yield self.shards
            return
        scratch = opened.home / SCRATCH
        # A run that was killed is gone on with, unless it was of another model.
        yield join(str(scratch), shard_name("", (opened.encoder.info.fingerprint, source)))
        shutil.rmtree(scratch, ignore_errors=True)

    def embed(
        self, source: Source, place: str, model: str, config: Settings, progress: Progress | None
    ) -> EmbedReport:
        """Embed ``source`` with ``model`` into shards at ``place``."""
        from soutu.distributed import filesystem
        from soutu.distributed.job import connected, embed
        from soutu.distributed.worker import WorkerOptions

        on_gpu = config.device == "cuda"
        named = filesystem.absolute(model) if Path(model).is_dir() else model
        build = partial(build_encoder, named, config.device, threads=0 if on_gpu else 1)
        card, batch = build().info, config.batch or 0
        work = WorkerOptions(build, card, filesystem.absolute(place), config.max_pixels, batch)
        with connected(self.address, cpus=None if self.address else self.workers) as cluster:
            encoders = cluster.encoders(self.workers, on_gpu=on_gpu)
            self.report = embed(source, work, model=model, encoders=encoders, progress=progress)
        return self.report


def is_records(place: str) -> bool:
    """Whether a name stands for tars, Parquet files or something remote, and not for a folder of
    pictures on this machine. Raises MissingExtra."""
    require_ray()
    from soutu.distributed.filesystem import is_remote
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
    from soutu.distributed.shards import ShardFolder
    from soutu.distributed.sources import open_source

    source = open_source(place)
    home = absolute(Path(index)) if index else None
    config = load_settings(home, settings)
    if home is None:
        assert on_ray.shards is not None, "shards or an index, or nothing would be left"
        on_ray.embed(source, on_ray.shards, config.model or DEFAULT, config, progress)
        return None
    with Gallery(_root(source.place, home), home, config) as opened:
        store = opened._create_store(opened.encoder.info)
        opened._save_settings(None, None)
        if store.get_meta(RECORDS) != source.place:
            store.set_meta(RECORDS, source.place)
        with on_ray.place(opened, source.place) as shards:
            done = on_ray.embed(source, shards, opened.model, config, progress)
            filled = fill_records(store, opened.encoder, ShardFolder(shards), done.shards)
        maintenance.refresh_derived(store, opened.encoder, config)
        return filled


def _root(source: str, home: Path) -> Path:
    """What the index takes for its folder: keys begin with the names of files there."""
    from soutu.distributed.filesystem import is_remote

    if is_remote(source):
        return home
    return Path(source) if Path(source).is_dir() else Path(source).parent
