"""Embeddings as parallel files: our features folder, and the original demo's (``features.py``)."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from soutu.errors import BadInput, IndexCorrupt, MissingExtra, MissingIndex
from soutu.exchange.embeddings import Rows
from soutu.store.memory import ArrayStore
from soutu.types import Floats, ModelInfo

if TYPE_CHECKING:
    import torch

    from soutu.exchange.embeddings import AnyFloats

# Features as plain files, in the layout of the original demo: row i of every file belongs
# to row i of the captions file.
#
#     image_features.npy  text_features.npy      float32 (n, dim); .pt too where torch is there
#     image_paths.json    captions.json          lists of text; .pkl too
#     model.json                                 the model that the features were made with
#
# Only ``.npy`` and ``.json`` are read back here: a pickle from elsewhere could run code.
# (``store/exchange`` reads these files too, of any size and with a guard, to import them.)


MODEL = "model.json"
LAYOUTS = {"npy": ".json", "pt": ".pkl"}
"""Endings of arrays, and of the lists of texts beside them."""


@dataclass(frozen=True)
class EmbeddingSource:
    """What ``model.json`` says; ``model`` is the name that opens the encoder again."""

    model: str
    info: ModelInfo


@dataclass(frozen=True)
class FeatureArrays:
    """Parallel rows; ``model`` is the name that opens the encoder again. Where there is not one
    caption, ``texts`` and ``captions`` are empty."""

    images: Floats
    texts: Floats
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    info: ModelInfo
    model: str

    def store(self) -> ArrayStore:
        """The rows as something that can be searched."""
        return ArrayStore(self.images, self.texts, self.paths, self.captions, self.info)


def save_features(
    folder: Path, features: FeatureArrays, layouts: Iterable[str] = LAYOUTS
) -> list[str]:
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
    write(MODEL, lambda path: save_model(path, EmbeddingSource(features.model, features.info)))
    return written


def save_model(path: Path, described: EmbeddingSource) -> None:
    """Write ``model.json``."""
    text = json.dumps({"model": described.model, **asdict(described.info)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def load_model(path: Path) -> EmbeddingSource:
    """Read ``model.json``. OSError, ValueError, TypeError, KeyError or AttributeError where it is
    not what ``save_model`` writes."""
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = str(said.pop("model"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }
    return EmbeddingSource(model, ModelInfo(**fields))


def load_features(folder: Path) -> FeatureArrays:
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
    card = described.info
    shapes = {images.shape, texts.shape, (len(paths), card.dim), (len(captions), card.dim)}
    if len(shapes) != 1 or images.dtype != np.float32 or texts.dtype != np.float32:
        raise IndexCorrupt("features-corrupt", folder=folder, fault=f"shapes {sorted(shapes)}")
    return FeatureArrays(images, texts, tuple(paths), tuple(captions), card, described.model)


def _save_npy(path: Path, array: Floats) -> None:
    with path.open("wb") as file:  # np.save would add a suffix to the name
        np.save(file, array)


def _save_pt(path: Path, array: Floats) -> None:
    import torch

    torch.save(torch.from_numpy(array), path)


# Opening the files that embeddings lie in: arrays without loading them, lists of texts.


MAX_BYTES = 1_000_000_000  # of a file that is read whole


class Matrix(Protocol):
    """A two-dimensional array of floats of which rows are read as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> AnyFloats: ...


def present(path: Path) -> Path:
    """``path``; BadInput where it is no file. (A pipe would be waited for without end.)"""
    if not path.is_file():
        raise BadInput("import-file-missing", file=path)
    return path


def damaged(path: Path, fault: Exception) -> BadInput:
    """The error for a file that cannot be read as what its name says."""
    reason = " ".join(str(fault).split()) or type(fault).__name__
    return BadInput("import-damaged", file=path, fault=reason)


