"""SQLite rows: checksums see every flipped byte, counters never go back, versions are minded."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.fs import DATABASE
from soutu.store.base import NewCaption
from soutu.store.sqlite import text_search
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.schema import (
    TABLES,
    checksum,
    connect,
    create_tables,
    get_counter,
    next_ids,
    select_in,
    transaction,
)
from soutu.store.sqlite.store import LocalStore
from soutu.types import IntegrityIssue
from tests.store_samples import DIM, card, pictures, unit


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three pictures, three captions, a remembered setting."""
    home = tmp_path / ".soutu"
    with LocalStore.create_or_open(home, card()) as store:
        with store.writer() as writer:
            ids = writer.add_images(pictures(3), unit(3, DIM))
            writer.replace_captions([NewCaption(i, f"a grey cat {i}", {"地点": "家"}) for i in ids])
            rows = writer.captions_without_vector()
            writer.set_caption_vectors([row.id for row in rows], unit(3, DIM, seed=1))
        store.set_meta("root", "/pictures/of/cats")
    return home


def edit(home: Path, sql: str) -> None:
    with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
        connection.execute(sql)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_what_was_written_verifies(home):
    assert check_index(home)[0] == []


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (b"a grey cat 2", "captions"),
        ("图/0001.jpg".encode(), "paths"),
        (b"2024-05-01T12", "images"),
        (b"/pictures/of/cats", "meta"),
        (b'"license": "Apache', "spaces"),
        (b"+3 -0", "changes"),
    ],
)
def test_a_flipped_letter_in_the_database_is_found(home, text, table):
    data = (home / DATABASE).read_bytes()
    for match in re.finditer(re.escape(text), data):
        flip(home / DATABASE, match.start())
    assert table in {issue.where for issue in check_index(home)[0]}


def test_a_flipped_byte_that_is_no_text_any_more_is_found(home):
    data = bytearray((home / DATABASE).read_bytes())
    data[data.rindex(b"a grey cat 3")] = 0xFF
    (home / DATABASE).write_bytes(data)
    assert IntegrityIssue("doctor-captions", "captions", "3") in check_index(home)[0]
    with LocalStore.open(home) as store, pytest.raises(IndexCorrupt) as caught:
        store.all_captions()
    assert caught.value.code == "index-damaged"


@pytest.mark.parametrize(
    ("sql", "table", "key"),
    [
        ("UPDATE images SET width = 641 WHERE id = 2", "images", "2"),
        ("UPDATE images SET id = 9 WHERE id = 2", "images", "9"),
        ("UPDATE paths SET mtime_ns = 1 WHERE image_id = 1", "paths", "图/0000.jpg"),
        ("UPDATE captions SET position = 7 WHERE id = 1", "captions", "1"),
        ("UPDATE captions SET tags = '{}' WHERE id = 1", "captions", "1"),
        ("UPDATE captions SET checksum = x'00'", "captions", "3"),
        ("UPDATE image_vectors SET slot = 0 WHERE owner = 2", "image_vectors", "space 1 owner 2"),
        ("UPDATE image_vectors SET slot = 77 WHERE owner = 2", "image_vectors", "space 1 owner 2"),
        ("UPDATE counters SET value = 1 WHERE name = 'image'", "counters", "image"),
        ("UPDATE packed SET revision = 1 WHERE kind = 'image'", "packed", "space 1 kind image"),
        ("UPDATE spaces SET card = '[1]'", "spaces", "1"),
        ("UPDATE spaces SET card = '[1]'", "image_vectors", "space 1 owner 1"),
    ],
)
def test_a_changed_field_is_found(home, sql, table, key):
    edit(home, sql)
    code = f"doctor-{table.replace('_', '-')}"
    assert IntegrityIssue(code, table, key) in check_index(home)[0]


@pytest.mark.parametrize(("file", "table"), [("images", "image"), ("captions", "caption")])
def test_a_flipped_bit_in_a_vector_is_found(home, file, table):
    [slab] = home.glob(f"spaces/*/{file}.f32")
    flip(slab, 1 * DIM * 4 + 5)
    assert check_index(home)[0] == [
        IntegrityIssue(f"doctor-{table}-vectors", f"{table}_vectors", "space 1 owner 2")
    ]


