"""From rows in Milvus to the values that callers see, as of one epoch."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from soutu.store.base import CaptionRow, Change, ImageRow, StoredFile
from soutu.store.milvus.connection import KEY, Row
from soutu.store.milvus.epoch import (
    CAPTION,
    IDS,
    IMAGE,
    Head,
    Table,
    Tables,
    is_seen,
    live,
    number,
    seen,
)
from soutu.store.milvus.schema import SINCE, UNTIL
from soutu.types import ModelInfo

_FILE = ("path", "size", "mtime_ns", "image")
_CAPTION = ("id", "image", "text", "tags", "position")


def path_digits(path: str) -> str:
    """A path as Milvus keeps it."""
    return os.fsencode(path).hex()


def path_of(digits: str) -> str:
    return os.fsdecode(bytes.fromhex(digits))


def image_rows(tables: Tables, epoch: int, ids: Sequence[int]) -> list[ImageRow]:
    """The images ``ids``, in that order; KeyError for one that is unknown."""
    wanted = [int(id_) for id_ in ids]
    known = tables.images.get(wanted)
    paths: defaultdict[int, list[str]] = defaultdict(list)
    for row in tables.files.among(epoch, "image", wanted, ("image", "path")):
        paths[row["image"]].append(path_of(row["path"]))
    texts: defaultdict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for row in tables.captions.among(epoch, "image", wanted, _CAPTION):
        texts[row["image"]].append((row["position"], row["id"], row["text"]))
    return [
        ImageRow(
            id_,
            tuple(sorted(paths[id_])),
            tuple(text for _, _, text in sorted(texts[id_])),
            known[id_]["width"],
            known[id_]["height"],
            known[id_]["taken"],
        )
        for id_ in wanted
    ]


def caption_rows(tables: Tables, epoch: int, ids: Sequence[int]) -> list[CaptionRow]:
    """The captions ``ids``, in that order; KeyError for one that is unknown."""
    wanted = [int(id_) for id_ in ids]
    found = {row["id"]: row for row in tables.captions.among(epoch, "id", wanted, _CAPTION)}
    return [caption_row(found[id_]) for id_ in wanted]


def captions_of(tables: Tables, epoch: int, image_id: int) -> list[CaptionRow]:
    """The captions of one image, in file order."""
    rows = sorted(tables.captions.among(epoch, "image", [int(image_id)], _CAPTION), key=_in_order)
    return [caption_row(row) for row in rows]


def all_captions(tables: Tables, epoch: int) -> list[CaptionRow]:
    """Every caption, in file order."""
    rows = sorted(tables.captions.rows(seen(epoch), _CAPTION), key=_in_order)
    return [caption_row(row) for row in rows]


def caption_row(row: Row) -> CaptionRow:
    return CaptionRow(row["id"], row["image"], row["text"], json.loads(row["tags"]))


def stored_files(tables: Tables, epoch: int) -> dict[str, StoredFile]:
    """Every known path, in the order of its bytes."""
    rows = sorted(tables.files.rows(seen(epoch), _FILE), key=lambda row: str(row["path"]))
    files = (
        StoredFile(path_of(row["path"]), row["size"], row["mtime_ns"], row["image"]) for row in rows
    )
    return {file.path: file for file in files}


def ids_by_content(images: Table, contents: Iterable[bytes]) -> dict[bytes, int]:
    """Image ids of those content hashes that are stored."""
    return {content: id_ for content, (id_, known) in places(images, contents).items() if known}


def places(images: Table, contents: Iterable[bytes]) -> dict[bytes, tuple[int, bool]]:
    """The id of each content, and whether it is stored: 53 bits of a hash of it, or the next
    number where other content has that one."""
    placed: dict[bytes, tuple[int, bool]] = {}
    asked = {content: number(content) for content in contents}
    taken: dict[int, bytes] = {}
    while asked:
        rows = images.get(asked.values(), (KEY, "content"))
        left = {}
        for content, id_ in asked.items():
            row = rows.get(id_)
            if row is not None and row["content"] == content.hex():
                placed[content] = id_, True
            elif row is None and taken.setdefault(id_, content) == content:
                placed[content] = id_, False
            else:
                left[content] = (id_ + 1) % IDS
        asked = left
    return placed


def live_owners(vectors: Table, epoch: int) -> set[int]:
    """Those whose vectors a search could return in ``epoch``."""
    return {int(row[KEY]) for row in vectors.rows(seen(epoch), (KEY,))}


def images_without_vector(tables: Tables, head: Head, card: ModelInfo) -> list[int]:
    """Ids of images that have a path but no vector in the space of ``card``, ascending."""
    if head.live.get(live(card, IMAGE), 0) == head.owners:
        return []
    owners = {row["image"] for row in tables.files.rows(seen(head.epoch), ("image",))}
    return sorted(owners - live_owners(tables.vectors(card, IMAGE), head.epoch))


def captions_without_vector(tables: Tables, head: Head, card: ModelInfo) -> list[CaptionRow]:
    """Captions whose image has a path and that have no vector there, in file order."""
    if head.live.get(live(card, CAPTION), 0) == head.told:
        return []
    owners = {row["image"] for row in tables.files.rows(seen(head.epoch), ("image",))}
    there = live_owners(tables.vectors(card, CAPTION), head.epoch)
    told = all_captions(tables, head.epoch)
    return [row for row in told if row.image_id in owners and row.id not in there]


def live_among(vectors: Table, epoch: int, ids: Iterable[int]) -> list[int]:
    """Those of ``ids`` that a search could return in ``epoch``."""
    rows = vectors.get(ids, (KEY, SINCE, UNTIL))
    return [int(key) for key, row in rows.items() if is_seen(row, epoch)]


def change_rows(tables: Tables, epoch: int, after: int) -> list[Change]:
    """The changes of generations above ``after``, oldest first."""
    where = f"{SINCE} <= {epoch} and generation > {int(after)}"
    return [
        Change(
            row["generation"], row["kind"], path_of(row["path"]), path_of(row["other"]), row["time"]
        )
        for row in sorted(tables.changes.rows(where), key=lambda row: int(row[KEY]))
    ]


def _in_order(row: Row) -> tuple[int, int]:
    return row["position"], row["id"]
