"""Embeddings as parallel files, in the layout of the original demo.

Row i of every file belongs to row i of the captions file:

    image_features.npy  text_features.npy      float32 (n, dim); .pt too where torch is there
    image_paths.json    captions.json          lists of text; .pkl too
    model.json                                 the model that the features were made with

``load_features`` reads only ``.npy`` and ``.json`` of ours. ``FeatureFolder`` reads all of them to
import them, of any size and guarded: a pickle from elsewhere could run code.
"""

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from soutu.errors import BadInput, IndexCorrupt, MissingExtra, MissingIndex
from soutu.exchange.embeddings import Rows
from soutu.fs import atomic_write
from soutu.store.memory import ArrayStore
from soutu.types import Floats, ModelInfo

if TYPE_CHECKING:
    import torch

    from soutu.exchange.embeddings import AnyFloats

MODEL = "model.json"
LAYOUTS = {"npy": ".json", "pt": ".pkl"}
"""Endings of arrays, and of the lists of texts beside them."""
MAX_BYTES = 1_000_000_000  # of a file that is read whole


@dataclass(frozen=True)
class EmbeddingSource:
    """What ``model.json`` says; ``model`` is the name that opens the encoder again."""

    model: str
    info: ModelInfo


@dataclass(frozen=True)
class FeatureArrays:
    """Parallel rows; ``model`` is the name that opens the encoder again.

    Where there is not one caption, ``texts`` and ``captions`` are empty.
    """

    images: Floats
    texts: Floats
    paths: tuple[str, ...]
    captions: tuple[str, ...]
    info: ModelInfo
    model: str

    def store(self) -> ArrayStore:
        """Return the rows as something that can be searched."""
        return ArrayStore(self.images, self.texts, self.paths, self.captions, self.info)


