"""The folder an export is written to: made beside, then put in place as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soutu.errors import BadInput
from soutu.store.exchange.columns import PARQUET
from soutu.store.features import LAYOUTS, MODEL

_FEATURES = ("image_features", "text_features")
_LISTS = ("captions", "image_paths")
OURS = {
    PARQUET,
    MODEL,
    *(f"{name}.{layout}" for name in _FEATURES for layout in LAYOUTS),
    *(name + ending for name in _LISTS for ending in LAYOUTS.values()),
}
"""All names that an export may have."""


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``folder`` at the end, or leaves it as
    it was if anything fails. Scratch files may lie beside the new one.

    BadInput where ``folder`` is a file or holds anything but an earlier export, and where it
    cannot be written.
    """
    target = Path(os.path.realpath(folder))
    try:
        _check(target, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".soutu-export-", dir=target.parent) as beside:
            made = Path(beside) / "new"
            made.mkdir()
            yield made
            _check(target, folder)
            put_in_place(made, target, Path(beside) / "old")
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise BadInput("export-unwritable", folder=folder, reason=reason) from fault


def _check(target: Path, shown: Path) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise BadInput("export-not-folder", folder=shown)
    there = {path.name for path in target.iterdir()}
    if there and (MODEL not in there or not there <= OURS):
        other = ", ".join(sorted(there - OURS)[:3]) or ", ".join(sorted(there)[:3])
        raise BadInput("export-not-empty", folder=shown, found=other)


def put_in_place(made: Path, target: Path, old: Path) -> None:
    """Make the folder ``made`` ``target``; what was there becomes ``old``, or stays where the
    system refuses."""
    if not target.exists():
        made.rename(target)
        return
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
