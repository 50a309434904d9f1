"""Rows that are there from one epoch until another: how several become visible at once.

A reader asks the head (``head.py``) which epoch it is, and sees the rows whose ``since`` is not
above it and whose ``until`` is. A writer puts rows that begin with the next epoch and ends others
with it; when all are in Milvus it moves the head, one row, on to that epoch. Stopped before that,
it has changed nothing that anybody sees, and ``settle`` clears it away. A key follows from what its
row says (``digest``), so that to put a row again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from soutu.store.milvus.connection import KEY, PAGE, Connection, Row
from soutu.store.milvus.schema import FOREVER, SINCE, UNTIL, VECTOR, Kind

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


def digest(*fields: int | str | bytes) -> str:
    """32 hexadecimal digits of BLAKE2b over the fields, each preceded by its length."""
    made = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = field if isinstance(field, bytes) else str(field).encode()
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