def save_features(
    folder: Path, features: FeatureArrays, layouts: Iterable[str] = LAYOUTS
) -> list[str]:
    """Write the files of ``layouts`` and ``model.json``; return their names.

    ``.pt`` files are written where torch is installed, and old ones removed where it is not, so
    that no two formats disagree.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"image_features": features.images, "text_features": features.texts}
    lists = {"captions": features.captions, "image_paths": features.paths}
    if not features.captions:
        del arrays["text_features"], lists["captions"]
    writers: dict[str, Callable[[BinaryIO], object]] = {}
    for name, array in arrays.items():
        if "npy" in layouts:
            writers[f"{name}.npy"] = partial(np.save, arr=array)
        if "pt" in layouts and importlib.util.find_spec("torch"):
            writers[f"{name}.pt"] = partial(_save_pt, array=array)
        else:
            (folder / f"{name}.pt").unlink(missing_ok=True)
    for name, rows in lists.items():
        if "npy" in layouts:
            text = json.dumps(list(rows), ensure_ascii=False, indent=0)
            data = text.encode("utf-8", "surrogatepass")
            writers[f"{name}.json"] = partial(_save_bytes, data=data)
        if "pt" in layouts:
            writers[f"{name}.pkl"] = partial(_save_bytes, data=pickle.dumps(list(rows)))
    writers[MODEL] = partial(save_source, source=EmbeddingSource(features.model, features.info))
    for name, write in writers.items():
        with atomic_write(folder / name) as file:
            write(file)
    return [*writers]


def _save_pt(file: BinaryIO, array: Floats) -> None:
    import torch

    torch.save(torch.from_numpy(array), file)


def _save_bytes(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def save_source(file: BinaryIO, source: EmbeddingSource) -> None:
    """Write ``model.json``."""
    text = json.dumps({"model": source.model, **asdict(source.info)}, indent=2)
    file.write(f"{text}\n".encode())


def _load_source(path: Path) -> EmbeddingSource:
    """Read ``model.json``.

    Raises OSError, ValueError, TypeError, KeyError or AttributeError for one that is not ours.
    """
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = str(fields.pop("model"))
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return EmbeddingSource(model, ModelInfo(**{**fields, **lists}))


def read_source(folder: Path) -> EmbeddingSource | None:
    """Return the model that ``model.json`` names; None where there is none, or none of ours."""
    try:
        source = _load_source(folder / MODEL)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    info = source.info
    valid = isinstance(info.dim, int) and all(isinstance(x, str) for x in (info.name, info.space))
    return source if valid else None


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
        source = _load_source(folder / MODEL)
    except FileNotFoundError as error:
        raise MissingIndex("features-missing", folder=folder, file=error.filename) from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise IndexCorrupt("features-corrupt", folder=folder, error=str(error)) from error
    info = source.info
    shapes = {images.shape, texts.shape, (len(paths), info.dim), (len(captions), info.dim)}
    if len(shapes) != 1 or images.dtype != np.float32 or texts.dtype != np.float32:
        raise IndexCorrupt("features-corrupt", folder=folder, error=f"shapes {sorted(shapes)}")
    return FeatureArrays(images, texts, tuple(paths), tuple(captions), info, source.model)


class FeatureFolder:
    """Implements ``Embeddings`` for parallel files, with or without texts."""

    def __init__(self, folder: Path, layout: str) -> None:
        """Open ``folder`` in the layout "npy" or "pt".

        The lists may be JSON or pickles with either; those that belong to the layout come first.
        """
        open_array = {"npy": open_npy, "pt": open_pt}[layout]
        self.source = read_source(folder)
        self._file = folder / f"image_features.{layout}"
        self._images = open_array(self._file)
        self.count = self._images.shape[0]
        texts = folder / f"text_features.{layout}"
        self._texts = open_array(texts) if texts.exists() else None
        endings = sorted(_LIST_READERS, key=lambda ending: ending != LAYOUTS[layout])
        self._paths = _read_list(folder, "image_paths", endings) or []
        self._captions = _read_list(folder, "captions", endings, required=self._texts is not None)
        counts = {"image_paths": len(self._paths)}
        if self._texts is not None:
            counts[texts.name] = self._texts.shape[0]
        if self._captions is not None:
            counts["captions"] = len(self._captions)
        for name, count in counts.items():
            require_same_count(self._file, self.count, folder / name, count)

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield all rows, at most ``size`` at once."""
        for start in range(0, self.count, size):
            paths = self._paths[start : start + size]
            part = slice(start, start + len(paths))
            captions = self._captions[part] if self._captions else [""] * len(paths)
            yield slice_rows(self._file, part, paths, captions, (self._images, self._texts))


def _read_list(
    folder: Path, name: str, endings: list[str], *, required: bool = True
) -> list[str] | None:
    """Read the first file there is; return None where there is none and none is required."""
    for ending in endings:
        if (folder / (name + ending)).exists():
            return _LIST_READERS[ending](folder / (name + ending))
    if required:
        require_file(folder / (name + endings[0]))
    return None


class Matrix(Protocol):
    """A two-dimensional array of floats whose rows are read when they are used."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, dim)."""
        ...

    def __getitem__(self, rows: slice, /) -> AnyFloats:
        """Read rows."""
        ...


def slice_rows(
    file: Path,
    part: slice,
    paths: list[str],
    captions: list[str],
    arrays: tuple[Matrix, Matrix | None],
) -> Rows:
    """Return the rows ``part`` of arrays of images and, where there are any, of texts."""
    images = arrays[0][part]
    texts = images[:0] if arrays[1] is None else arrays[1][part]
    return Rows(str(file), part.start, paths, captions, images, texts, np.arange(len(texts)))


def require_same_count(file: Path, count: int, other: Path, other_count: int) -> None:
    """Raise BadInput unless both files have as many rows."""
    if other_count != count:
        raise BadInput("import-counts", file=file, count=count, other=other, found=other_count)


def require_file(path: Path) -> Path:
    """Return ``path``; raise BadInput where it is no file.

    A pipe would be waited for without end.
    """
    if not path.is_file():
        raise BadInput("import-file-missing", file=path)
    return path


