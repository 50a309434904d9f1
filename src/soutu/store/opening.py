"""Getting at an index: made where it is not there, brought up to date where it is old."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soutu.errors import MissingIndex
from soutu.store.home import (
    DATABASE,
    absolute,
    make_private_file,
    make_private_folder,
    refuse_network_storage,
)
from soutu.store.rows import (
    SCHEMA_VERSION,
    check_version,
    connect,
    create_tables,
    guard,
    set_setting,
    setting,
    transaction,
)
from soutu.store.spaces import Space, add_space, find_space
from soutu.types import ModelCard


def create_or_find(home: Path, card: ModelCard) -> Space:
    """The space of ``card`` in the index at ``home``; both made where they are not there."""
    refuse_network_storage(home)
    make_private_folder(home)
    make_private_file(home / DATABASE)
    with connected(home, writing=True) as connection:
        create_tables(connection)
    bring_up_to_date(home)
    with connected(home, writing=True) as connection:
        return add_space(connection, home, card)


def find(home: Path, space: str | None) -> Space:
    """The space called ``space``, or the one last indexed with, in the index at ``home``."""
    if not (home / DATABASE).is_file():
        raise MissingIndex("index-missing", folder=str(home.parent))
    refuse_network_storage(home)
    with connected(home) as connection:  # one where one will do: the last to leave tidies the file
        if check_version(connection, home) == SCHEMA_VERSION:
            return find_space(connection, home, space)
    bring_up_to_date(home)
    with connected(home) as connection:
        return find_space(connection, home, space)


def peek(home: Path, key: str) -> str | None:
    """What the index at ``home`` remembers under ``key``; None where there is no index."""
    home = absolute(home)
    if not (home / DATABASE).is_file():
        return None
    with connected(home) as connection:
        try:
            check_version(connection, home)
        except MissingIndex:  # its making was cut short
            return None
        return setting(connection, key)


def remember(home: Path, key: str, value: str) -> None:
    """Keep ``value`` under ``key``."""
    with connected(home, writing=True) as connection, transaction(connection):
        set_setting(connection, key, value)


@contextmanager
def connected(home: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection for one purpose."""
    connection = connect(home, writing=writing)
    try:
        with guard(home):
            yield connection
    finally:
        connection.close()


def bring_up_to_date(home: Path) -> None:
    """Bring an index that an older Soutu made to the schema of this one."""
    with connected(home) as connection:
        version = check_version(connection, home)
    if version < SCHEMA_VERSION:
        from soutu.store.migrations import migrate  # which few openings need

        migrate(home, version)