def read_bounded(path: Path) -> bytes:
    """All bytes of ``path``; BadInput above ``MAX_BYTES``."""
    try:
        with present(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # read(limit) would reserve the limit
            if size <= MAX_BYTES:
                return file.read(size)
    except OSError as fault:
        raise damaged(path, fault) from fault
    raise BadInput("import-too-large", file=path, limit=MAX_BYTES)


def read_json_texts(path: Path) -> list[str]:
    """A JSON list of texts."""
    data = read_bounded(path)
    try:
        found = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as fault:
        raise damaged(path, fault) from fault
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadInput("import-not-texts", file=path)
    return found


def open_npy(path: Path) -> Matrix:
    """An array file, memory-mapped. Only the ``.npy`` format is opened, and no objects in it."""
    try:
        array = np.lib.format.open_memmap(present(path), mode="r")
    except Exception as fault:  # a damaged header is evaluated as Python's literals are
        raise damaged(path, fault) from fault
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise BadInput("import-shape", file=path, shape=array.shape, kind=array.dtype)
    return array


def open_pt(path: Path) -> Matrix:
    """A tensor file of PyTorch, memory-mapped where it was written since 2020, and read with the
    restricted unpickler. MissingExtra without torch."""
    try:
        import torch
    except ImportError as fault:
        raise MissingExtra("extra-tensors", file=path, fault=fault) from fault
    present(path)
    found: Any
    try:
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as fault:  # damaged bytes draw nearly every class of exception
        raise damaged(path, fault) from fault
    if not isinstance(found, torch.Tensor) or found.layout is not torch.strided:
        raise BadInput("import-shape", file=path, shape="?", kind=type(found).__name__)
    if found.ndim != 2 or not found.dtype.is_floating_point or found.device.type != "cpu":
        raise BadInput("import-shape", file=path, shape=tuple(found.shape), kind=found.dtype)
    return _Tensor(found.detach())


class _Tensor:
    """A tensor as a ``Matrix``; numpy knows no bfloat16, so all become float64."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.shape)

    def __getitem__(self, rows: slice, /) -> AnyFloats:
        array: AnyFloats = self._tensor[rows].double().numpy()
        return array


# A pickled list of texts, as the original demo wrote them; any other pickle is refused unrun.
#
# A pickle is a program. Its instructions are read first, without following any, and only those
# that make one flat list of texts are admitted: no import, no call, no second container, and no
# number that makes the unpickler reserve memory for more than the file holds.


_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_CONTAINERS = {"EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_ADMITTED = (
    {"PROTO", "FRAME", "MARK", "APPEND", "APPENDS", "STOP", "GET", "BINGET", "LONG_BINGET"}
    | _TEXTS
    | _CONTAINERS
    | _STORES
)


def read_pickled_texts(path: Path) -> list[str]:
    """The list (or tuple) of texts in ``path``. BadInput for a pickle that holds anything else."""
    data = read_bounded(path)
    try:
        _check(data)
        found = _TextsOnly(io.BytesIO(data)).load()
    except Exception as fault:  # damaged bytes draw nearly every class of exception
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise BadInput("import-pickle", file=path, fault=reason) from fault
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise BadInput("import-pickle", file=path, fault=f"a {type(found).__name__}")
    return list(found)


class _TextsOnly(pickle.Unpickler):
    """The second lock on the door."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"persistent id {pid!r}")


def _check(data: bytes) -> None:
    """Read the instructions; UnpicklingError for one that a list of texts does not need."""
    containers = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        name = instruction.name
        if name not in _ADMITTED:
            told = ascii(argument[:80]) if isinstance(argument, str) else ""
            raise pickle.UnpicklingError(f"instruction {name} {told}".strip())
        if name in _CONTAINERS:
            containers += 1
            if containers > 1:
                raise pickle.UnpicklingError("a list within a list")
        # Picklers number what they remember from 0 or 1 on.
        if name in _STORES and isinstance(argument, int) and not 0 <= argument <= count:
            raise pickle.UnpicklingError(f"instruction {name} {argument}")


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


def described_in(folder: Path) -> EmbeddingSource | None:
    """The model that ``model.json`` names; None where there is none, or it is not one of ours."""
    try:
        found = load_model(folder / MODEL)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    card = found.info
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