def test_a_slab_that_lost_its_end_is_found(home):
    [slab] = home.glob("spaces/*/images.f32")
    slab.write_bytes(slab.read_bytes()[: 2 * DIM * 4])
    assert check_index(home)[0] == [
        IntegrityIssue("doctor-image-vectors", "image_vectors", "space 1 owner 3"),
        IntegrityIssue("doctor-slab", slab.relative_to(home).as_posix(), detail="2 < 3"),
    ]


def test_a_torn_page_is_found_and_the_rest_still_checked(home):
    with closing(connect(home)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        sql = "SELECT rootpage FROM sqlite_master WHERE name = 'captions'"
        page = connection.execute(sql).fetchone()[0]
    data = bytearray((home / DATABASE).read_bytes())
    data[(page - 1) * size : page * size] = bytes(size)
    (home / DATABASE).write_bytes(data)
    found = {issue.where for issue in check_index(home)[0]}
    assert {DATABASE, f"{DATABASE}: captions"} <= found
    assert not found & {"images", "paths", "image_vectors"}


def test_a_file_that_is_no_database_is_said(home):
    (home / DATABASE).write_bytes(b"something else entirely" * 1000)
    [issue] = check_index(home)[0]
    assert (issue.code, issue.where) == ("doctor-structure", DATABASE)
    with pytest.raises(IndexCorrupt) as caught:
        LocalStore.open(home)
    assert caught.value.code == "index-damaged"


def test_every_table_ends_in_a_checksum_and_is_listed(home):
    with closing(connect(home)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        # The text index is derived, and checked by itself.
        assert {name for (name,) in names if not name.startswith(text_search.TABLE)} == set(TABLES)
        for table, columns in TABLES.items():
            info = connection.execute(f"PRAGMA table_info({table})").fetchall()
            assert tuple(row[1] for row in info) == (*columns, "checksum")


def test_a_checksum_tells_fields_apart():
    sums = {
        checksum("t", "ab", "c"),
        checksum("t", "a", "bc"),
        checksum("u", "ab", "c"),
        checksum("t", "1"),
        checksum("t", 1),
        checksum("t", "abc"),
    }
    assert len(sums) == 6
    assert checksum("t", "猫") == checksum("t", "猫".encode())
    assert checksum("paths", b"a.jpg", 1, 2, 3).hex() == "389f2ad6f769e111"


def test_a_newer_format_is_refused(home):
    edit(home, "PRAGMA user_version = 99")
    attempts = (
        lambda: LocalStore.open(home),
        lambda: LocalStore.create_or_open(home, card()),
        lambda: LocalStore.read_meta(home, "root"),
    )
    for attempt in attempts:
        with pytest.raises(IndexCorrupt) as caught:
            attempt()
        assert caught.value.code == "index-newer"
        assert "99" in str(caught.value)


def test_an_index_whose_making_was_cut_short_is_missing_and_can_be_made(tmp_path):
    home = tmp_path / ".soutu"
    home.mkdir()
    (home / DATABASE).touch()
    with pytest.raises(MissingIndex):
        LocalStore.open(home)
    assert LocalStore.read_meta(home, "root") is None
    LocalStore.create_or_open(home, card()).close()
    LocalStore.open(home).close()


def test_rows_are_written_ahead_and_synced(home):
    with closing(connect(home, writing=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        create_tables(connection)  # a second time does nothing


def test_counters_go_on_and_a_rolled_back_one_does_not_count(home):
    with closing(connect(home, writing=True)) as connection:
        with transaction(connection):
            assert next_ids(connection, "new", 5) == 0
            assert next_ids(connection, "new", 0) == 5
        with pytest.raises(ZeroDivisionError), transaction(connection):
            next_ids(connection, "new", 3 // (next_ids(connection, "new", 3) - 5))
        assert get_counter(connection, "new") == 5


def test_any_number_of_values_can_be_looked_up(home):
    with closing(connect(home)) as connection:
        sql = "SELECT id FROM images WHERE id IN ({marks})"
        assert [row[0] for row in select_in(connection, sql, list(range(5000)))] == [1, 2, 3]


def test_a_reading_connection_cannot_write(home):
    with closing(connect(home)) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM images")
