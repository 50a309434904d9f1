"""The parts of a repair: flipped bits, pages without their trees, rows that do not fit together."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE
from soutu.store.sqlite.examine import examine
from soutu.store.sqlite.flipped import restored
from soutu.store.sqlite.notes import Notes
from soutu.store.sqlite.pages import records
from soutu.store.sqlite.schema import SCHEMA_VERSION, TABLES, checksum, connect, get_counter
from soutu.store.sqlite.sealed import Text, is_sealed, select, stored_types
from soutu.store.sqlite.store import LocalStore
from soutu.store.sqlite.verify import connect_raw
from soutu.types import IntegrityIssue
from tests.damaged import bring_up_to_date, edit, everything, mended
from tests.store_samples import DIM, picture, unit


@pytest.fixture
def home(tmp_path) -> Path:
    home = tmp_path / ".soutu"
    bring_up_to_date(home)
    return home


def found(home: Path) -> list[IntegrityIssue]:
    return examine(home)[0]


def sealed(table, *fields):
    return (*fields, checksum(table, *fields))


ROWS = [
    ("captions", (7, 3, Text("一只猫".encode()), Text(b"{}"), -1)),
    ("paths", (b"a/\xff.jpg", 2**40, -(2**63), 2**63 - 1, Text(b"?.jpg"))),
    ("meta", (Text(b"root"), b"/pictures")),
    ("counters", (Text(b"image"), 0)),
]


@pytest.mark.parametrize(("table", "fields"), ROWS)
def test_any_single_bit_of_a_row_is_put_right(table, fields):
    row = sealed(table, *fields)
    told = [f.decode() if isinstance(f, Text) else f for f in fields]
    for place, field in enumerate(row):
        if isinstance(field, int):
            damaged = [
                (field ^ 1 << bit) if bit < 63 else ~field ^ (2**63 - 1) for bit in range(64)
            ]
            assert all(-(2**63) <= value < 2**63 for value in damaged)
        else:
            damaged = []
            for at in range(len(field)):
                for bit in range(8):
                    copy = bytearray(field)
                    copy[at] ^= 1 << bit
                    damaged.append(type(field)(copy))
        for value in damaged:
            torn = (*row[:place], value, *row[place + 1 :])
            assert not is_sealed(table, torn)
            assert restored(table, torn) == tuple(told)


@pytest.mark.parametrize(("table", "fields"), ROWS)
def test_two_flipped_bits_are_not_guessed(table, fields):
    row = list(sealed(table, *fields))
    row[0] = row[0] ^ 3 if isinstance(row[0], int) else type(row[0])(b"\x03" + row[0][1:])
    assert restored(table, tuple(row)) is None
    assert restored(table, (None, *row[1:])) is None
    assert restored(table, (*row[:-1], "text")) is None


def test_a_text_that_is_stored_as_bytes_is_damage_and_is_put_right(home):
    edit(home, "UPDATE captions SET text = CAST(text AS BLOB) WHERE id = 3")
    assert found(home) == [IntegrityIssue("doctor-captions", "captions", "3")]
    assert (mended(home).restored, found(home)) == (1, [])


def test_columns_are_known_by_the_tables_themselves():
    assert stored_types()["paths"] == (bytes, int, int, int, Text, bytes)
    assert stored_types()["captions"] == (int, int, Text, Text, int, bytes)


def of_file(path: Path, table: str) -> set[tuple[object, ...]]:
    rows = (v if rowid is None else (rowid, *v[1:]) for rowid, v in records(path))
    return {row for row in rows if is_sealed(table, row)}


@pytest.mark.parametrize("table", [t for t in TABLES if "vectors" not in t and t != "packed"])
def test_pages_tell_what_the_trees_tell(home, table):
    with closing(connect_raw(home)) as connection:
        expected = set(connection.execute(select(table)))
    assert expected
    assert of_file(home / DATABASE, table) == expected


def test_a_row_over_many_pages_is_read_as_a_whole(home):
    long = "很长的说明 " * 5000
    with LocalStore.open(home) as store:
        store.set_meta("long", long)
    assert (Text(b"long"), long.encode()) in {row[:2] for row in of_file(home / DATABASE, "meta")}


def test_what_was_written_ahead_is_read_and_what_was_deleted_is_not(home, tmp_path):
    with LocalStore.open(home) as reader, reader.snapshot(), LocalStore.open(home) as store:
        reader.files()  # holds the log open, so that nothing of it is moved into the file
        with store.writer() as writer:
            writer.detach(list(store.files()))
            writer.add_images([picture("neu.jpg")], unit(1, DIM))
        copy = tmp_path / "copy"
        shutil.copytree(home, copy)
    assert {row[0] for row in of_file(copy / DATABASE, "paths")} == {b"neu.jpg"}
    (copy / f"{DATABASE}-wal").unlink()
    assert len(of_file(copy / DATABASE, "paths")) == 60


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(9000), b"\x0d\xff" * 4096, b"\x0a" * 9000])
def test_pages_that_are_none_hold_no_records_of_ours(tmp_path, data):
    (tmp_path / DATABASE).write_bytes(data)
    for table in TABLES:
        assert of_file(tmp_path / DATABASE, table) == set()


def test_vectors_of_one_place_are_both_made_anew(home):
    before = everything(home)
    with closing(connect(home, writing=True)) as connection:
        sql = "SELECT slot FROM image_vectors WHERE owner = 5"
        (slot,) = connection.execute(sql).fetchone()
        [slab] = home.glob("spaces/*/images.f32")
        vector = slab.read_bytes()[slot * DIM * 4 : (slot + 1) * DIM * 4]
        seal = checksum("image_vectors", 1, 6, slot, vector)
        sql = "UPDATE image_vectors SET slot = ?, checksum = ? WHERE owner = 6"
        connection.execute(sql, (slot, seal))
    assert IntegrityIssue("doctor-shared", "image_vectors", "space 1 owner 5") in found(home)
    assert mended(home).vectors == 2
    bring_up_to_date(home)
    assert everything(home) == before


def test_numbers_are_not_given_twice_after_their_counters_are_lost(home):
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.set_image_vectors([1, 2], unit(2, DIM))  # slots 60 and 61, the last in the file
        writer.set_image_vectors([1, 2], unit(2, DIM))
    [slab] = home.glob("spaces/*/images.f32")
    size = slab.stat().st_size
    edit(home, "DELETE FROM image_vectors WHERE owner < 3", "DELETE FROM counters")
    assert {f.key for f in found(home) if f.code == "doctor-counter-low"} >= {
        "image", "caption", "change", "generation", "revision", "slots/1/image"
    }  # fmt: skip
    mended(home)
    with closing(connect(home)) as connection:
        assert get_counter(connection, "image") == get_counter(connection, "caption") == 60
        assert get_counter(connection, "slots/1/image") == size // (DIM * 4) == 64
        assert get_counter(connection, "generation") == 3
    with LocalStore.open(home) as store, store.writer() as writer:
        assert writer.add_images([picture("neu.jpg")], unit(1, DIM)) == [61]
    assert slab.stat().st_size == size + DIM * 4


def test_a_damaged_counter_does_not_go_back(home):
    edit(home, "UPDATE counters SET value = 4000 WHERE name = 'caption'")
    mended(home)
    with closing(connect(home)) as connection:
        assert get_counter(connection, "caption") == 4000


def test_folders_that_no_row_refers_to_go_and_strangers_stay(home):
    for name, content in (("0123456789abcdef", b"x"), ("fedcba9876543210", b""), ("mine", b"x")):
        (home / "spaces" / name).mkdir(mode=0o700)
        (home / "spaces" / name / "images.f32").write_bytes(content)
        (home / "spaces" / name / "images.f32").chmod(0o600)
    gone = IntegrityIssue("doctor-folder", "spaces/0123456789abcdef", harm=False)
    assert found(home) == [gone], "an empty one may be a space in the making"
    os.utime(home / "spaces" / "fedcba9876543210", (0, 0))
    assert len(found(home)) == 2
    assert mended(home).kept == ()
    assert found(home) == []
    assert (home / "spaces" / "mine").is_dir()
    assert len([*(home / "spaces").iterdir()]) == 2


def test_old_temporary_files_go_and_those_of_a_run_under_way_stay(home):
    for name in ("rows.db.new", "rows.db.new-wal", "notes.txt"):
        (home / name).touch(mode=0o600)
    assert found(home) == []
    for name in ("rows.db.new", "rows.db.new-wal", "notes.txt"):
        os.utime(home / name, (0, 0))
    assert [f.where for f in found(home)] == ["rows.db.new", "rows.db.new-wal"]
    mended(home)
    assert found(home) == []
    assert (home / "notes.txt").exists()
    assert not (home / "rows.db.new").exists()


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_what_others_may_read_is_closed_to_them_but_settings(home, tmp_path):
    [slab] = home.glob("spaces/*/images.f32")
    for path in (home, slab, home / DATABASE):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (home / "config.yaml").write_text("k: 3")
    (home / "config.yaml").chmod(0o644)
    opened = [f for f in found(home) if f.code == "doctor-open"]
    assert {(f.where, f.detail) for f in opened} >= {
        (".", "0755"), (DATABASE, "0644"), (slab.relative_to(home).as_posix(), "0644")
    }  # fmt: skip
    assert not any(f.harm for f in opened)
    mended(home)
    assert found(home) == []
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "config.yaml").stat().st_mode & 0o777 == 0o644
    named = home.rename(tmp_path / "elsewhere")
    named.chmod(0o755)
    assert found(named) == [], "a folder that the person named is theirs"


def test_a_lost_row_of_a_space_takes_its_vectors_and_nothing_else(home):
    before = everything(home)
    edit(home, "DELETE FROM spaces")
    found_now = found(home)
    assert {f.where for f in found_now if f.code == "doctor-ownerless"} == {
        "image_vectors", "caption_vectors", "packed", "meta"
    }  # fmt: skip
    done = mended(home)
    assert done.vectors == 120
    assert not [*(home / "spaces").iterdir()]
    assert found(home) == []
    bring_up_to_date(home)
    assert everything(home) == before


def test_notes_lose_no_byte(tmp_path):
    notes = Notes(tmp_path / "notes.jsonl")
    notes.sync()
    assert not notes.path.exists()
    notes.add("captions", (7, 3, Text(b"caf\xe9"), Text("猫".encode()), None, b"\0" * 8), "taken")
    notes.sync()
    notes.sync()
    [line] = notes.path.read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "table": "captions",
        "why": "taken",
        "row": {
            "id": 7,
            "image_id": 3,
            "text": {"text": "caf\\xe9", "hex": b"caf\xe9".hex()},
            "tags": "猫",
            "position": None,
            "checksum": "00" * 8,
        },
    }


def test_a_repair_that_cannot_write_leaves_everything_as_it_was(home, monkeypatch):
    edit(home, "UPDATE captions SET text = 'x' WHERE id = 7")

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Notes, "sync", full)
    with pytest.raises(IndexCorrupt, match="No space left"):
        mended(home)
    with closing(sqlite3.connect(home / DATABASE)) as connection:
        sql = "SELECT text FROM captions WHERE id = 7"
        assert connection.execute(sql).fetchone() == ("x",)
    monkeypatch.undo()
    assert mended(home).removed == 1
    assert found(home) == []


def test_an_index_of_a_newer_soutu_is_left_alone(home):
    edit(home, "CREATE TABLE IF NOT EXISTS newer (id INTEGER)", "DROP INDEX paths_by_image")
    edit(home, "PRAGMA user_version = 99")
    before = (home / DATABASE).read_bytes()
    for attempt in (lambda: examine(home), lambda: mended(home)):
        with pytest.raises(IndexCorrupt) as caught:
            attempt()
        assert caught.value.code == "index-newer"
    assert (home / DATABASE).read_bytes() == before
    edit(home, f"PRAGMA user_version = {SCHEMA_VERSION}")
    assert [f.detail for f in found(home)] == ["the definition of paths_by_image"]
    mended(home)
    assert found(home) == []
