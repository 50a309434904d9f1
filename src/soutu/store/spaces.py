"""The vector spaces of a gallery: one for each model its pictures were encoded with."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from soutu.errors import IndexCorrupt, ModelMismatch
from soutu.store.home import make_private_file, make_private_folder, sync_folder
from soutu.store.live import KINDS
from soutu.store.rows import setting, transaction, write
from soutu.types import ModelCard

DEFAULT = "space"  # the setting that names the space last indexed with


@dataclass(frozen=True)
class Space:
    """One space in the gallery: its number in the tables, its folder, its model."""

    id: int
    folder: Path
    card: ModelCard


def add_space(connection: sqlite3.Connection, home: Path, card: ModelCard) -> Space:
    """The space of ``card``, made if it is not there. The card kept is the one last used.
    ModelMismatch if the space has vectors of another length."""
    with transaction(connection):
        found = _rows(connection, home).get(card.space)
        if found is not None and found.card.dim != card.dim:
            raise ModelMismatch(
                "space-dim", home=str(home), space=card.space, found=found.card.dim, dim=card.dim
            )
        if found is not None and found.card == card:
            return found
        last = connection.execute("SELECT max(id) FROM spaces").fetchone()[0] or 0
        number = found.id if found else last + 1
        name = found.folder.name if found else folder_name(card.space)
        folder = home / "spaces" / name
        make_private_folder(folder.parent)
        make_private_folder(folder)
        for kind in KINDS:
            make_private_file(folder / kind.slab)
        sync_folder(folder)
        since = connection.execute("SELECT since FROM spaces WHERE id = ?", (number,)).fetchone()
        when = since[0] if since else datetime.now(timezone.utc).isoformat(timespec="seconds")
        write(connection, "spaces", [(number, card.space, name, _to_json(card), when)])
    return Space(number, folder, card)


def folder_name(space: str) -> str:
    """What the folder of a space is called: a name of any letters and length has one."""
    from hashlib import blake2b

    return blake2b(space.encode(), digest_size=8).hexdigest()


def find_space(connection: sqlite3.Connection, home: Path, space: str | None) -> Space:
    """The space called ``space``; for None the one last indexed with, or the first if no run
    has ended yet. ModelMismatch, naming those there are, if it is absent."""
    known = _rows(connection, home)
    name = space or setting(connection, DEFAULT) or next(iter(known), "")
    if name not in known:
        raise ModelMismatch(
            "space-absent",
            home=str(home),
            space=name or "-",
            known=", ".join(f"{s.card.name} ({n})" for n, s in known.items()) or "-",
            folder=setting(connection, "root") or str(home.parent),
        )
    return known[name]


def folder_of(connection: sqlite3.Connection, home: Path, space: Space) -> Path:
    """Where the vectors of ``space`` lie in the state that the connection sees."""
    found = connection.execute("SELECT folder FROM spaces WHERE id = ?", (space.id,)).fetchone()
    return home / "spaces" / found[0] if found else space.folder


def first_name(folder: str) -> str:
    """The name that a space's folder had before it was compacted: without ``-2``, ``-3`` …"""
    return folder.partition("-")[0]


def next_folder(space: Space) -> Path:
    """The name of the folder that takes the place of this one: ``NAME``, ``NAME-2``, …"""
    name, _, number = space.folder.name.partition("-")
    return space.folder.with_name(f"{name}-{int(number or 1) + 1}")


def sweep(connection: sqlite3.Connection, home: Path) -> bool:
    """Remove the folders that others of the same name have taken the place of, or were about to
    when they were stopped; False while a reader may still look at one. What no space explains
    is left alone."""
    current = {space.folder for space in all_spaces(connection, home)}
    names = {first_name(folder.name) for folder in current}
    left = [
        folder
        for folder in (home / "spaces").glob("*")
        if folder not in current and first_name(folder.name) in names
    ]
    if not left:
        return True
    # A full checkpoint is done when every reader sees the latest state.
    connection.execute("PRAGMA busy_timeout = 1000")
    busy = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 10000")
    if busy:
        return False
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def all_spaces(connection: sqlite3.Connection, home: Path) -> list[Space]:
    """Every space, in the order of first use."""
    return list(_rows(connection, home).values())


def _rows(connection: sqlite3.Connection, home: Path) -> dict[str, Space]:
    rows = connection.execute("SELECT id, space, folder, card FROM spaces ORDER BY id")
    try:
        return {
            space: Space(number, home / "spaces" / folder, card_from_json(card))
            for number, space, folder, card in rows
        }
    except (TypeError, ValueError) as error:
        raise IndexCorrupt("index-damaged", home=str(home), fault=str(error)) from error


def _to_json(card: ModelCard) -> str:
    return json.dumps(asdict(card), ensure_ascii=False, sort_keys=True)


def card_from_json(text: str | bytes) -> ModelCard:
    """A card as stored; what a later version added to it is left aside. TypeError or ValueError
    for what is no card."""
    known = {field.name for field in fields(ModelCard)}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in dict(json.loads(text)).items()
        if key in known
    }
    return ModelCard(**values)
