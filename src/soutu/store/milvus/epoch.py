"""The models of a gallery, and the collections of their vectors.

An alias, ``NAME_SPACE_image`` or ``NAME_SPACE_caption``, names the collection in use; another is
made and filled beside it, and the alias moved. The alias ``NAME`` itself names the pictures'
vectors of the model last indexed with, for whoever searches with other programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from soutu.errors import IndexCorrupt, ModelMismatch, RemoteUnavailable
from soutu.store.milvus.connection import KEY, PAGE, Connection, Row
from soutu.store.milvus.schema import (
    CAPTIONS,
    CHANGES,
    FILES,
    FLAT,
    FOREVER,
    IMAGES,
    META,
    ROWS,
    SINCE,
    UNTIL,
    VECTOR,
    VECTORS,
    Index,
    Kind,
    create,
)
from soutu.store.sqlite.vectors import DEFAULT, card_from_json, folder_name
from soutu.types import ModelInfo

# Rows that are there from one epoch until another: how several become visible at once.
#
# A reader asks the head (``head.py``) which epoch it is, and sees the rows whose ``since`` is not
# above it and whose ``until`` is. A writer puts rows that begin with the next epoch and ends others
# with it; when all are in Milvus it moves the head, one row, on to that epoch. Stopped before that,
# it has changed nothing that anybody sees, and ``settle`` clears it away. A key follows from what
# its
# row says (``digest``), so that to put a row again changes nothing.


BYTES = 8_000_000  # of one message, about; a server takes 64 MB


@dataclass(frozen=True)
class Table:
    """The rows of one collection, which ``name`` or an alias of it names."""

    connection: Connection
    name: str
    kind: Kind
    dim: int = 0

    def get(self, keys: Iterable[int | str], fields: Sequence[str] = ()) -> dict[int | str, Row]:
        """Rows by their keys, whatever their epochs; of those that are there."""
        found: dict[int | str, Row] = {}
        for part in parts(keys):
            where = any_of(KEY, part)
            for row in self.connection.query(self.name, where, fields or self.fields):
                found[row[KEY]] = row
        return found

    def rows(self, where: str, fields: Sequence[str] = ()) -> Iterator[Row]:
        """The rows that ``where`` admits, in no order."""
        size = PAGE if VECTOR not in (fields or self.fields) else self._batch()
        for page in self.connection.pages(self.name, where, fields or self.fields, size):
            yield from page

    def among(
        self, epoch: int, field: str, values: Iterable[int | str], fields: Sequence[str] = ()
    ) -> Iterator[Row]:
        """The rows seen in ``epoch`` whose ``field`` is one of ``values``."""
        for part in parts(values):
            yield from self.rows(f"{seen(epoch)} and {any_of(field, part)}", fields)

    def put(self, rows: Iterable[Row]) -> None:
        """Write these rows, or over those that have their keys."""
        nothing = {} if self.dim else {VECTOR: [0.0, 0.0]}
        left = iter(rows)
        while batch := [{**row, **nothing} for row in islice(left, self._batch())]:
            self.connection.call("upsert", self.name, batch)

    def end(self, rows: Iterable[Row], epoch: int) -> None:
        """Let these rows, whole ones, be there until ``epoch``."""
        self.put({**row, UNTIL: epoch} for row in rows)

    def remove(self, where: str) -> None:
        self.connection.call("delete", self.name, filter=where)

    def settle(self, epoch: int, *, keep: bool = False) -> None:
        """Undo what a run wrote and never made visible, with ``epoch`` the last that was. ``keep``:
        new rows stay, unseen, because they cost much to make."""
        torn = f"{SINCE} > {epoch} or ({UNTIL} > {epoch} and {UNTIL} < {FOREVER})"
        for row in list(self.rows(torn)):
            if row[SINCE] <= epoch:
                self.put([{**row, UNTIL: FOREVER}])
            elif keep:
                self.put([{**row, SINCE: 0, UNTIL: 0}])
            else:
                self.remove(any_of(KEY, [row[KEY]]))

    def flush(self) -> None:
        self.connection.call("flush", self.name)

    @property
    def fields(self) -> tuple[str, ...]:
        """All that a row has."""
        return (*self.kind.names, VECTOR) if self.dim else self.kind.names

    def _batch(self) -> int:
        return max(1, min(PAGE, BYTES // (4 * self.dim + 1000)))


def seen(epoch: int) -> str:
    """The expression for the rows that are there in ``epoch``."""
    return f"{SINCE} <= {epoch} and {UNTIL} > {epoch}"


def is_seen(row: Row, epoch: int) -> bool:
    return bool(row[SINCE] <= epoch < row[UNTIL])


def any_of(field: str, values: Iterable[int | str]) -> str:
    """``field in […]``. Values are numbers, or texts of our own making: letters, digits, . and -"""
    return f"{field} in [{', '.join(map(_literal, values))}]"


def parts(values: Iterable[int | str], size: int = PAGE) -> Iterator[list[int | str]]:
    """Each value once, as many at a time as fit into one expression."""
    left = iter(dict.fromkeys(values))
    while part := list(islice(left, size)):
        yield part


IDS = 1 << 53


def digest(*values: int | str | bytes) -> str:
    """32 hexadecimal digits of BLAKE2b over the fields, each preceded by its length."""
    made = hashlib.blake2b(digest_size=16)
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        made.update(f"{len(data)}:".encode() + data)
    return made.hexdigest()


def number(*fields: int | str | bytes) -> int:
    """53 bits of ``digest``: an id that survives JSON and float64."""
    return int(digest(*fields)[:16], 16) >> 11


def _literal(value: int | str) -> str:
    if isinstance(value, str):
        if not value.replace("-", "").replace(".", "").isalnum() or not value.isascii():
            raise ValueError(f"no text for an expression: {value!r}")
        return f'"{value}"'
    return str(int(value))


# One row that says what is visible, what there is of it, and who may change it.


HEAD, LEASE = "head", "lease"
TERM = 300.0  # seconds that a writer who is silent keeps its turn
SETTLING = 0.3  # seconds after which two who took the turn at once both see whose it is
_HELD: set[str] = set()  # what this process holds
_PART = 60_000  # bytes of a text in one row


@dataclass(frozen=True)
class Head:
    """``epoch`` is the one that readers see; ``floor`` the one at which the run before the last
    ended: what ended by then no reader can still be looking at. ``owners`` are images that have a
    path, ``told`` captions of these, ``live`` vectors that a search can return, by space and kind
    (``space/image``); ``said`` is the epoch in which captions, or which of them a search may find,
    last changed; ``tuned`` the one in which how to search did."""

    epoch: int = 0
    generation: int = 0
    floor: int = 0
    owners: int = 0
    told: int = 0
    said: int = 0
    tuned: int = 0
    live: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Meta:
    """What is remembered with the gallery, and the head."""

    table: Table

    def get_meta(self, key: str) -> str | None:
        """The text under ``key``; None for nothing. A long one lies in several rows."""
        row = self.load(_name(key))
        if row is None:
            return None
        stamp, count = row["stamp"], row["parts"]
        if not count:
            return str(json.loads(row["text"]))
        names = [f"{_name(key)}.{stamp}.{part}" for part in range(count)]
        found = self.table.get(names)
        if len(found) < count:  # remembered anew meanwhile
            return self.get_meta(key)
        return str(json.loads("".join(found[name]["value"] for name in names)))

    def set_meta(self, key: str, value: str) -> None:
        """Keep ``value``: parts first, then the row that names them."""
        before = self.load(_name(key))
        text, stamp = json.dumps(value), secrets.token_hex(4)
        parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
        parts = [] if len(parts) == 1 else parts
        names = [f"{_name(key)}.{stamp}.{part}" for part in range(len(parts))]
        self.table.put({KEY: n, "value": part} for n, part in zip(names, parts, strict=True))
        self.store(_name(key), {"stamp": stamp, "parts": len(parts), "text": "" if parts else text})
        if before and before["parts"]:
            old = [f"{_name(key)}.{before['stamp']}.{part}" for part in range(before["parts"])]
            self.table.remove(f"{KEY} in {json.dumps(old)}")

    def meta_keys(self, beginning: str) -> list[str]:
        """The short texts whose keys begin so."""
        rows = self.table.rows(f'{KEY} like "{_name(beginning)}%"')
        kept = [json.loads(row["value"]) for row in rows if "." not in row[KEY]]
        return [str(json.loads(row["text"])) for row in kept]

    def head(self) -> Head:
        row = self.load(HEAD)
        return Head(**row) if row else Head()

    def move(self, head: Head) -> None:
        """Make ``head`` the one that readers see."""
        self.store(HEAD, asdict(head))

    def load(self, name: str) -> Any:  # noqa: ANN401  (JSON)
        """The row called ``name``; None where there is none."""
        row = self.table.get([name]).get(name)
        return json.loads(row["value"]) if row else None

    def store(self, name: str, value: Mapping[str, Any]) -> None:
        self.table.put([{KEY: name, "value": json.dumps(value)}])


class Lease:
    """The turn to write. Milvus has no locks: whoever writes its name last and still reads it
    after a moment has the turn, keeps it by each call, and makes sure that nobody has taken it
    before it writes rows and again before it shows them. It runs out after ``TERM`` seconds of
    silence; one whose process on this machine has ended is taken at once."""

    def __init__(self, meta: Meta) -> None:
        self._meta, self._token = meta, secrets.token_hex(8)
        _HELD.add(self._token)

    def take(self) -> None:
        """IndexCorrupt("index-locked") while another has it."""
        self._refuse(self._meta.load(LEASE))
        self._write()
        time.sleep(0 if self._meta.table.connection.address.lite else SETTLING)
        self.keep()

    def keep(self) -> None:
        """IndexCorrupt("index-locked") where another has taken it; else it lasts on."""
        held = self._meta.load(LEASE)
        if held and held["token"] == self._token:
            if held["until"] - time.time() < TERM * 0.9:
                self._write()
            return
        if held:
            raise self._locked(held)
        self._write()

    def give_back(self) -> None:
        """Let the next one write. Where Milvus is away, this process still knows that it has."""
        if self._token not in _HELD:
            return
        self.forget()
        held = self._meta.load(LEASE)
        if held and held["token"] == self._token:
            self._meta.store(LEASE, {**held, "until": 0})

    def forget(self) -> None:
        _HELD.discard(self._token)

    def _write(self) -> None:
        now = time.time()
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        self._meta.store(LEASE, {"token": self._token, "until": now + TERM, **holder})

    def _refuse(self, held: Any) -> None:  # noqa: ANN401
        if held and held["until"] > time.time() and not _ended(held):
            raise self._locked(held)

    def _locked(self, held: Any) -> IndexCorrupt:  # noqa: ANN401
        since = datetime.fromtimestamp(held["since"], timezone.utc).isoformat(timespec="seconds")
        home = self._meta.table.connection.address.shown
        return IndexCorrupt(
            "index-locked", home=home, pid=f"{held['host']}/{held['pid']}", since=since
        )


def _ended(held: Any) -> bool:  # noqa: ANN401
    """Whether the holder was a process of this machine that is no more, or a run of this one."""
    if held["host"] != socket.gethostname():
        return False
    if held["pid"] == os.getpid():
        return held["token"] not in _HELD
    if os.name == "nt":  # where asking would end it
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _name(key: str) -> str:
    """The key as a key of Milvus; a head and a lease are none of them."""
    return "k" + key.encode("utf-8", "surrogateescape").hex()


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

    def vectors(self, card: ModelInfo, kind: str) -> Table:
        """Through its alias."""
        return Table(self.connection, self.alias(card, kind), VECTORS, card.dim)

    def alias(self, card: ModelInfo, kind: str) -> str:
        return f"{self.base}_{folder_name(card.space)}_{kind}"

    def exist(self) -> bool:
        return bool(self.connection.call("has_collection", f"{self.base}_{META.name}"))

    def make(self) -> None:
        """Make what is not there; the one that tells whether there is a gallery comes last."""
        for kind in reversed(ROWS):
            create(self.connection, f"{self.base}_{kind.name}", kind)


def live(card: ModelInfo, kind: str) -> str:
    """What the head calls vectors of this kind."""
    return f"{card.space}/{kind}"


def all_cards(meta: Meta) -> list[ModelInfo]:
    """The models, in the order of first use."""
    rows = sorted(map(json.loads, meta.meta_keys(_SPACE)), key=lambda row: row["since"])
    return [card_from_json(json.dumps(row["card"])) for row in rows]


def add(tables: Tables, card: ModelInfo) -> None:
    """Make the space of ``card``, or keep the card last used. ModelMismatch where it has vectors of
    another length."""
    meta = tables.meta
    kept = meta.get_meta(_SPACE + card.space)
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
        meta.set_meta(_SPACE + card.space, json.dumps(told, ensure_ascii=False))


def find(tables: Tables, space: str | None) -> ModelInfo:
    """The model of ``space``, or the one last indexed with, or the first. ModelMismatch."""
    known = {card.space: card for card in all_cards(tables.meta)}
    name = space or tables.meta.get_meta(DEFAULT) or next(iter(known), "")
    if name not in known:
        raise ModelMismatch(
            "space-absent",
            home=tables.connection.address.shown,
            space=name or "-",
            known=", ".join(f"{card.name} ({name})" for name, card in known.items()) or "-",
            folder=tables.meta.get_meta("root") or "FOLDER",
        )
    return known[name]


def settle_on(tables: Tables, card: ModelInfo) -> None:
    """``card`` is now the gallery's own model."""
    target = aliased(tables, tables.alias(card, IMAGE))
    if target and aliased(tables, tables.base) != target:
        point(tables, tables.base, target)
    if tables.meta.get_meta(DEFAULT) != card.space:
        tables.meta.set_meta(DEFAULT, card.space)


def beside(tables: Tables, card: ModelInfo, kind: str, index: Index) -> Table:
    """An empty collection to take the place of the one in use."""
    alias = tables.alias(card, kind)
    number = int((aliased(tables, alias) or "_0").rpartition("_")[2])
    name = f"{alias}_{number + 1}"
    if tables.connection.call("has_collection", name):  # of a run that was stopped
        tables.connection.call("drop_collection", name)
    create(tables.connection, name, VECTORS, dim=card.dim, index=index)
    return Table(tables.connection, name, VECTORS, card.dim)


def swap(tables: Tables, card: ModelInfo, kind: str, fresh: Table) -> None:
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
