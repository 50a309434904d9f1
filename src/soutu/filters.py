"""What a search may be narrowed to: conditions as values, independent of any store.

    Compare("width", ">", 2000)      All((a, b))      Any((a, b))      Not(a)

``Field.kind`` says what a value may be: "number"; "text"; "time", a local time or its beginning
("2024", "2024-05-06", "2024-05-06T07"); "shape", one of ``SHAPES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

FIELDS = {
    "folder": "text",
    "name": "text",
    "path": "text",
    "caption": "text",
    "taken": "time",
    "width": "number",
    "height": "number",
    "size": "number",
    "orientation": "shape",
}
"""``folder``: the one that a picture lies in, or any above it; ``size``: of the file, in bytes."""

TAG = "tag."  # before the name of a further column of the captions file: a text
SHAPES = ("landscape", "portrait", "square")
OPERATORS = {
    "text": ("=", "!=", "~", "contains"),
    "time": ("=", "!=", "<", "<=", ">", ">="),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "shape": ("=", "!="),
}
"""``~`` matches a pattern of ``*``, ``?`` and ``[…]``. Case does not count, but for ``=`` and
``!=`` of paths, folders and names, which are compared as file systems do."""


def kind_of(field: str) -> str | None:
    """The kind of ``field``; None for one that there is not."""
    return "text" if field.startswith(TAG) and field != TAG else FIELDS.get(field)


@dataclass(frozen=True)
class Compare:
    """``field operator value``, all of them valid together."""

    field: str
    operator: str
    value: str | int


@dataclass(frozen=True)
class All:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    part: Filter


Filter: TypeAlias = "Compare | All | Any | Not"
