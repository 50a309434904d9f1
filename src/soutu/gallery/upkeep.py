"""Looking after a gallery's index: what it holds, and giving back what it no longer needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from soutu.assemble import open_store
from soutu.errors import IndexCorrupt
from soutu.types import IndexState, ModelCard

if TYPE_CHECKING:
    from soutu.store.compact import Compacted
    from soutu.store.local import LocalStore
    from soutu.store.manifest import Manifest
    from soutu.types import Floats


Encode: TypeAlias = "Callable[[Sequence[str]], Floats]"


@dataclass(frozen=True)
class GalleryInfo:
    """What ``soutu info`` shows. ``promises``: how the codes of images and captions were tuned,
    and the recall that was reached; without codes searches are exact."""

    root: Path
    home: Path
    model: ModelCard
    state: IndexState
    spaces: tuple[str, ...]
    captions_file: str
    bytes_on_disk: int
    promises: Mapping[str, Manifest]


def info(root: Path, home: Path) -> GalleryInfo:
    with open_store(home) as store:
        return GalleryInfo(
            root=root,
            home=home,
            model=store.card,
            state=store.state(),
            spaces=tuple(card.space for card in store.spaces()),
            captions_file=store.recall("captions_file") or "",
            bytes_on_disk=sum(p.stat().st_size for p in home.rglob("*") if p.is_file()),
            promises=_promises(store),
        )


def _promises(store: LocalStore) -> Mapping[str, Manifest]:
    try:
        return store.promises()
    except IndexCorrupt:  # searches are exact then, as without codes
        return {}


def compact(home: Path, encode: Encode, target: float) -> Compacted:
    """Compact the index at ``home``, and build the codes of its vectors where they lie now."""
    with open_store(home) as store:
        done = store.compact()
    refresh(home, encode, target)
    return done


def refresh(home: Path, encode: Encode, target: float) -> tuple[str, ...]:
    """Build the codes of the index at ``home`` where they are due."""
    from soutu.indexing import refresh_ann

    with open_store(home) as store:
        return refresh_ann(store, encode, target)
