"""A gallery's health: its index, the model it was made with, and what a repair did."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from soutu.errors import IndexCorrupt, MissingModel, SoutuError
from soutu.factory import (
    StoreLocation,
    compact_store,
    describe_model,
    installed_models,
    load_tuned_params,
    open_store,
    plugin_prefix,
    read_meta,
    redacted,
)
from soutu.fs import HOME
from soutu.models.catalog import cache_folder, embedded_folder, is_path, models_folder, open_model
from soutu.models.download import verify
from soutu.search.calibration import (
    BASELINE_KEY,
    ScoreBaseline,
    baseline_from_json,
    correction_alpha,
    query_offset,
)
from soutu.settings import Settings
from soutu.store.sqlite.examine import examine
from soutu.store.sqlite.repair import Repaired, repair
from soutu.store.sqlite.store import bring_up_to_date
from soutu.store.sqlite.vectors import first_name, folder_name
from soutu.types import IndexState, IntegrityIssue, ModelInfo

if TYPE_CHECKING:
    from soutu.models.base import Encoder
    from soutu.store.ann import Manifest
    from soutu.store.base import VectorStore
    from soutu.store.sqlite.compact import Compacted
    from soutu.types import Floats

# Looking after a gallery's index: what it holds, and giving back what it no longer needs.


PHRASES = 640  # that codes are tuned on in a gallery of few captions
Encode: TypeAlias = "Callable[[Sequence[str]], Floats]"


@dataclass(frozen=True)
class BaselineInfo:
    """What reference texts find among ``images`` pictures: the ``mean`` and ``spread`` of their
    best cosines, the ``skewness`` of how often a picture is one (``search/calibration.py``), and
    ``alpha``: how strongly hubs are held back, 0 for not at all; by itself from ``skewed`` on."""

    images: int
    mean: float
    spread: float
    skewness: float
    alpha: float
    skewed: float


@dataclass(frozen=True)
class GalleryInfo:
    """What ``soutu info`` shows. ``promises``: how the codes of images and captions were tuned,
    and the recall that was reached; without codes searches are exact. ``yardstick``: None for
    a small gallery. ``home`` is the address of a store elsewhere, whose size is not known."""

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
    files = home.rglob("*") if place == home else ()
    size = sum(file.stat().st_size for file in files if file.is_file())
    with open_store(place) as store:
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
    reference = _reference(store)
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


def compact_gallery(home: Path, encode: Encode, config: Settings) -> Compacted:
    """Compact the index at ``home``, and build the codes of its vectors where they lie now."""
    done = compact_store(home)
    with open_store(home) as store:
        refresh_codes(store, encode, config)
    return done


def refresh_derived(store: VectorStore, encoder: Encoder, config: Settings) -> tuple[str, ...]:
    """After an index run: measure the gallery anew, and build the codes where they are due."""
    from soutu.indexing.baseline import refresh_baseline

    refresh_baseline(store, encoder, cache_folder() / "reference")
    return refresh_codes(store, encoder.encode_texts, config)


def refresh_codes(store: VectorStore, encode: Encode, config: Settings) -> tuple[str, ...]:
    """Build the codes of the index where they are due."""
    from soutu.query.probes import sample_phrases

    moved = query_offset(_reference(store), config.correction, load_tuned_params(config).hubs)
    with store.writer() as writer:
        return tuple(
            writer.refresh_ann(
                lambda: encode(sample_phrases(PHRASES)), target=config.recall, shift=moved
            )
        )


def _reference(store: VectorStore) -> ScoreBaseline | None:
    kept = store.get_meta(BASELINE_KEY + store.info.space)
    return baseline_from_json(kept) if kept else None


# Whether the model that a gallery was indexed with is there, whole, and still the same.


_WHERE = "model"


def check_model(name: str, spaces: Collection[str]) -> Iterator[IntegrityIssue]:
    """What is to be said of the model ``name`` (of ONNX Runtime) in a gallery with vectors in
    ``spaces``. Nothing is fetched; all of it is information, for the index is whole."""
    there = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    try:
        card = open_model(name).info if there else None
    except SoutuError:
        card = None
    if card is None:
        yield IntegrityIssue("doctor-model-absent", _WHERE, name, harm=False)
        return
    if card.space not in spaces:
        yield IntegrityIssue("doctor-model-space", _WHERE, name, card.space, harm=False)
    try:
        found = verify(name)
    except MissingModel:  # no hashes were kept to compare with
        return
    for file in (*found.changed, *found.absent):
        yield IntegrityIssue("doctor-model-changed", _WHERE, name, file, harm=False)


@dataclass(frozen=True)
class HealthReport:
    """``found`` is what was wrong, ``left`` what still is: the same where nothing was repaired.
    ``checked`` are rows by table. ``repaired`` says what a repair did; None without one."""

    found: tuple[IntegrityIssue, ...]
    left: tuple[IntegrityIssue, ...]
    checked: Mapping[str, int]
    repaired: Repaired | None = None

    @property
    def healthy(self) -> bool:
        """Whether every answer is what it should be."""
        return not any(finding.harm for finding in self.left)


def check_gallery(root: Path, home: Path, *, repair: bool = False) -> HealthReport:
    """Examine the gallery of ``root`` with its index at ``home``, and mend it. Raises
    MissingIndex; IndexCorrupt where the index cannot be read now, is that of a newer Soutu,
    or, for a repair, cannot be written or is being written."""
    with suppress(SoutuError):  # what stands in the way of it is about to be found
        bring_up_to_date(home)
    done = _repair(root, home) if repair else None
    found, checked = examine(home)
    left = (*found, *_model(home))
    return HealthReport((*done.found, *_model(home)) if done else left, left, checked, done)


def _repair(root: Path, home: Path) -> Repaired:
    return repair(home, lambda folders: _settings(root, home, folders))


def _settings(root: Path, home: Path, folders: Sequence[str]) -> Mapping[str, str]:
    """What can be said of settings that were lost. The folder of a space is called after it,
    so that a model on this machine can be recognised."""
    known = {"root": str(root)} if home == root / HOME else {}
    names = {first_name(folder) for folder in folders}
    for name in installed_models():
        with suppress(SoutuError):
            card, _ = describe_model(name)
            if card is not None and folder_name(card.space) in names:
                return {**known, "model": name}
    return known


def _model(home: Path) -> Iterator[IntegrityIssue]:
    """Nothing where the index cannot be asked: that is found elsewhere."""
    with suppress(SoutuError):
        name = read_meta(home, "model")
        with open_store(home) as store:
            spaces = {card.space for card in store.spaces()}
        if name is None:
            yield IntegrityIssue("doctor-model-forgotten", "meta", "model", harm=False)
        elif not plugin_prefix(name):
            yield from check_model(name, spaces)
