"""Writing a gallery's embeddings into a folder, for use elsewhere.

One row for each file and caption, in the order of the images' ids. ``parquet`` also has the files
without caption (null); in the parallel arrays of ``npy`` and ``pt`` every row has a text vector,
so there such files are left out and counted. A gallery without any caption has no files of texts.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from soutu.errors import BadInput, MissingExtra
from soutu.exchange.embeddings import Rows
from soutu.exchange.npy import (
    LAYOUTS,
    MODEL,
    EmbeddingSource,
    FeatureArrays,
    save_features,
    save_model,
)
from soutu.exchange.parquet import PARQUET_SUFFIX, import_pyarrow, write_parquet
from soutu.store.base import CaptionRow, VectorStore
from soutu.types import Floats

# The folder an export is written to: made beside, then put in place as a whole.


_FEATURES = ("image_features", "text_features")
_LISTS = ("captions", "image_paths")
EXPORT_NAMES = {
    PARQUET_SUFFIX,
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
    if there and (MODEL not in there or not there <= EXPORT_NAMES):
        other = ", ".join(sorted(there - EXPORT_NAMES)[:3]) or ", ".join(sorted(there)[:3])
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


ROWS = 4096


@dataclass(frozen=True)
class ExportReport:
    """What was written. Left out were ``uncaptioned`` rows, which have no text vector (npy and pt),
    and ``not_encoded`` files, which this model has not seen."""

    folder: Path
    files: tuple[str, ...]
    rows: int
    uncaptioned: int
    not_encoded: int


@dataclass(frozen=True)
class Row:
    """One file with one of its captions; ``caption_id`` None where that has no vector."""

    image_id: int
    path: str
    caption_id: int | None
    caption: str


def export_embeddings(
    store: VectorStore, folder: Path, form: str, described: EmbeddingSource
) -> ExportReport:
    """Write the embeddings of ``store``, as they are at one moment, into ``folder``.

    Raises BadInput for an empty gallery, for a folder that holds anything but an earlier export,
    and where it cannot be written; MissingExtra where the format needs a package.
    """
    _require(form, folder)
    with store.snapshot():
        rows, not_encoded = _rows(store)
        complete = [row for row in rows if row.caption_id is not None]
        if form == "parquet":
            chosen = rows
        else:  # without a single text vector, arrays of pictures alone are still parallel
            chosen = complete or list({row.path: replace(row, caption="") for row in rows}.values())
        if not chosen:
            raise BadInput("export-nothing", folder=folder)
        with new_folder(folder) as made:
            batches = _batches(store, chosen)
            if form == "parquet":
                write_parquet(made / PARQUET_SUFFIX, batches)
                save_model(made / MODEL, described)
            else:
                _write_arrays(made, form, batches, described, (len(chosen), len(complete)))
            files = tuple(sorted(os.listdir(made)))  # noqa: PTH208
    left = len(rows) - len(complete) if complete and chosen is complete else 0
    return ExportReport(folder, files, len(chosen), left, not_encoded)


def _require(form: str, folder: Path) -> None:
    """MissingExtra before anything is read for a format that cannot be written here."""
    if form == "parquet":
        import_pyarrow()
    elif form == "pt" and not importlib.util.find_spec("torch"):
        raise MissingExtra("extra-tensors", file=folder, fault="No module named 'torch'")


def _rows(store: VectorStore) -> tuple[list[Row], int]:
    """A row for each file and caption, and how many files have no vector."""
    captions: dict[int, list[CaptionRow]] = {}
    for caption in store.all_captions():
        captions.setdefault(caption.image_id, []).append(caption)
    silent = {caption.id for caption in store.captions_without_vector()}
    unseen = set(store.images_without_vector())
    files = sorted(store.files().values(), key=lambda file: (file.image_id, file.path))
    rows: list[Row] = []
    for file in files:
        if file.image_id in unseen:
            continue
        said = captions.get(file.image_id)
        if said is None:
            rows.append(Row(file.image_id, file.path, None, ""))
            continue
        for caption in said:
            known = None if caption.id in silent else caption.id
            rows.append(Row(file.image_id, file.path, known, caption.text))
    return rows, sum(file.image_id in unseen for file in files)


def _batches(store: VectorStore, rows: Sequence[Row]) -> Iterator[Rows]:
    """The rows with their vectors."""
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        worded = [i for i, row in enumerate(part) if row.caption_id is not None]
        texts = [row.caption_id for row in part if row.caption_id is not None]
        yield Rows(
            "",
            start,
            [row.path for row in part],
            [row.caption for row in part],
            store.image_vectors([row.image_id for row in part]),
            store.caption_vectors(texts),
            np.array(worded, np.int64),
        )


def _write_arrays(
    made: Path,
    form: str,
    batches: Iterator[Rows],
    described: EmbeddingSource,
    counts: tuple[int, int],
) -> None:
    """``counts``: rows of images and of texts. They are gathered in scratch files beside
    ``made``, for a million of them need not fit into memory."""
    dim = described.info.dim
    images, texts = (
        _scratch(made.parent / f"{name}.npy", count, dim)
        for name, count in zip(("images", "texts"), counts, strict=True)
    )
    paths: list[str] = []
    captions: list[str] = []
    for rows in batches:
        part = slice(rows.first, rows.first + len(rows.paths))
        images[part] = rows.images
        paths += rows.paths
        if counts[1]:
            texts[part] = rows.texts
            captions += rows.captions
    features = FeatureArrays(
        images, texts, tuple(paths), tuple(captions), described.info, described.model
    )
    save_features(made, features, (form,))


def _scratch(path: Path, count: int, dim: int) -> Floats:
    if not count:
        return np.empty((0, dim), np.float32)
    array: Floats = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.dtype(np.float32), shape=(count, dim)
    )
    return array
