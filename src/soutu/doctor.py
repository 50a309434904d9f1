"""A gallery's health: its index, the model it was made with, and what a repair did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from soutu.assemble import TORCH, describe_model, open_store, recall
from soutu.assemble.models import installed_models
from soutu.encoders.health import examine_model
from soutu.errors import SoutuError
from soutu.store.examine import examine
from soutu.store.home import HOME
from soutu.store.opening import bring_up_to_date
from soutu.store.repair import Repaired, repair
from soutu.store.spaces import first_name, folder_name
from soutu.types import Finding


@dataclass(frozen=True)
class Health:
    """``found`` is what was wrong, ``left`` what still is: the same where nothing was repaired.
    ``checked`` are rows by table. ``repaired`` says what a repair did; None without one."""

    found: tuple[Finding, ...]
    left: tuple[Finding, ...]
    checked: Mapping[str, int]
    repaired: Repaired | None = None

    @property
    def healthy(self) -> bool:
        """Whether every answer is what it should be."""
        return not any(finding.harm for finding in self.left)


def examine_gallery(root: Path, home: Path, *, repair: bool = False) -> Health:
    """Examine the gallery of ``root`` with its index at ``home``, and mend it. Raises
    MissingIndex; IndexCorrupt where the index cannot be read now, is that of a newer Soutu,
    or, for a repair, cannot be written or is being written."""
    with suppress(SoutuError):  # what stands in the way of it is about to be found
        bring_up_to_date(home)
    done = _repair(root, home) if repair else None
    found, checked = examine(home)
    left = (*found, *_model(home))
    return Health((*done.found, *_model(home)) if done else left, left, checked, done)


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


def _model(home: Path) -> Iterator[Finding]:
    """Nothing where the index cannot be asked: that is found elsewhere."""
    with suppress(SoutuError):
        name = recall(home, "model")
        with open_store(home) as store:
            spaces = {card.space for card in store.spaces()}
        if name is None:
            yield Finding("doctor-model-forgotten", "meta", "model", harm=False)
        elif not name.startswith(TORCH):
            yield from examine_model(name, spaces)
