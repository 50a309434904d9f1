"""A row with one flipped bit, as it was: what SQLite and disks get wrong most often is one bit,
and of all rows that differ from the damaged one in one bit only the true one fits its checksum."""

from __future__ import annotations

from collections.abc import Iterator

from soutu.store.sqlite.schema import Field, checksum
from soutu.store.sqlite.sealed import Row, Text, stored_types

_LONGEST = 4096  # bytes of a field that are tried one by one
_INTEGER_BITS = 64


def restored(table: str, row: Row) -> tuple[Field, ...] | None:
    """The fields of the damaged ``row`` as they were written, without the checksum; None where
    more than a bit is wrong. (That a wrong row fits by chance: 1 in 10 to the 15th.)"""
    *fields, seal = row
    types = stored_types()[table]
    if not isinstance(seal, bytes) or len(seal) != 8 or len(row) != len(types):
        return None
    for field, kind in zip(fields, types, strict=False):
        if not isinstance(field, int if kind is int else bytes):
            return None
    given = int.from_bytes(seal, "big")
    if (given ^ int.from_bytes(checksum(table, *fields), "big")).bit_count() <= 1:
        return _decoded(table, fields)  # the checksum itself is flipped, or a text was no text
    for place, field in enumerate(fields):
        for candidate in _neighbours(field):
            changed = [*fields[:place], candidate, *fields[place + 1 :]]
            if checksum(table, *changed) == seal:
                return _decoded(table, changed)
    return None


def _neighbours(field: int | bytes) -> Iterator[int | bytes]:
    """Every value that differs in one bit."""
    if isinstance(field, int):
        for bit in range(_INTEGER_BITS):
            flipped = (field & (2**_INTEGER_BITS - 1)) ^ 1 << bit
            yield flipped - 2**_INTEGER_BITS if flipped >> _INTEGER_BITS - 1 else flipped
        return
    data = bytearray(field[:_LONGEST])
    for place in range(len(data)):
        for bit in range(8):
            data[place] ^= 1 << bit
            yield bytes(data) + field[_LONGEST:]
            data[place] ^= 1 << bit


def _decoded(table: str, fields: list[int | bytes]) -> tuple[Field, ...] | None:
    """As ``rows.write`` takes them; None where a text is none."""
    try:
        return tuple(
            field.decode() if isinstance(field, bytes) and kind is Text else field
            for field, kind in zip(fields, stored_types()[table], strict=False)
        )
    except UnicodeDecodeError:
        return None
