"""Features as plain files, in the layout of the original demo: row i of every file belongs
to row i of the captions file.

    image_features.npy  text_features.npy      float32 (n, dim); .pt too where torch is there
    image_paths.json    captions.json          lists of text; .pkl too
    model.json                                 the model that the features were made with

Only ``.npy`` and ``.json`` are read back here: a pickle from elsewhere could run code.
(``store/exchange`` reads these files too, of any size and with a guard, to import them.)
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.store.arrays import ArrayStore
from soutu.types import Floats, ModelCard

MODEL = "model.json"
LAYOUTS = {"npy": ".json", "pt": ".pkl"}
"""Endings of arrays, and of the lists of texts beside them."""


@dataclass(frozen=True)
class Described:
    """What ``model.json`` says; ``model`` is the name that opens the encoder again."""

    model: str
    card: ModelCard


@dataclass(frozen=True)
class Features:
    """Parallel rows; ``model`` is the name that opens the encoder again. Where there is not one
    caption, ``texts`` and ``captions`` are empty."""

    images: Floats
    texts: Floats
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    card: ModelCard
    model: str

    def store(self) -> ArrayStore:
        """The rows as something that can be searched."""
        return ArrayStore(self.images, self.texts, self.paths, self.captions, self.card)


def save_features(folder: Path, features: Features, layouts: Iterable[str] = LAYOUTS) -> list[str]:
    """Write the files of ``layouts`` and ``model.json``; returns their names. ``.pt`` files are
    written where torch is installed, and old ones removed where it is not, so that no two formats
    disagree."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[str] = []

    def write(name: str, save: Callable[[Path], object]) -> None:
        beside = folder / f".{name}"
        save(beside)
        beside.replace(folder / name)
        written.append(name)

    arrays = {"image_features": features.images, "text_features": features.texts}
    lists = {"captions": features.captions, "image_paths": features.paths}
    if not features.captions:
        del arrays["text_features"], lists["captions"]
    for name, array in arrays.items():
        if "npy" in layouts:
            write(f"{name}.npy", lambda path, array=array: _save_npy(path, array))  # type: ignore[misc]
        if "pt" in layouts and importlib.util.find_spec("torch"):
            write(f"{name}.pt", lambda path, array=array: _save_pt(path, array))  # type: ignore[misc]
        else:
            (folder / f"{name}.pt").unlink(missing_ok=True)
    for name, rows in lists.items():
        if "npy" in layouts:
            text = json.dumps(list(rows), ensure_ascii=False, indent=0)
            data = text.encode("utf-8", "surrogatepass")
            write(f"{name}.json", lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
        if "pt" in layouts:
            data = pickle.dumps(list(rows))
            write(f"{name}.pkl", lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
    write(MODEL, lambda path: save_model(path, Described(features.model, features.card)))
    return written


def save_model(path: Path, described: Described) -> None:
    """Write ``model.json``."""
    text = json.dumps({"model": described.model, **asdict(described.card)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def load_model(path: Path) -> Described:
    """Read ``model.json``. OSError, ValueError, TypeError, KeyError or AttributeError where it is
    not what ``save_model`` writes."""
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = str(said.pop("model"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }
    return Described(model, ModelCard(**fields))


def load_features(folder: Path) -> Features:
    """Read what ``save_features`` wrote. Raises MissingIndex or IndexCorrupt."""
    try:
        images, texts = (
            np.load(folder / f"{name}_features.npy", allow_pickle=False)
            for name in ("image", "text")
        )
        paths, captions = (
            json.loads((folder / name).read_bytes().decode("utf-8", "surrogatepass"))
            for name in ("image_paths.json", "captions.json")
        )
        described = load_model(folder / MODEL)
    except FileNotFoundError as fault:
        raise MissingIndex("features-missing", folder=folder, file=fault.filename) from fault
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as fault:
        raise IndexCorrupt("features-corrupt", folder=folder, fault=str(fault)) from fault
    card = described.card
    shapes = {images.shape, texts.shape, (len(paths), card.dim), (len(captions), card.dim)}
    if len(shapes) != 1 or images.dtype != np.float32 or texts.dtype != np.float32:
        raise IndexCorrupt("features-corrupt", folder=folder, fault=f"shapes {sorted(shapes)}")
    return Features(images, texts, tuple(paths), tuple(captions), card, described.model)


def _save_npy(path: Path, array: Floats) -> None:
    with path.open("wb") as file:  # np.save would add a suffix to the name
        np.save(file, array)


def _save_pt(path: Path, array: Floats) -> None:
    import torch

    torch.save(torch.from_numpy(array), path)
