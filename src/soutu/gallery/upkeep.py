"""Looking after a gallery's index: what it holds, and giving back what it no longer needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from soutu.assemble import (
    Place,
    build_tuned,
    cache_folder,
    compact_store,
    open_store,
    shown,
)
from soutu.config import Config
from soutu.errors import IndexCorrupt
from soutu.query.hubs import shift, strength
from soutu.query.standing import REFERENCE, Reference, from_text
from soutu.types import IndexState, ModelCard

if TYPE_CHECKING:
    from soutu.encoders.base import Encoder
    from soutu.store.base import VectorStore
    from soutu.store.compact import Compacted
    from soutu.store.manifest import Manifest
    from soutu.types import Floats


Encode: TypeAlias = "Callable[[Sequence[str]], Floats]"


@dataclass(frozen=True)
class Yardstick:
    """What reference texts find among ``images`` pictures: the ``mean`` and ``spread`` of their
    best cosines, the ``skewness`` of how often a picture is one (``query/standing.py``), and
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
    model: ModelCard
    state: IndexState
    spaces: tuple[str, ...]
    captions_file: str
    bytes_on_disk: int | None
    promises: Mapping[str, Manifest]
    yardstick: Yardstick | None


def info(root: Path, home: Path, place: Place, config: Config) -> GalleryInfo:
    files = home.rglob("*") if place == home else ()
    size = sum(file.stat().st_size for file in files if file.is_file())
    with open_store(place) as store:
        return GalleryInfo(
            root=root,
            home=home if place == home else shown(place),
            model=store.card,
            state=store.state(),
            spaces=tuple(card.space for card in store.spaces()),
            captions_file=store.recall("captions_file") or "",
            bytes_on_disk=size if place == home else None,
            promises=_promises(store),
            yardstick=_yardstick(store, config),
        )


def _yardstick(store: VectorStore, config: Config) -> Yardstick | None:
    reference = _reference(store)
    if reference is None:
        return None
    hubs = build_tuned(config).hubs
    alpha, level = strength(reference, config.correction, hubs), reference.levels[-1]
    return Yardstick(
        reference.images, level.mean, level.spread, reference.skewness, alpha, hubs.skewed
    )


def _promises(store: VectorStore) -> Mapping[str, Manifest]:
    try:
        return store.promises()
    except IndexCorrupt:  # searches are exact then, as without codes
        return {}


def compact(home: Path, encode: Encode, config: Config) -> Compacted:
    """Compact the index at ``home``, and build the codes of its vectors where they lie now."""
    done = compact_store(home)
    with open_store(home) as store:
        refresh_codes(store, encode, config)
    return done


def refresh(store: VectorStore, encoder: Encoder, config: Config) -> tuple[str, ...]:
    """After an index run: measure the gallery anew, and build the codes where they are due."""
    from soutu.indexing import refresh_reference

    refresh_reference(store, encoder, cache_folder() / "reference")
    return refresh_codes(store, encoder.encode_texts, config)


def refresh_codes(store: VectorStore, encode: Encode, config: Config) -> tuple[str, ...]:
    """Build the codes of the index where they are due."""
    from soutu.indexing import refresh_ann

    moved = shift(_reference(store), config.correction, build_tuned(config).hubs)
    return refresh_ann(store, encode, config.recall, moved)


def _reference(store: VectorStore) -> Reference | None:
    kept = store.recall(REFERENCE + store.card.space)
    return from_text(kept) if kept else None
