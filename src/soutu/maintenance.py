"""Look after a gallery: show what its index holds, check, compact and rebuild it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.errors import BadInput, IndexCorrupt, Missing, MissingModel, SoutuError
from soutu.factory import (
    StoreLocation,
    build_encoder,
    describe_model,
    installed_models,
    plugin_prefix,
    redacted,
    store_type,
)
from soutu.fs import REBUILD, make_private_folder, write_lock
from soutu.indexing.baseline import refresh_codes, refresh_derived, stored_baseline
from soutu.models.bundle import default_model
from soutu.models.download import verify
from soutu.search.calibration import (
    correction_alpha,
    load_tuned_params,
)
from soutu.settings import Settings
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.schema import migrate
from soutu.store.sqlite.store import LocalStore
from soutu.store.sqlite.vectors import first_name, folder_name
from soutu.types import IndexState, IntegrityIssue, ModelInfo

if TYPE_CHECKING:
    from soutu.indexing.indexer import IndexReport
    from soutu.models.base import Encoder
    from soutu.store.ann import Manifest
    from soutu.store.base import VectorStore
    from soutu.store.sqlite.compact import CompactReport
    from soutu.store.sqlite.rebuild import CarryReport
    from soutu.types import Floats


@dataclass(frozen=True)
class BaselineInfo:
    """What probe texts find among ``images`` pictures.

    ``mean`` and ``spread`` of their best cosines, the ``skewness`` of how often a picture is one
    (``search/calibration.py``), and ``alpha``: how strongly hubs are corrected, 0 for not at all;
    automatically from a skewness of ``skewed`` on.
    """

    images: int
    mean: float
    spread: float
    skewness: float
    alpha: float
    skewed: float


@dataclass(frozen=True)
class GalleryInfo:
    """What ``soutu info`` shows.

    ``promises``: how the codes of images and captions were tuned, and the recall that was reached;
    without codes searches are exact. ``yardstick``: the score baseline, None for a small gallery.
    ``home`` is the address of a store elsewhere, whose size is not known.
    """

    root: Path
    home: Path | str
    model: ModelInfo
    state: IndexState
    spaces: tuple[str, ...]
    captions_file: str
    bytes_on_disk: int | None
    promises: Mapping[str, Manifest]
    yardstick: BaselineInfo | None


def gallery_info(root: Path, home: Path, place: StoreLocation, config: Settings) -> GalleryInfo:
    """Describe a gallery's index."""
    files = home.rglob("*") if place == home else ()
    size = sum(file.stat().st_size for file in files if file.is_file())
    with store_type(place).open(place) as store:
        return GalleryInfo(
            root=root,
            home=home if place == home else redacted(place),
            model=store.info,
            state=store.state(),
            spaces=tuple(card.space for card in store.spaces()),
            captions_file=store.get_meta("captions_file") or "",
            bytes_on_disk=size if place == home else None,
            promises=_ann_info(store),
            yardstick=_baseline_info(store, config),
        )


def _baseline_info(store: VectorStore, config: Settings) -> BaselineInfo | None:
    reference = stored_baseline(store)
    if reference is None:
        return None
    hubs = load_tuned_params(config).hubs
    alpha, level = correction_alpha(reference, config.correction, hubs), reference.levels[-1]
    return BaselineInfo(
        reference.images, level.mean, level.spread, reference.skewness, alpha, hubs.skewed
    )


def _ann_info(store: VectorStore) -> Mapping[str, Manifest]:
    try:
        return store.promises()
    except IndexCorrupt:  # searches are exact then, as without codes
        return {}


def compact_gallery(
    home: Path, encode: Callable[[Sequence[str]], Floats], config: Settings
) -> CompactReport:
    """Compact the index at ``home``, and build the codes of its vectors where they lie now."""
    with LocalStore.open(home) as store:
        done = store.compact()
    with LocalStore.open(home) as store:
        refresh_codes(store, encode, config)
    return done


