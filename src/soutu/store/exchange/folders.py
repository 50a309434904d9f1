"""Embeddings as parallel files: our features folder, and the original demo's (``features.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from soutu.errors import BadInput
from soutu.store.exchange.files import Matrix, open_npy, open_pt, present, read_json_texts
from soutu.store.exchange.pickles import read_pickled_texts
from soutu.store.exchange.rows import Rows
from soutu.store.features import LAYOUTS, MODEL, Described, load_model

_ARRAYS = {"npy": open_npy, "pt": open_pt}
_LISTS = {".json": read_json_texts, ".pkl": read_pickled_texts}


class FeatureFolder:
    """``image_features`` and ``image_paths``, with ``text_features`` and ``captions`` where they
    are there; implements ``Embeddings``."""

    def __init__(self, folder: Path, layout: str) -> None:
        """``layout``: "npy" or "pt". The lists may be JSON or pickles with either; those that
        belong to the layout are taken first."""
        self.described = described_in(folder)
        self._file = folder / f"image_features.{layout}"
        self._images = _ARRAYS[layout](self._file)
        self.count = self._images.shape[0]
        texts = folder / f"text_features.{layout}"
        self._texts = _ARRAYS[layout](texts) if texts.exists() else None
        endings = sorted(_LISTS, key=lambda ending: ending != LAYOUTS[layout])
        paths = _list(folder, "image_paths", endings)
        assert paths is not None
        self._paths = paths
        self._captions = _list(folder, "captions", endings, needed=self._texts is not None)
        for name, rows in (
            (texts.name, None if self._texts is None else self._texts.shape[0]),
            ("image_paths", len(self._paths)),
            ("captions", None if self._captions is None else len(self._captions)),
        ):
            if rows is not None:
                same_count(self._file, self.count, folder / name, rows)

    def batches(self, size: int) -> Iterator[Rows]:
        for start in range(0, self.count, size):
            paths = self._paths[start : start + size]
            part = slice(start, start + len(paths))
            captions = self._captions[part] if self._captions else [""] * len(paths)
            yield parallel(self._file, part, paths, captions, (self._images, self._texts))


def parallel(
    file: Path,
    part: slice,
    paths: list[str],
    captions: list[str],
    arrays: tuple[Matrix, Matrix | None],
) -> Rows:
    """The rows ``part`` of arrays of images and, where there are any, of texts."""
    images = arrays[0][part]
    texts = images[:0] if arrays[1] is None else arrays[1][part]
    return Rows(str(file), part.start, paths, captions, images, texts, np.arange(len(texts)))


def same_count(file: Path, count: int, other: Path, found: int) -> None:
    """BadInput unless both files have as many rows."""
    if found != count:
        raise BadInput("import-counts", file=file, count=count, other=other, found=found)


def described_in(folder: Path) -> Described | None:
    """The model that ``model.json`` names; None where there is none, or it is not one of ours."""
    try:
        found = load_model(folder / MODEL)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    card = found.card
    right = isinstance(card.dim, int) and isinstance(card.name, str) and isinstance(card.space, str)
    return found if right else None


def _list(folder: Path, name: str, endings: list[str], *, needed: bool = True) -> list[str] | None:
    """The texts of the first file there is; None where there is none and none is needed."""
    for ending in endings:
        if (folder / (name + ending)).exists():
            return _LISTS[ending](folder / (name + ending))
    if needed:
        present(folder / (name + endings[0]))
    return None
