"""A pickled list of texts, as the original demo wrote them; any other pickle is refused unrun.

A pickle is a program. Its instructions are read first, without following any, and only those
that make one flat list of texts are admitted: no import, no call, no second container, and no
number that makes the unpickler reserve memory for more than the file holds.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path

from soutu.errors import BadInput
from soutu.store.exchange.files import read_bounded

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
