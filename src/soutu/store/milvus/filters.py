"""Which images a filter admits: Milvus evaluates what it can, SQLite the rest.

A filter becomes an expression over the rows of ``files``. Where that is not the whole filter, the
rows that Milvus could not rule out are put into SQLite and asked as the local store's are. Values
become numbers or hexadecimal digits, so that none is ever syntax.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from soutu.fs import path_bytes
from soutu.store.milvus.schema import SINCE, Row, path_to_hex, text_to_hex, visible_at
from soutu.store.milvus.tables import Tables
from soutu.store.sqlite import filters as sqlite_filters
from soutu.store.sqlite.schema import casefold_nfc
from soutu.types import TAG, All, Any, Compare, Filter, Ids, Not

MATCH_ALL, MATCH_NONE = f"{SINCE} >= 0", f"{SINCE} < 0"
FILE_FIELDS = ["image", "path", "name", "width", "height", "size", "mtime_ns", "taken"]
MAX_DEPTH = 20  # of a filter that Milvus is asked
CAPTION_LOOKUPS = 20_000  # images whose captions are fetched by id; for more, all captions are
_SHAPES = {
    "landscape": "width > height",
    "portrait": "width < height",
    "square": "width == height",
}
_MAX_INT = 2**63 - 1


@dataclass(frozen=True)
class Expression:
    """Milvus' part of a filter: admits every row that it does, and if ``is_exact`` no other."""

    text: str
    is_exact: bool


def matching_images(tables: Tables, epoch: int, where: Filter) -> Ids:
    """Return the ids of images with a path that ``where`` admits in ``epoch``, ascending."""
    expression = translate(where) if _depth(where) <= MAX_DEPTH else _unknown()
    fields = FILE_FIELDS[: None if not expression.is_exact else 1]
    rows = list(tables.files.rows(f"({visible_at(epoch)}) and ({expression.text})", fields))
    images = {row["image"] for row in rows}
    if expression.is_exact:
        return np.array(sorted(images), np.int64)
    captions: Iterable[Row] = ()
    if _needs_captions(where):
        fields = ["image", "text", "tags"]
        if len(images) <= CAPTION_LOOKUPS:
            captions = tables.captions.rows_with(epoch, "image", images, fields)
        else:
            every = tables.captions.rows(visible_at(epoch), fields)
            captions = (row for row in every if row["image"] in images)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        _fill(database, rows, captions)
        return sqlite_filters.matching_images(database, where)


def admitted_paths(
    tables: Tables, epoch: int, ids: Sequence[int], where: Filter
) -> dict[int, list[str]]:
    """Return the paths of the images ``ids`` that ``where`` admits."""
    captions: Iterable[Row] = ()
    if _needs_captions(where):
        captions = tables.captions.rows_with(epoch, "image", ids, ("image", "text", "tags"))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        _fill(database, tables.files.rows_with(epoch, "image", ids, FILE_FIELDS), captions)
        return sqlite_filters.admitted_paths(database, ids, where)


def _depth(where: Filter) -> int:
    if isinstance(where, Not):
        return 1 + _depth(where.part)
    return 1 + max(map(_depth, where.parts)) if isinstance(where, (All, Any)) else 0


def _needs_captions(where: Filter) -> bool:
    if isinstance(where, Not):
        return _needs_captions(where.part)
    if isinstance(where, (All, Any)):
        return any(map(_needs_captions, where.parts))
    return where.field == "caption" or where.field.startswith(TAG)


def _fill(database: sqlite3.Connection, files: Iterable[Row], captions: Iterable[Row]) -> None:
    """Create the columns of the local store that filters look at."""
    database.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, width, height, taken)")
    database.execute("CREATE TABLE paths (path, size, mtime_ns, name, image_id)")
    database.execute("CREATE TABLE captions (image_id, text, tags)")
    database.execute("CREATE INDEX captions_by_image ON captions (image_id)")
    for row in files:
        image = row["image"], row["width"], row["height"], _text(row["taken"])
        database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", image)
        name = bytes.fromhex(row["path"]), row["size"], row["mtime_ns"], _text(row["name"])
        database.execute("INSERT INTO paths VALUES (?, ?, ?, ?, ?)", (*name, row["image"]))
    database.executemany("INSERT INTO captions VALUES (:image, :text, :tags)", captions)


