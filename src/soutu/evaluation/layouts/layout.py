"""What a layout can do, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from soutu.errors import BadInput, SoutuError
from soutu.evaluation import judged
from soutu.evaluation.judged import Picture
from soutu.evaluation.records import on_disk
from soutu.sources.images import walk

TEST = "test"
Load: TypeAlias = "Callable[[Path, str | None, str | None], judged.Collection]"


@dataclass(frozen=True)
class Layout:
    """``fits`` says whether a folder looks like it; ``load(folder, split, lang)`` reads it."""

    name: str
    fits: Callable[[Path], bool]
    load: Load


def name_of(folder: Path) -> str:
    return folder.resolve().name


def chosen_split(folder: Path, split: str | None, known: Collection[str]) -> str:
    """The split asked for, "test", or the only one. BadInput where it is not there."""
    wanted = split or (TEST if TEST in known or len(known) != 1 else next(iter(known)))
    if wanted not in known:
        names = ", ".join(sorted(known)) or "-"
        raise BadInput("eval-split", folder=folder, split=wanted, known=names)
    return wanted


def no_split(folder: Path, split: str | None) -> None:
    """BadInput where a split is asked for and the layout has none."""
    if split is not None:
        raise BadInput("eval-split", folder=folder, split=split, known="-")


def pictures_below(folder: Path) -> Iterator[Picture]:
    """All pictures below ``folder``, judged or not, by path. Raises BadImage for one that cannot
    be read: without it the figures would be of another collection."""
    for found in walk(folder):
        if isinstance(found, SoutuError):
            raise found
        yield on_disk(folder / found.path, found.path, str(folder))
