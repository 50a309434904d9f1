"""Index with Ray: many processes or machines embed the pictures, this one stores them.

Finished shards go into any ``VectorStore``, through its writer alone. What is stored already is
skipped, so that this can be stopped and repeated. Shards are read one at a time, in the source's
order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.errors import MissingExtra
from soutu.factory import build_encoder
from soutu.fs import absolute
from soutu.gallery import RECORDS, Gallery
from soutu.images.exclude import Excludes
from soutu.images.scan import ImageFile
from soutu.indexing.baseline import refresh_derived
from soutu.indexing.diff import diff, first_files, load_failures
from soutu.indexing.indexer import encode_captions
from soutu.indexing.pipeline import IndexOptions
from soutu.models.base import Encoder
from soutu.models.bundle import default_model
from soutu.settings import Settings, load_settings
from soutu.store.base import NewCaption, NewImage, VectorStore, Writer
from soutu.types import Floats

if TYPE_CHECKING:
    from soutu.distributed.job import EmbedReport
    from soutu.distributed.shards import ShardData, ShardFolder, Source

Progress = Callable[[int, int], None]
MIN_PICTURES = 32  # fewer are encoded by the run itself before Ray has started
SCRATCH = "ray"  # below the index: shards that are not to be kept
_TRANSACTION = 1000  # rows


def require_ray() -> None:
    """Raise MissingExtra where Ray or what it brings is not installed."""
    # Read when Ray is imported: nobody's use is reported anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import fsspec
        import pyarrow.parquet
        import ray.data
    except ImportError as error:
        raise MissingExtra("extra-ray", error=error) from error
    del fsspec, pyarrow, ray


@dataclass(frozen=True)
class IngestReport:
    """What the index did not have: pictures (or paths, or vectors of this model) and captions."""

    added: int
    captions: int


@dataclass
class RayEngine:
    """Embed with Ray; ``report`` is what was done last.

    Parameters
    ----------
    address
        A cluster, or None for one on this machine.
    workers
        Encoders at the same time; None: one a GPU with ``--device cuda``, else one a core.
    shards
        Where finished shards are kept, a folder or URL that every machine reaches.

    Raises
    ------
    MissingExtra
        Ray is not installed.
    """

    address: str | None = None
    workers: int | None = None
    shards: str | None = None
    report: EmbedReport | None = None

    def __post_init__(self) -> None:
        """Make sure that Ray is installed."""
        require_ray()

    def embed_folder(
        self,
        gallery: Gallery,
        store: VectorStore,
        options: IndexOptions,
        progress: Progress | None,
    ) -> int:
        """Embed what the gallery's folder has and its index has not; return how many were added.

        All else that a folder's index needs (copies, renames, what is gone, captions) is what
        ``indexing.index_folder`` does afterwards, which takes these files for unchanged.
        """
        from soutu.distributed.shards import ShardFolder
        from soutu.distributed.sources import FolderSource

        root = str(gallery.root)
        missing = missing_files(gallery.root, store, options)
        if len(missing) <= MIN_PICTURES and not self.shards:
            return 0
        # Shards that are kept are of all that there is; others only of what is missing.
        files = None if self.shards else missing
        source = FolderSource(root, files, excludes=options.excludes)
        with self._shard_folder(gallery, root) as folder:
            report = self._embed(source, folder, gallery.model, gallery.settings, progress)
            return add_new_pictures(store, ShardFolder(folder), report.shards, missing)

    def embed_records(
        self,
        path: str,
        *,
        index: str | None,
        settings: Mapping[str, object],
        exclude: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> IngestReport | None:
        """Embed tars, Parquet files or a remote folder, and add them to the ``index`` if any.

        ``exclude`` are patterns of what to leave out of a folder.
        """
        from soutu.distributed.filesystem import is_remote
        from soutu.distributed.shards import ShardFolder
        from soutu.distributed.sources import open_source

        home = absolute(Path(index)) if index else None
        config = load_settings(home, settings)
        source = open_source(path, Excludes(config.exclude, exclude))
        if home is None:
            assert self.shards is not None, "shards or an index, or nothing would be left"
            self._embed(source, self.shards, config.model or default_model(), config, progress)
            return None
        root = home  # keys begin with the names of files in it
        if not is_remote(source.path):
            root = Path(source.path) if Path(source.path).is_dir() else Path(source.path).parent
        with Gallery(root, home, config) as gallery:
            store = gallery._create_store(gallery.encoder.info)
            if store.get_meta(RECORDS) != source.path:
                store.set_meta(RECORDS, source.path)
            with self._shard_folder(gallery, source.path) as folder:
                shards = self._embed(source, folder, gallery.model, config, progress).shards
                report = add_records(store, gallery.encoder, ShardFolder(folder), shards)
            refresh_derived(store, gallery.encoder, config)
            return report

    @contextmanager
    def _shard_folder(self, gallery: Gallery, source: str) -> Iterator[str]:
        """Yield where shards go; remove them afterwards unless they are to be kept."""
        from soutu.distributed.filesystem import join
        from soutu.distributed.shards import shard_name

        if self.shards:
            yield self.shards
            return
        scratch = gallery.home / SCRATCH
        # A run that was killed is resumed, unless it was of another model.
        yield join(str(scratch), shard_name("", (gallery.encoder.info.fingerprint, source)))
        shutil.rmtree(scratch, ignore_errors=True)

    def _embed(
        self, source: Source, folder: str, model: str, config: Settings, progress: Progress | None
    ) -> EmbedReport:
        from soutu.distributed import filesystem
        from soutu.distributed.job import connect, embed
        from soutu.distributed.worker import WorkerOptions

        on_gpu = config.device == "cuda"
        name = filesystem.absolute(model) if Path(model).is_dir() else model
        build = partial(build_encoder, name, config.device, threads=0 if on_gpu else 1)
        options = WorkerOptions(
            build, build().info, filesystem.absolute(folder), config.max_pixels, config.batch or 0
        )
        with connect(self.address, cpus=None if self.address else self.workers) as cluster:
            workers = max(1, self.workers or (cluster.gpus if on_gpu else cluster.cpus))
            self.report = embed(
                source, options, model=model, workers=workers, gpus=int(on_gpu), progress=progress
            )
        return self.report


def is_records(path: str) -> bool:
    """Tell whether ``path`` is tars, Parquet files or remote, and no folder of pictures here."""
    require_ray()
    from soutu.distributed.filesystem import is_remote
    from soutu.distributed.sources import PARQUET_SUFFIXES, TAR_SUFFIXES, record_files

    is_file = path.endswith((*TAR_SUFFIXES, *PARQUET_SUFFIXES))
    return is_remote(path) or is_file or bool(record_files(path))


def missing_files(
    root: Path, store: VectorStore, options: IndexOptions | None = None
) -> list[ImageFile]:
    """Return what an index run over ``root`` would encode, without looking for renamed files.

    That is what is new or has changed, and one file of each picture without a vector of this model.
    Of known files that may have changed without growing or shrinking (all of them, on a disk that
    is mounted elsewhere) the content decides, which is read here. What could not be read before is
    left out, unless the options want it.
    """
    options = options or IndexOptions()
    failures = None if options.retry else load_failures(store, options.max_pixels)
    changes = diff(root, store, failures=failures, rehash=options.rehash, excludes=options.excludes)
    doubtful = [f for f in changes.stale if f.path in changes.known
                and changes.known[f.path].size == f.size]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        read = replace(changes, stale=doubtful).read(store, pool)
        same = {f.path for f in doubtful} - {file.path for file in read if file.kind == "new"}
    files = {file.path: file for file in changes.stale if file.path not in same}
    for file in first_files([*changes.known.values()], store.images_without_vector()):
        status = file.size, file.mtime_ns, file.ctime_ns, file.inode
        files.setdefault(file.path, ImageFile(file.path, *status))
    return [*files.values()]


def add_new_pictures(
    store: VectorStore, folder: ShardFolder, names: Sequence[str], files: Sequence[ImageFile] = ()
) -> int:
    """Store a picture of each content that is new, or lacks a vector, with its first path.

    Shards tell less of a file than the folder, where it is one of ``files``. Return how many
    pictures were stored.
    """
    added = 0
    in_folder = {(file.path, file.size, file.mtime_ns): file for file in files}
    with store.writer() as writer:
        without_vector = {*writer.images_without_vector()}
        for name in names:
            for images, _, vectors in _parts(folder.read(name)):
                known = writer.known_content(list({image.content for image in images}))
                first: dict[bytes, int] = {}
                for index, image in enumerate(images):
                    id_ = known.get(image.content)
                    if id_ is None or id_ in without_vector:
                        first.setdefault(image.content, index)
                rows = [*first.values()]
                if rows:
                    new = [_with_status(images[row], in_folder) for row in rows]
                    ids = writer.add_images(new, vectors[rows])
                    without_vector -= {*ids}
                    added += len(rows)
    return added


def _with_status(image: NewImage, files: Mapping[tuple[str, int, int], ImageFile]) -> NewImage:
    file = files.get((image.path, image.size, image.mtime_ns))
    return replace(image, ctime_ns=file.ctime_ns, inode=file.inode) if file else image


def add_records(
    store: VectorStore, encoder: Encoder, folder: ShardFolder, names: Sequence[str]
) -> IngestReport:
    """Store every picture under its key, and the captions, whose texts are encoded here."""
    added = 0
    captions: dict[tuple[int, str], None] = {}
    with store.writer() as writer:
        without_vector = {*writer.images_without_vector()}
        for name in names:
            for images, texts, vectors in _parts(folder.read(name)):
                known = writer.known_content(list({image.content for image in images}))
                paths = {row.id: row.paths for row in store.images(sorted(set(known.values())))}
                rows = [
                    index
                    for index, image in enumerate(images)
                    if (id_ := known.get(image.content)) is None
                    or id_ in without_vector
                    or image.path not in paths[id_]
                ]
                if rows:
                    ids = writer.add_images([images[row] for row in rows], vectors[rows])
                    known |= {images[row].content: id_ for row, id_ in zip(rows, ids, strict=True)}
                    without_vector -= {*ids}
                    added += len(rows)
                for image, text in zip(images, texts, strict=True):
                    if text:
                        captions[known[image.content], text] = None
        new = _add_captions(store, writer, captions)
        encode_captions(writer, encoder)
    return IngestReport(added, new)


def _parts(shard: ShardData) -> Iterator[tuple[list[NewImage], list[str], Floats]]:
    """Cut a shard into parts for one transaction each."""
    for start in range(0, len(shard.images), _TRANSACTION):
        part = slice(start, start + _TRANSACTION)
        yield shard.images[part], shard.captions[part], shard.vectors[part]


def _add_captions(store: VectorStore, writer: Writer, captions: Iterable[tuple[int, str]]) -> int:
    """Put the captions behind those there are; return how many are new."""
    stored = store.all_captions()
    known = {(caption.image_id, caption.text) for caption in stored}
    new = [NewCaption(*key) for key in captions if key not in known]
    if new:
        old = [NewCaption(caption.image_id, caption.text, caption.tags) for caption in stored]
        writer.replace_captions([*old, *new])
    return len(new)