def damaged_file(path: Path, error: Exception) -> BadInput:
    """Return the error for a file that cannot be read as what its name says."""
    return BadInput("import-damaged", file=path, error=_reason(error))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def open_npy(path: Path) -> Matrix:
    """Map an array file into memory; only the ``.npy`` format, and no objects in it."""
    try:
        array = np.lib.format.open_memmap(require_file(path), mode="r")
    except Exception as error:  # a damaged header is evaluated as Python's literals are
        raise damaged_file(path, error) from error
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise BadInput("import-shape", file=path, shape=array.shape, kind=array.dtype)
    return array


def open_pt(path: Path) -> Matrix:
    """Open a tensor file of PyTorch with the restricted unpickler.

    It is mapped into memory where it was written since 2020. Raises MissingExtra without torch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("extra-tensors", file=path, error=error) from error
    require_file(path)
    tensor: Any
    try:
        mapped = zipfile.is_zipfile(path)
        tensor = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged bytes draw nearly every class of exception
        raise damaged_file(path, error) from error
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        raise BadInput("import-shape", file=path, shape="?", kind=type(tensor).__name__)
    if tensor.ndim != 2 or not tensor.dtype.is_floating_point or tensor.device.type != "cpu":
        raise BadInput("import-shape", file=path, shape=tuple(tensor.shape), kind=tensor.dtype)
    return _Tensor(tensor.detach())


class _Tensor:
    """A tensor as a ``Matrix``; numpy knows no bfloat16, so all become float64."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.shape)

    def __getitem__(self, rows: slice, /) -> AnyFloats:
        array: AnyFloats = self._tensor[rows].double().numpy()
        return array


def read_json_texts(path: Path) -> list[str]:
    """Read a JSON list of texts."""
    data = _read_bounded(path)
    try:
        texts = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise damaged_file(path, error) from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput("import-not-texts", file=path)
    return texts


def _read_bounded(path: Path) -> bytes:
    """Read a file whole; raise BadInput above ``MAX_BYTES``."""
    try:
        with require_file(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # read(limit) would reserve the limit
            if size <= MAX_BYTES:
                return file.read(size)
    except OSError as error:
        raise damaged_file(path, error) from error
    raise BadInput("import-too-large", file=path, limit=MAX_BYTES)


# A pickle is a program. Its instructions are read first, without following any, and only those
# that make one flat list of texts are admitted: no import, no call, no second container, and no
# number that makes the unpickler reserve memory for more than the file holds.
_PICKLE_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PICKLE_LISTS = {"EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PICKLE_STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_PICKLE_REST = {
    "PROTO", "FRAME", "MARK", "APPEND", "APPENDS", "STOP", "GET", "BINGET", "LONG_BINGET"
}  # fmt: skip
_PICKLE_ALLOWED = _PICKLE_TEXTS | _PICKLE_LISTS | _PICKLE_STORES | _PICKLE_REST


def read_pickled_texts(path: Path) -> list[str]:
    """Read a pickled list (or tuple) of texts, as the original demo wrote them.

    Raises BadInput for a pickle that holds anything else, without running it.
    """
    data = _read_bounded(path)
    try:
        _check_pickle(data)
        texts = _TextUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # damaged bytes draw nearly every class of exception
        raise BadInput("import-pickle", file=path, error=_reason(error)) from error
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise BadInput("import-pickle", file=path, error=f"a {type(texts).__name__}")
    return list(texts)


class _TextUnpickler(pickle.Unpickler):
    """The second lock on the door."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"persistent id {pid!r}")


def _check_pickle(data: bytes) -> None:
    """Raise UnpicklingError for an instruction that a list of texts does not need."""
    lists = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        name = instruction.name
        if name not in _PICKLE_ALLOWED:
            text = ascii(argument[:80]) if isinstance(argument, str) else ""
            raise pickle.UnpicklingError(f"instruction {name} {text}".strip())
        if name in _PICKLE_LISTS:
            lists += 1
            if lists > 1:
                raise pickle.UnpicklingError("a list within a list")
        # Picklers number what they remember from 0 or 1 on.
        if name in _PICKLE_STORES and isinstance(argument, int) and not 0 <= argument <= count:
            raise pickle.UnpicklingError(f"instruction {name} {argument}")


_LIST_READERS = {".json": read_json_texts, ".pkl": read_pickled_texts}
