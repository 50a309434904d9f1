"""Filters as Milvus expressions over the rows of ``files``: what is said there, Milvus tells; the
rest is told here, of the rows that Milvus could not rule out, by what the local store asks SQLite.

Values become numbers or hexadecimal digits, so that none is ever syntax. ``Told.exact`` says
whether the expression is the filter, or merely admits all that the filter does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from soutu.store.milvus.connection import Row
from soutu.store.milvus.epoch import Table, seen
from soutu.store.milvus.schema import SINCE
from soutu.store.sqlite.filters import matching_images
from soutu.store.sqlite.schema import casefold_nfc
from soutu.types import TAG, All, Any, Compare, Filter, Ids, Not

EVERY, NONE = f"{SINCE} >= 0", f"{SINCE} < 0"
MANY = 20_000  # images whose captions are fetched by name; for more, all captions are
_SHAPES = {
    "landscape": "width > height",
    "portrait": "width < height",
    "square": "width == height",
}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Told:
    """An expression that admits every row for which the filter holds, and if ``exact`` no other."""

    text: str
    exact: bool


def translated(wanted: Filter) -> Told:
    """``wanted`` as far as Milvus can tell it."""
    if isinstance(wanted, Not):
        part = translated(wanted.part)
        return Told(f"not ({part.text})", True) if part.exact else Told(EVERY, False)
    if isinstance(wanted, (All, Any)):
        parts = [translated(part) for part in wanted.parts]
        word = " and " if isinstance(wanted, All) else " or "
        joined = word.join(f"({part.text})" for part in parts)
        return Told(joined, all(part.exact for part in parts))
    return _compare(wanted)


def matching(files: Table, captions: Table, epoch: int, wanted: Filter) -> Ids:
    """Ids of the images with a path for which ``wanted`` holds in ``epoch``, ascending."""
    told = translated(wanted)
    fields = ("image",) if told.exact else ("image", "path", "name", *_NUMBERS)
    rows = list(files.rows(f"({seen(epoch)}) and ({told.text})", fields))
    images = {row["image"] for row in rows}
    if told.exact:
        return np.array(sorted(images), np.int64)
    said: Iterable[Row] = ()
    if _asks_captions(wanted):
        said = _captions(captions, epoch, images)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as beside:
        _fill(beside, rows, said)
        return matching_images(beside, wanted)


_NUMBERS = ("width", "height", "size", "taken")


def _captions(captions: Table, epoch: int, images: set[int]) -> Iterable[Row]:
    fields = ("image", "text", "tags")
    if len(images) <= MANY:
        return captions.among(epoch, "image", images, fields)
    return (row for row in captions.rows(seen(epoch), fields) if row["image"] in images)


def _fill(beside: sqlite3.Connection, rows: Iterable[Row], said: Iterable[Row]) -> None:
    """The columns of the local store that filters ask for."""
    beside.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, width, height, taken)")
    beside.execute("CREATE TABLE paths (path, size, name, image_id)")
    beside.execute("CREATE TABLE captions (image_id, text, tags)")
    beside.execute("CREATE INDEX captions_by_image ON captions (image_id)")
    for row in rows:
        sizes = row["width"], row["height"], plain(row["taken"])
        beside.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", (row["image"], *sizes))
        path, name = bytes.fromhex(row["path"]), plain(row["name"])
        beside.execute(
            "INSERT INTO paths VALUES (?, ?, ?, ?)", (path, row["size"], name, row["image"])
        )
    beside.executemany(
        "INSERT INTO captions VALUES (?, ?, ?)",
        ((row["image"], row["text"], row["tags"]) for row in said),
    )


def digits(text: str) -> str:
    """The hexadecimal digits of a text's UTF-8; in their order, texts stand in theirs."""
    return text.encode("utf-8", "replace").hex()


def plain(text: str) -> str:
    return bytes.fromhex(text).decode()


def _asks_captions(wanted: Filter) -> bool:
    if isinstance(wanted, Not):
        return _asks_captions(wanted.part)
    if isinstance(wanted, (All, Any)):
        return any(map(_asks_captions, wanted.parts))
    return wanted.field == "caption" or wanted.field.startswith(TAG)


def _compare(one: Compare) -> Told:
    if one.field in ("width", "height", "size"):
        return Told(_number(one.field, one.operator, int(one.value)), True)
    if one.field == "orientation":
        shape = _SHAPES[str(one.value)]
        return Told(shape if one.operator == "=" else f"not ({shape})", True)
    if one.field == "taken":
        return Told(_taken(one.operator, digits(str(one.value))), True)
    if one.operator == "!=":
        return translated(Not(Compare(one.field, "=", one.value)))
    if one.field == "name":
        return _name(one.operator, digits(casefold_nfc(str(one.value))))
    if one.operator == "=" and one.field in ("path", "folder"):
        return Told(_place(one.field, str(one.value)), True)
    return Told(EVERY, False)


def _number(field: str, operator: str, value: int) -> str:
    if abs(value) > _LARGEST:  # beyond all that there is
        below = operator in ("<", "<=") if value > 0 else operator in (">", ">=")
        return EVERY if below or operator == "!=" else NONE
    return f"{field} {'==' if operator == '=' else operator} {value}"


def _taken(operator: str, value: str) -> str:
    """Times are compared as far as ``value`` says them: 2024 is all of that year."""
    within = f'taken like "{value}%"' if value else EVERY
    below = f'taken < "{value}"'
    told = {
        "=": within,
        "!=": f"not ({within})",
        "<": below,
        "<=": f"({below}) or ({within})",
        ">": f"not ({below}) and not ({within})",
        ">=": f"not ({below})",
    }[operator]
    return f'taken != "" and ({told})'


def _name(operator: str, value: str) -> Told:
    if operator == "=":  # which minds case, and stored names have none
        return Told(f'name == "{value}"', False)
    if operator == "contains" and value:  # half of one byte and half of the next may match too
        return Told(f'name like "%{value}%"', False)
    return Told(EVERY, False)


def _place(field: str, value: str) -> str:
    raw = os.fsencode(value.rstrip("/") if field == "folder" else value)
    if field == "path":
        return f'path == "{raw.hex()}"'
    if not raw:  # the root, and not what lies below it
        return "depth == 0"
    return f'path >= "{(raw + b"/").hex()}" and path < "{(raw + b"0").hex()}"'
