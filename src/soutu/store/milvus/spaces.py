"""The models of a gallery, and the collections of their vectors.

An alias, ``NAME_SPACE_image`` or ``NAME_SPACE_caption``, names the collection in use; another is
made and filled beside it, and the alias moved. The alias ``NAME`` itself names the pictures'
vectors of the model last indexed with, for whoever searches with other programs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from soutu.errors import ModelMismatch, RemoteUnavailable
from soutu.store.milvus.connection import Connection
from soutu.store.milvus.head import Meta
from soutu.store.milvus.schema import (
    CAPTIONS,
    CHANGES,
    FILES,
    FLAT,
    IMAGES,
    META,
    ROWS,
    VECTORS,
    Index,
    create,
)
from soutu.store.milvus.tables import Table
from soutu.store.spaces import DEFAULT, card_from_json, folder_name
from soutu.types import ModelCard

IMAGE, CAPTION = "image", "caption"
KINDS = (IMAGE, CAPTION)
_SPACE = "space:"


@dataclass(frozen=True)
class Tables:
    """The collections of the gallery called ``base``."""

    connection: Connection
    base: str

    @property
    def meta(self) -> Meta:
        return Meta(Table(self.connection, f"{self.base}_{META.name}", META))

    @property
    def images(self) -> Table:
        return Table(self.connection, f"{self.base}_{IMAGES.name}", IMAGES)

    @property
    def files(self) -> Table:
        return Table(self.connection, f"{self.base}_{FILES.name}", FILES)

    @property
    def captions(self) -> Table:
        return Table(self.connection, f"{self.base}_{CAPTIONS.name}", CAPTIONS)

    @property
    def changes(self) -> Table:
        return Table(self.connection, f"{self.base}_{CHANGES.name}", CHANGES)

    def vectors(self, card: ModelCard, kind: str) -> Table:
        """Through its alias."""
        return Table(self.connection, self.alias(card, kind), VECTORS, card.dim)

    def alias(self, card: ModelCard, kind: str) -> str:
        return f"{self.base}_{folder_name(card.space)}_{kind}"

    def exist(self) -> bool:
        return bool(self.connection.call("has_collection", f"{self.base}_{META.name}"))

    def make(self) -> None:
        """Make what is not there; the one that tells whether there is a gallery comes last."""
        for kind in reversed(ROWS):
            create(self.connection, f"{self.base}_{kind.name}", kind)


def live(card: ModelCard, kind: str) -> str:
    """What the head calls vectors of this kind."""
    return f"{card.space}/{kind}"


def all_cards(meta: Meta) -> list[ModelCard]:
    """The models, in the order of first use."""
    rows = sorted(map(json.loads, meta.remembered(_SPACE)), key=lambda row: row["since"])
    return [card_from_json(json.dumps(row["card"])) for row in rows]


def add(tables: Tables, card: ModelCard) -> None:
    """Make the space of ``card``, or keep the card last used. ModelMismatch where it has vectors of
    another length."""
    meta = tables.meta
    kept = meta.recall(_SPACE + card.space)
    known = json.loads(kept) if kept else None
    if known and known["card"]["dim"] != card.dim:
        found = {"space": card.space, "found": known["card"]["dim"], "dim": card.dim}
        raise ModelMismatch("space-dim", home=tables.connection.address.shown, **found)
    for kind in KINDS:
        if known is None or aliased(tables, tables.alias(card, kind)) is None:
            first = f"{tables.alias(card, kind)}_1"
            create(tables.connection, first, VECTORS, dim=card.dim, index=FLAT)
            point(tables, tables.alias(card, kind), first)
    now = datetime.now(timezone.utc).isoformat()
    told = {"since": known["since"] if known else now, "card": asdict(card)}
    if known is None or known["card"] != json.loads(json.dumps(told["card"])):
        meta.remember(_SPACE + card.space, json.dumps(told, ensure_ascii=False))


def find(tables: Tables, space: str | None) -> ModelCard:
    """The model of ``space``, or the one last indexed with, or the first. ModelMismatch."""
    known = {card.space: card for card in all_cards(tables.meta)}
    name = space or tables.meta.recall(DEFAULT) or next(iter(known), "")
    if name not in known:
        raise ModelMismatch(
            "space-absent",
            home=tables.connection.address.shown,
            space=name or "-",
            known=", ".join(f"{card.name} ({name})" for name, card in known.items()) or "-",
            folder=tables.meta.recall("root") or "FOLDER",
        )
    return known[name]


def settle_on(tables: Tables, card: ModelCard) -> None:
    """``card`` is now the gallery's own model."""
    target = aliased(tables, tables.alias(card, IMAGE))
    if target and aliased(tables, tables.base) != target:
        point(tables, tables.base, target)
    if tables.meta.recall(DEFAULT) != card.space:
        tables.meta.remember(DEFAULT, card.space)


def beside(tables: Tables, card: ModelCard, kind: str, index: Index) -> Table:
    """An empty collection to take the place of the one in use."""
    alias = tables.alias(card, kind)
    number = int((aliased(tables, alias) or "_0").rpartition("_")[2])
    name = f"{alias}_{number + 1}"
    if tables.connection.call("has_collection", name):  # of a run that was stopped
        tables.connection.call("drop_collection", name)
    create(tables.connection, name, VECTORS, dim=card.dim, index=index)
    return Table(tables.connection, name, VECTORS, card.dim)


def swap(tables: Tables, card: ModelCard, kind: str, fresh: Table) -> None:
    """Searches go to ``fresh`` from now on; the collection before it is dropped."""
    alias = tables.alias(card, kind)
    before = aliased(tables, alias)
    own = before is not None and aliased(tables, tables.base) == before
    point(tables, alias, fresh.name)
    if own:
        point(tables, tables.base, fresh.name)
    if before and before != fresh.name:
        tables.connection.call("drop_collection", before)


def aliased(tables: Tables, alias: str) -> str | None:
    """The collection that ``alias`` names; None for no alias."""
    if not tables.connection.call("has_collection", alias):
        return None
    try:
        return str(tables.connection.call("describe_alias", alias)["collection_name"])
    except RemoteUnavailable as fault:
        if fault.code == "milvus-failed":  # a collection has that name
            return None
        raise


def point(tables: Tables, alias: str, name: str) -> None:
    """Let ``alias`` name the collection ``name``, whatever it named before."""
    there = aliased(tables, alias)
    if there == name:
        return
    try:
        tables.connection.call("alter_alias" if there else "create_alias", name, alias)
    except RemoteUnavailable:
        if aliased(tables, alias) != name:  # else it was done, and only the answer was lost
            raise
