"""Which store a gallery has: the one in its folder, or one elsewhere that it was told of.

An address counts in this order: flag, environment, settings, the file ``.soutu/store`` that an
index run with ``--store`` left. Galleries are passed on and that file with them, so an address in
it is used only where this person has indexed to it before, or where it is on this machine: else
vectors, and the token for Milvus, would go to a server that whoever made the gallery has chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from soutu.config import Config, on_this_machine, user_file
from soutu.errors import BadConfig, BadInput, MissingIndex
from soutu.store.home import REMEMBERED, make_private_file, make_private_folder
from soutu.store.local import LocalStore

if TYPE_CHECKING:
    from soutu.store.base import VectorStore
    from soutu.store.compact import Compacted
    from soutu.types import ModelCard

Place: TypeAlias = "Path | str"
"""A ``.soutu`` folder, or the address of a store elsewhere, which may hold a password."""

LOCAL = "local"  # for an address: the folder's own store, whatever it was told of
_TRUSTED = "stores"  # the user's file of addresses


def place_of(home: Path, config: Config) -> Place:
    """Where the gallery at ``home`` keeps its rows and vectors. BadConfig for an address that
    nobody here has used."""
    asked = config.store or _remembered(home)
    return home if asked in (None, LOCAL) else asked


def create_store(place: Place, card: ModelCard) -> VectorStore:
    """The index at ``place`` for writing, made where it is not there."""
    if isinstance(place, Path):
        return LocalStore.create_or_open(place, card)
    from soutu.store.milvus.address import parse
    from soutu.store.milvus.store import MilvusStore

    return MilvusStore.create_or_open(parse(place), card)


def open_store(place: Place, space: str | None = None) -> VectorStore:
    """The index at ``place`` for reading, in ``space`` or the one last indexed with."""
    if isinstance(place, Path):
        return LocalStore.open(place, space)
    from soutu.store.milvus.address import parse
    from soutu.store.milvus.store import MilvusStore

    return MilvusStore.open(parse(place), space)


def compact_store(home: Path) -> Compacted:
    """Give back the room of what is gone from the index in this folder."""
    with LocalStore.open(home) as store:
        return store.compact()


def recall(place: Place, key: str) -> str | None:
    """What the index at ``place`` remembers under ``key``; None where there is no index."""
    if isinstance(place, Path):
        return LocalStore.peek(place, key)
    from soutu.store.milvus.address import parse
    from soutu.store.milvus.store import MilvusStore

    return MilvusStore.peek(parse(place), key)


def no_index(place: Place, root: Path) -> MissingIndex:
    """The error for a place that has none."""
    if isinstance(place, Path):
        return MissingIndex("index-missing", folder=root)
    return MissingIndex("milvus-missing-gallery", address=shown(place))


def shown(place: Place) -> str:
    """The place without secrets."""
    if isinstance(place, Path):
        return str(place)
    from soutu.store.milvus.address import parse

    return parse(place).shown


def refuse_elsewhere(place: Place, what: str) -> Path:
    """The folder of a store on this machine. BadInput: ``what`` makes no sense for another."""
    if isinstance(place, Path):
        return place
    raise BadInput("store-elsewhere", what=what, address=shown(place))


def remember_store(home: Path, place: Place) -> None:
    """Let later calls for the gallery at ``home`` find the store, which was asked for by name.
    Secrets are left out."""
    file = home / REMEMBERED
    if isinstance(place, Path):
        file.unlink(missing_ok=True)
        return
    address = shown(place)
    if not file.is_file() or file.read_text("utf-8").strip() != address:
        make_private_folder(home)
        make_private_file(file)
        file.write_text(address + "\n", "utf-8")
    trusted = user_file().parent / _TRUSTED
    if address not in _trusted():
        trusted.parent.mkdir(parents=True, exist_ok=True)
        with open(trusted, "a", encoding="utf-8") as lines:
            lines.write(address + "\n")


def is_remembered(home: Path, place: Place) -> bool:
    """Whether the gallery at ``home`` was indexed to ``place`` before."""
    file = home / REMEMBERED
    return file.is_file() and file.read_text("utf-8").strip() == shown(place)


def _remembered(home: Path) -> str | None:
    try:
        address = (home / REMEMBERED).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    from soutu.store.milvus.address import parse

    if not (parse(address).lite or on_this_machine(address) or address in _trusted()):
        raise BadConfig("store-unknown", address=address, file=home / REMEMBERED)
    return address


def _trusted() -> list[str]:
    file = user_file().parent / _TRUSTED
    return file.read_text("utf-8").splitlines() if file.is_file() else []