@dataclass(frozen=True)
class HealthReport:
    """What a check found. ``checked`` are rows by table."""

    found: tuple[IntegrityIssue, ...]
    checked: Mapping[str, int]

    @property
    def healthy(self) -> bool:
        """Whether every answer is what it should be."""
        return not any(issue.harm for issue in self.found)


def check_gallery(home: Path) -> HealthReport:
    """Check the index at ``home`` and the model it was made with.

    Raises
    ------
    MissingIndex
        There is no index.
    IndexCorrupt
        The index cannot be read now, or a newer Soutu made it.
    """
    with suppress(SoutuError):  # what stands in the way of it is about to be found
        migrate(home)
    issues, checked = check_index(home)
    return HealthReport((*issues, *_check_model(home)), checked)


def check_pictures(root: Path, home: Path) -> HealthReport:
    """Read every picture of the index at ``home`` again, and compare it with what was indexed."""
    from soutu.indexing.diff import diff

    issues: list[IntegrityIssue] = []
    with LocalStore.open(home) as store:
        if store.get_meta("records"):
            return HealthReport((), {})
        changes = diff(root, store, rehash=True)
        changes.stale = [file for file in changes.stale if file.path in changes.known]
        with ThreadPoolExecutor() as pool:
            for file in changes.read(store, pool):
                if file.kind != "same":
                    issues.append(IntegrityIssue("doctor-picture-changed", "pictures", file.path))
    for error in changes.unreadable:
        path = str(error.fields["path"])
        if path in changes.known:
            issue = IntegrityIssue("doctor-picture-unreadable", "pictures", path, harm=False)
            issues.append(issue)
    # Pictures that were imported without their file have no size.
    for path in changes.removed.keys() | {old for old, _ in changes.renamed}:
        if path not in changes.known or changes.known[path].size:
            issues.append(IntegrityIssue("doctor-picture-missing", "pictures", path, harm=False))
    issues.sort(key=lambda issue: (issue.code, issue.key))
    return HealthReport(tuple(issues), {"pictures": len(changes.stale)})


def _check_model(home: Path) -> Iterator[IntegrityIssue]:
    """Check that the gallery's model is here, whole and still the same.

    Nothing is fetched; all of it is information, for the index is whole.
    """
    with suppress(SoutuError):  # where the index cannot be read, that is found elsewhere
        name = LocalStore.read_meta(home, "model")
        with LocalStore.open(home) as store:
            spaces = {model.space for model in store.spaces()}
        if name is None:
            yield IntegrityIssue("doctor-model-forgotten", "meta", "model", harm=False)
        elif not plugin_prefix(name):
            yield from check_model(name, spaces)


def check_model(name: str, spaces: Collection[str]) -> Iterator[IntegrityIssue]:
    """Check the ONNX model ``name`` of a gallery with vectors in ``spaces``."""
    try:
        info, _ = describe_model(name)
    except SoutuError:
        info = None
    if info is None:
        yield IntegrityIssue("doctor-model-absent", "model", name, harm=False)
        return
    if info.space not in spaces:
        yield IntegrityIssue("doctor-model-space", "model", name, info.space, harm=False)
    try:
        files = verify(name)
    except MissingModel:  # no hashes were kept to compare with
        return
    for file in (*files.changed, *files.absent):
        yield IntegrityIssue("doctor-model-changed", "model", name, file, harm=False)


@dataclass(frozen=True)
class RebuildReport:
    """What a rebuild did. ``index`` is None where no model was at hand to encode with."""

    model: str
    index: IndexReport | None
    carried: CarryReport


