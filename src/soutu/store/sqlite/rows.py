"""Read rows and return them as the values that callers see."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile
from soutu.store.sqlite.schema import select_in
from soutu.store.sqlite.vectors import VectorKind


def image_rows(connection: sqlite3.Connection, ids: Sequence[int]) -> list[ImageRow]:
    """Return the images ``ids``, in that order; raises KeyError for an unknown id."""
    image_ids = [int(id_) for id_ in ids]
    paths: defaultdict[int, list[str]] = defaultdict(list)
    sql = "SELECT image_id, path FROM paths WHERE image_id IN ({marks})"
    for image_id, path in select_in(connection, sql, image_ids):
        paths[image_id].append(os.fsdecode(path))
    texts: defaultdict[int, list[str]] = defaultdict(list)
    sql = """SELECT image_id, text FROM captions WHERE image_id IN ({marks})
        ORDER BY image_id, position"""
    for image_id, text in select_in(connection, sql, list(dict.fromkeys(image_ids))):
        texts[image_id].append(text)
    sql = "SELECT id, width, height, taken FROM images WHERE id IN ({marks})"
    rows = {
        id_: ImageRow(id_, tuple(sorted(set(paths[id_]))), tuple(texts[id_]), *size_and_time)
        for id_, *size_and_time in select_in(connection, sql, image_ids)
    }
    return [rows[id_] for id_ in image_ids]


def caption_rows(connection: sqlite3.Connection, ids: Sequence[int]) -> list[CaptionRow]:
    """Return the captions ``ids``, in that order; raises KeyError for an unknown id."""
    caption_ids = [int(id_) for id_ in ids]
    sql = "SELECT id, image_id, text, tags FROM captions WHERE id IN ({marks})"
    rows = {row[0]: caption_row(row) for row in select_in(connection, sql, caption_ids)}
    return [rows[id_] for id_ in caption_ids]


def captions_of_image(connection: sqlite3.Connection, image_id: int) -> list[CaptionRow]:
    """Return the captions of one image, in file order."""
    rows = connection.execute(
        "SELECT id, image_id, text, tags FROM captions WHERE image_id = ? ORDER BY position, id",
        (image_id,),
    )
    return [caption_row(row) for row in rows]


def all_caption_rows(connection: sqlite3.Connection) -> list[CaptionRow]:
    """Return every caption, in file order."""
    rows = connection.execute("SELECT id, image_id, text, tags FROM captions ORDER BY position, id")
    return [caption_row(row) for row in rows]


def caption_row(row: tuple[Any, ...]) -> CaptionRow:
    """Convert a row of (id, image_id, text, tags)."""
    id_, image_id, text, tags = row
    return CaptionRow(id_, image_id, text, json.loads(tags))


def stored_files(connection: sqlite3.Connection) -> dict[str, StoredFile]:
    """Return every known file by path, in the byte order of the paths."""
    rows = connection.execute("SELECT path, size, mtime_ns, image_id FROM paths ORDER BY path")
    files = (StoredFile(os.fsdecode(path), *rest) for path, *rest in rows)
    return {file.path: file for file in files}


def ids_by_content(connection: sqlite3.Connection, contents: Sequence[bytes]) -> dict[bytes, int]:
    """Return the image ids of those content hashes that are stored."""
    sql = "SELECT content, id FROM images WHERE content IN ({marks})"
    return dict(select_in(connection, sql, list(contents)))


def without_vector(connection: sqlite3.Connection, space: int) -> list[int]:
    """Return the ids of images that have a path but no vector in ``space``, ascending."""
    rows = connection.execute(
        """SELECT DISTINCT image_id FROM paths WHERE image_id NOT IN
            (SELECT owner FROM image_vectors WHERE space = ?) ORDER BY image_id""",
        (space,),
    )
    return [row[0] for row in rows]


def captions_without_vector(connection: sqlite3.Connection, space: int) -> list[CaptionRow]:
    """Return captions of images with a path that lack a vector, in file order."""
    rows = connection.execute(
        """SELECT id, image_id, text, tags FROM captions WHERE id NOT IN
            (SELECT owner FROM caption_vectors WHERE space = ?)
            AND EXISTS (SELECT 1 FROM paths WHERE paths.image_id = captions.image_id)
            ORDER BY position, id""",
        (space,),
    )
    return [caption_row(row) for row in rows]


def slots_of(
    connection: sqlite3.Connection, space: int, kind: VectorKind, ids: Sequence[int]
) -> dict[int, int]:
    """Return the slots of those of ``ids`` that have a vector in ``space``."""
    sql = f"SELECT owner, slot FROM {kind.vectors} WHERE space = {space} AND owner IN ({{marks}})"
    return dict(select_in(connection, sql, [int(id_) for id_ in ids]))


def change_rows(connection: sqlite3.Connection, after: int) -> list[Change]:
    """Return the changes of generations above ``after``, oldest first."""
    rows = connection.execute(
        "SELECT generation, kind, path, other, time FROM changes WHERE generation > ? ORDER BY id",
        (after,),
    )
    return [
        Change(generation, kind, os.fsdecode(path), os.fsdecode(other), time)
        for generation, kind, path, other, time in rows
    ]
