"""Opening the files that embeddings lie in: arrays without loading them, lists of texts."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from soutu.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import torch

    from soutu.store.exchange.rows import AnyFloats

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