def _text(digits: str) -> str:
    return bytes.fromhex(digits).decode()


def translate(where: Filter) -> Expression:
    """Translate ``where`` as far as Milvus can evaluate it."""
    if isinstance(where, Not):
        part = translate(where.part)
        return Expression(f"not ({part.text})", True) if part.is_exact else _unknown()
    if isinstance(where, (All, Any)):
        numbers, rest = _split_numbers(where)
        parts = [*numbers, *map(translate, rest)]
        operator = " and " if isinstance(where, All) else " or "
        return Expression(_join(operator, parts), all(part.is_exact for part in parts))
    return _translate_compare(where)


def _split_numbers(where: All | Any) -> tuple[list[Expression], list[Filter]]:
    """Make an IN of each field that is compared with several numbers; return it and the rest."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    rest: list[Filter] = []
    for part in dict.fromkeys(where.parts):
        if isinstance(where, All) or not isinstance(part, Compare) or part.operator != "=":
            rest.append(part)
        elif isinstance(part.value, int) and abs(part.value) <= _MAX_INT:
            numbers[part.field].append(part.value)
        else:
            rest.append(part)
    return [Expression(f"{field} in {values}", True) for field, values in numbers.items()], rest


def _join(operator: str, parts: Sequence[Expression]) -> str:
    """Join expressions as a balanced tree, which no parser finds too deep."""
    if len(parts) == 1:
        return parts[0].text
    half = len(parts) // 2
    return f"({_join(operator, parts[:half])}){operator}({_join(operator, parts[half:])})"


def _unknown() -> Expression:
    return Expression(MATCH_ALL, False)


def _translate_compare(compare: Compare) -> Expression:
    field, operator, value = compare.field, compare.operator, compare.value
    if field in ("width", "height", "size"):
        return Expression(_compare_number(field, operator, int(value)), True)
    if field == "orientation":
        shape = _SHAPES[str(value)]
        return Expression(shape if operator == "=" else f"not ({shape})", True)
    if field == "taken":
        return Expression(_compare_time(operator, text_to_hex(str(value))), True)
    if operator == "!=":
        return translate(Not(Compare(field, "=", value)))
    if field == "name":
        name = text_to_hex(casefold_nfc(str(value)))
        if operator == "=":  # which minds case, and stored names have none
            return Expression(f'name == "{name}"', False)
        if operator == "contains" and name:  # half of one byte and half of the next match too
            return Expression(f'name like "%{name}%"', False)
    if field == "path" and operator == "=":
        if len(sqlite_filters.name_forms(str(value))) == 1:
            return Expression(f'path == "{path_to_hex(str(value))}"', True)
        leaf = text_to_hex(casefold_nfc(str(value).rpartition("/")[2]))
        return Expression(f'name == "{leaf}"', False)
    if field == "folder" and operator == "=":
        folder = str(value).rstrip("/")
        if len(sqlite_filters.name_forms(folder)) == 1:
            return Expression(_in_folder(path_bytes(folder)), True)
        prefix = path_bytes(sqlite_filters.stable_prefix(folder)).hex()
        return Expression(f'path like "{prefix}%"' if prefix else MATCH_ALL, False)
    return _unknown()


def _compare_number(field: str, operator: str, value: int) -> str:
    if abs(value) > _MAX_INT:  # beyond all that there is
        is_beyond = operator in ("<", "<=") if value > 0 else operator in (">", ">=")
        return MATCH_ALL if is_beyond or operator == "!=" else MATCH_NONE
    return f"{field} {'==' if operator == '=' else operator} {value}"


def _compare_time(operator: str, value: str) -> str:
    """Compare times to the precision of ``value``: 2024 is all of that year."""
    within = f'taken like "{value}%"' if value else MATCH_ALL
    before = f'taken < "{value}"'
    comparison = {
        "=": within,
        "!=": f"not ({within})",
        "<": before,
        "<=": f"({before}) or ({within})",
        ">": f"not ({before}) and not ({within})",
        ">=": f"not ({before})",
    }[operator]
    return f'taken != "" and ({comparison})'


def _in_folder(folder: bytes) -> str:
    if not folder:  # the root, and not what lies below it
        return "depth == 0"
    return f'path >= "{(folder + b"/").hex()}" and path < "{(folder + b"0").hex()}"'
