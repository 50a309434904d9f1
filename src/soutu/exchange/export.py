"""Write a gallery's embeddings into a folder, for use elsewhere.

One row for each file and caption, in the order of the images' ids. ``parquet`` also has the files
without caption (null); in the parallel arrays of ``npy`` and ``pt`` every row has a text vector,
so there such files are left out and counted. A gallery without any caption has no files of texts.
"""

from __future__ import annotations

import importlib.util
import os
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
    save_source,
)
from soutu.exchange.parquet import PARQUET_FILE, import_pyarrow, write_parquet
from soutu.fs import atomic_write, staged_folder
from soutu.store.base import CaptionRow, VectorStore
from soutu.types import Floats

BATCH_ROWS = 4096
EXPORT_NAMES = {
    PARQUET_FILE,
    MODEL,
    *(f"{name}.{layout}" for name in ("image_features", "text_features") for layout in LAYOUTS),
    *(name + ending for name in ("captions", "image_paths") for ending in LAYOUTS.values()),
}
"""All names that an export may have."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Left out were ``uncaptioned`` rows, which have no text vector (npy and pt), and ``not_encoded``
    files, which this model has not seen.
    """

    folder: Path
    files: tuple[str, ...]
    rows: int
    uncaptioned: int
    not_encoded: int


@dataclass(frozen=True)
class _Row:
    """One file with one of its captions; ``caption_id`` None where that has no vector."""

    image_id: int
    path: str
    caption_id: int | None
    caption: str


def export_embeddings(
    store: VectorStore, folder: Path, form: str, source: EmbeddingSource
) -> ExportReport:
    """Write the embeddings of ``store``, as they are at one moment, into ``folder``.

    Raises BadInput for an empty gallery, for a folder that holds anything but an earlier export,
    and where it cannot be written; MissingExtra where the format needs a package.
    """
    if form == "parquet":
        import_pyarrow()
    elif form == "pt" and not importlib.util.find_spec("torch"):
        raise MissingExtra("extra-tensors", file=folder, error="No module named 'torch'")
    with store.snapshot():
        rows, not_encoded = _list_rows(store)
        complete = [row for row in rows if row.caption_id is not None]
        if form == "parquet":
            chosen = rows
        else:  # without a single text vector, arrays of pictures alone are still parallel
            chosen = complete or list({row.path: replace(row, caption="") for row in rows}.values())
        if not chosen:
            raise BadInput("export-nothing", folder=folder)
        with new_folder(folder) as new:
            batches = _read_batches(store, chosen)
            if form == "parquet":
                write_parquet(new / PARQUET_FILE, batches)
                with atomic_write(new / MODEL) as file:
                    save_source(file, source)
            else:
                _write_arrays(new, form, batches, source, (len(chosen), len(complete)))
            files = tuple(sorted(os.listdir(new)))  # noqa: PTH208
    uncaptioned = len(rows) - len(complete) if complete and chosen is complete else 0
    return ExportReport(folder, files, len(chosen), uncaptioned, not_encoded)


def _list_rows(store: VectorStore) -> tuple[list[_Row], int]:
    """List a row for each file and caption; count the files that have no vector."""
    captions: dict[int, list[CaptionRow]] = {}
    for caption in store.all_captions():
        captions.setdefault(caption.image_id, []).append(caption)
    without_vector = {caption.id for caption in store.captions_without_vector()}
    not_encoded = set(store.images_without_vector())
    files = sorted(store.files().values(), key=lambda file: (file.image_id, file.path))
    rows: list[_Row] = []
    for file in files:
        if file.image_id in not_encoded:
            continue
        if file.image_id not in captions:
            rows.append(_Row(file.image_id, file.path, None, ""))
        for caption in captions.get(file.image_id, []):
            caption_id = None if caption.id in without_vector else caption.id
            rows.append(_Row(file.image_id, file.path, caption_id, caption.text))
    return rows, sum(file.image_id in not_encoded for file in files)


def _read_batches(store: VectorStore, rows: Sequence[_Row]) -> Iterator[Rows]:
    """Read the vectors of the rows."""
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        yield Rows(
            "",
            start,
            [row.path for row in part],
            [row.caption for row in part],
            store.image_vectors([row.image_id for row in part]),
            store.caption_vectors([row.caption_id for row in part if row.caption_id is not None]),
            np.array([i for i, row in enumerate(part) if row.caption_id is not None], np.int64),
        )


def _write_arrays(
    folder: Path,
    form: str,
    batches: Iterator[Rows],
    source: EmbeddingSource,
    counts: tuple[int, int],
) -> None:
    """Write parallel arrays; ``counts``: rows of images and of texts.

    They are gathered in scratch files beside ``folder``: a million of them need not fit into
    memory.
    """
    dim = source.info.dim
    images, texts = (
        _scratch_array(folder.parent / f"{name}.npy", count, dim)
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
    info, model = source.info, source.model
    features = FeatureArrays(images, texts, tuple(paths), tuple(captions), info, model)
    save_features(folder, features, (form,))


def _scratch_array(path: Path, count: int, dim: int) -> Floats:
    if not count:
        return np.empty((0, dim), np.float32)
    array: Floats = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.dtype(np.float32), shape=(count, dim)
    )
    return array


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which takes the place of ``folder`` at the end.

    ``folder`` is left as it was if anything fails. Scratch files may lie beside the new one. Raises
    BadInput where ``folder`` is a file or holds anything but an earlier export, and where it cannot
    be written.
    """
    try:
        with staged_folder(folder, _check_replaceable, ".soutu-export-") as new:
            yield new
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput("export-unwritable", folder=folder, reason=reason) from error


def _check_replaceable(target: Path, name: Path) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise BadInput("export-not-folder", folder=name)
    names = {path.name for path in target.iterdir()}
    if names and (MODEL not in names or not names <= EXPORT_NAMES):
        other = ", ".join(sorted(names - EXPORT_NAMES or names)[:3])
        raise BadInput("export-not-empty", folder=name, found=other)