def rebuild_gallery(
    root: Path,
    home: Path,
    config: Settings,
    *,
    captions: Path | None = None,
    encoding: str | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> RebuildReport:
    """Make the index at ``home`` anew from the pictures in ``root``.

    Captions come from their file, or from the old index where there is none. What else only the
    old index knows is carried over where its checksums hold (``store/sqlite/rebuild.py``). The
    old index answers until the new one takes its place, and is then removed.

    Raises
    ------
    BadInput
        The folder holds no pictures and held some, the captions cannot be read, or the index is
        of another folder or no longer says which model it was made with.
    Missing
        The model is not on this machine, and the old index holds no vectors of it.
    IndexCorrupt
        Another process is writing, the folder cannot be written, or a newer Soutu made the index.
    """
    from soutu.images.captions import load_captions
    from soutu.images.exclude import Excludes
    from soutu.images.scan import check_root
    from soutu.indexing.indexer import encode_captions, index_folder, save_gallery_meta
    from soutu.indexing.pipeline import IndexOptions
    from soutu.store.sqlite.rebuild import (
        begin_new_index,
        carry_over,
        put_in_place,
        read_old_index,
    )

    check_root(root)
    excludes = Excludes(config.exclude, exclude, root)
    make_private_folder(home)
    with suppress(SoutuError):
        migrate(home)
    folder = home / REBUILD
    with write_lock(home):
        shutil.rmtree(folder, ignore_errors=True)  # of a rebuild that was killed
        with closing(read_old_index(home)) as old:
            meta, models = old.meta, old.models.values()
            if meta.get("records"):
                raise BadInput("index-of-records", home=home, records=meta["records"])
            if home.parent != root and meta.get("root", str(root)) != str(root):
                raise BadInput("index-other-root", home=home, known=meta["root"], folder=root)
            name = config.model or meta.get("model") or _recognise_model(home)
            encoder: Encoder | None = None
            try:
                encoder = build_encoder(name, config.device)
                info = encoder.info
            except Missing:
                known = [model for model in models if model.space == meta.get("space")]
                if not known or name != meta.get("model"):
                    raise
                info = known[0]
            loaded = load_captions(root, captions, encoding, meta)
            begin_new_index(old, folder)
            report = None
            with LocalStore.create_or_open(folder, info) as store:
                save_gallery_meta(store, root, name, loaded.file, loaded.encoding)
                if encoder:
                    report = index_folder(
                        root,
                        store,
                        encoder,
                        captions=loaded.rows,
                        history=old.changes,
                        options=IndexOptions(
                            config.workers or 0,
                            config.batch or 0,
                            config.max_pixels,
                            retry=True,
                            excludes=excludes,
                        ),
                        progress=progress,
                    )
                    count = sum(row[1] > 0 for row in old.rows["paths"])
                    if not report.files and (count or old.damaged):
                        excluded = report.excluded_files or report.excluded_folders
                        code = "exclude-all" if excluded else "index-empty"
                        raise BadInput(code, folder=root, count=count)
                carried = carry_over(
                    old,
                    folder,
                    info.space,
                    encoded=encoder is not None,
                    captions=encoder is None or loaded.rows is None,
                )
                if encoder:
                    with store.writer() as writer:
                        encode_captions(writer, encoder)
                    built = refresh_derived(store, encoder, config)
            put_in_place(old, folder)
    with LocalStore.open(home, info.space) as store:
        state = store.state()
    if report:
        report = replace(
            report,
            captions=state.captions,
            built=built,
            caption_problems=(*report.caption_problems, *loaded.problems),
            notes=(*report.notes, *loaded.notes),
            generation=state.generation,
        )
    return RebuildReport(name, report, carried)


def _recognise_model(home: Path) -> str:
    """Return the model on this machine whose vectors are in the index.

    A space's folder is called after it. Raises BadInput where there are vectors, and of none of
    the models.
    """
    folders = {first_name(path.name) for path in (home / "spaces").glob("*")}
    for name in installed_models():
        with suppress(SoutuError):
            info, _ = describe_model(name)
            if info is not None and folder_name(info.space) in folders:
                return name
    if folders:
        raise BadInput("rebuild-model", home=home)
    return default_model()
