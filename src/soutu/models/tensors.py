"""Read the tensors of a checkpoint without PyTorch: safetensors, and PyTorch's own archives.

Both are a list of tensors and a region of bytes for each, so a tensor is read when it is needed.
The list in PyTorch's archives is a pickle; it is read by an unpickler that knows tensors and
dictionaries and refuses all else, so that no file can run code.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from soutu.errors import BadInput
from soutu.types import Floats

MAX_LIST_BYTES = 100_000_000  # of the list of tensors; that of the largest CLIP has 1 MB
# NumPy has no bfloat16: it is the upper half of a float32.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts put the tensors
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member of a ZIP archive: two lengths at its end


@dataclass(frozen=True)
class _Region:
    """Where a tensor lies: ``start`` in bytes, ``strides`` in elements."""

    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TensorFile(Mapping[str, Floats]):
    """The tensors of a checkpoint by name, float32 however they are stored.

    Raises
    ------
    BadInput
        Where the file is cut, is of neither format, or holds more than tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._size = path.stat().st_size
            with path.open("rb") as file:
                is_zip = file.read(4) == b"PK\x03\x04"
                file.seek(0)
                read = _read_archive if is_zip else _read_safetensors
                self._regions = read(file, self._size)
            for name, region in self._regions.items():
                self._check(name, region)
        except Exception as error:  # damaged bytes draw nearly every class of exception
            lines = str(error).strip().splitlines() or [repr(error)]
            raise BadInput("checkpoint-unreadable", file=path, error=lines[0]) from error

    def __getitem__(self, name: str) -> Floats:
        """Read the tensor ``name``, float32."""
        region = self._regions[name]
        dtype = np.dtype(_DTYPES[region.dtype])
        count = math.prod(region.shape) and _span(region)
        flat: NDArray[Any] = np.fromfile(self.path, dtype, count, offset=region.start)
        if region.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        strides = [step * flat.dtype.itemsize for step in region.strides]
        tensor = np.lib.stride_tricks.as_strided(flat, region.shape, strides)
        return np.asarray(tensor, np.float32)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._regions)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._regions)

    def _check(self, name: str, region: _Region) -> None:
        numbers = (region.start, *region.shape, *region.strides)
        if len(region.shape) != len(region.strides) or min(numbers) < 0:
            raise ValueError(f"tensor {name}: shape {region.shape}, strides {region.strides}")
        size = np.dtype(_DTYPES[region.dtype]).itemsize
        if math.prod(region.shape) > self._size:  # a stride of 0 would repeat its bytes
            raise ValueError(f"tensor {name}: shape {region.shape}")
        if math.prod(region.shape) and region.start + _span(region) * size > self._size:
            raise ValueError(f"tensor {name} ends beyond the file, which is cut")


def _span(region: _Region) -> int:
    """How many elements lie between a tensor's first and its last, both included."""
    return 1 + sum((n - 1) * step for n, step in zip(region.shape, region.strides, strict=True))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _read_safetensors(file: BinaryIO, size: int) -> dict[str, _Region]:
    """Read the header: its length in eight bytes, then JSON."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_LIST_BYTES):
        raise ValueError("neither safetensors nor an archive of PyTorch 1.6 or later")
    regions = {}
    for name, row in json.loads(file.read(length)).items():
        if name == "__metadata__":
            continue
        start, end = row["data_offsets"]
        shape = tuple(map(int, row["shape"]))
        if row["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name}: dtype {row['dtype']}")
        if start < 0 or end - start != math.prod(shape) * np.dtype(_DTYPES[row["dtype"]]).itemsize:
            raise ValueError(f"tensor {name}: bytes {start} to {end} for shape {shape}")
        regions[name] = _Region(row["dtype"], 8 + length + int(start), shape, _contiguous(shape))
    return regions


def _read_archive(file: BinaryIO, _: int) -> dict[str, _Region]:
    with zipfile.ZipFile(file) as archive:
        listing = next((i for i in archive.infolist() if i.filename.endswith("data.pkl")), None)
        if listing is None:
            raise ValueError("an archive without data.pkl")
        if listing.file_size > MAX_LIST_BYTES:
            raise ValueError(f"a list of {listing.file_size} bytes")
        folder = listing.filename.removesuffix("data.pkl")
        starts: dict[str, int] = {}
        for member in archive.infolist():
            if not member.filename.startswith(f"{folder}data/"):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
            file.seek(member.header_offset)
            lengths = sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
            start = member.header_offset + _LOCAL_HEADER.size + lengths
            starts[member.filename.removeprefix(f"{folder}data/")] = start
        pickled = archive.read(listing)
    _check_memo(pickled)
    tensors = _TensorUnpickler(io.BytesIO(pickled), starts).load()
    while isinstance(tensors, dict):
        inner = next((key for key in _WRAPPERS if isinstance(tensors.get(key), dict)), None)
        if inner is None:
            break
        tensors = tensors[inner]
    if not isinstance(tensors, dict):
        raise ValueError(f"a {type(tensors).__name__} and not a dictionary of tensors")
    regions = {str(k): v for k, v in tensors.items() if isinstance(v, _Region)}
    if regions and all(name.startswith("module.") for name in regions):  # trained in parallel
        regions = {name.removeprefix("module."): region for name, region in regions.items()}
    return regions


def _check_memo(pickled: bytes) -> None:
    """Refuse a number that makes the unpickler reserve memory for more than the list has."""
    for count, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
        if "PUT" in instruction.name and not 0 <= (argument or 0) <= count:
            raise pickle.UnpicklingError(f"instruction {instruction.name} {argument}")


class _TensorUnpickler(pickle.Unpickler):
    """Knows dictionaries and tensors; a tensor becomes the region in which it lies."""

    def __init__(self, file: io.BytesIO, starts: Mapping[str, int]) -> None:
        super().__init__(file)
        self._starts = starts

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_region
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter_region
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> tuple[str, int]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype not in _DTYPES:
            raise pickle.UnpicklingError(f"persistent id {pid!r}")
        return dtype, self._starts[key]


def _tensor_region(
    storage: tuple[str, int], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Region:
    dtype, start = storage
    return _Region(dtype, start + offset * np.dtype(_DTYPES[dtype]).itemsize, shape, strides)


def _parameter_region(region: _Region, *_: Any) -> _Region:
    return region
