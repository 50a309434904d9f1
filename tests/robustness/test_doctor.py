"""Whatever is damaged in an index is named, mended, and whole again after one index run."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt
from soutu.store.base import NewCaption
from soutu.store.examine import examine
from soutu.store.home import DATABASE
from soutu.store.local import LocalStore
from tests.damaged import (
    all_rows,
    bring_up_to_date,
    copied,
    edit,
    everything,
    flip,
    flip_text,
    mended,
)
from tests.store_samples import DIM, card, make, pictures, unit

FLIPS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("whole") / ".soutu"
    bring_up_to_date(home)
    return home


@pytest.fixture(scope="module")
def answers(whole):
    return everything(whole)


@pytest.fixture
def home(whole, tmp_path) -> Path:
    return copied(whole, tmp_path / ".soutu")


def named(home: Path) -> set[tuple[str, str]]:
    """(code, table or file) of everything found."""
    return {(finding.code, finding.where) for finding in examine(home)[0]}


def assert_mended(home: Path, answers: object) -> None:
    assert named(home) == set()
    bring_up_to_date(home)
    assert everything(home) == answers
    assert named(home) == set()


def test_a_healthy_gallery_of_2000_rows_gives_no_finding(tmp_path):
    bring_up_to_date(tmp_path / ".soutu", 400)
    found, checked = examine(tmp_path / ".soutu")
    assert found == []
    assert checked["images"] == checked["caption_vectors"] == 400
    assert sum(checked.values()) > 2000


def test_a_repair_of_a_healthy_gallery_changes_nothing(home):
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    done = mended(home)
    assert (done.found, done.restored, done.removed, done.vectors, done.kept) == ((), 0, 0, 0, ())
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    before.pop(home / "lock"), after.pop(home / "lock")
    assert after == before


@pytest.mark.parametrize("kind", ["images", "captions"])
@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_byte_of_a_slab(home, answers, kind, seed):
    [slab] = home.glob(f"spaces/*/{kind}.f32")
    flip(slab, random.Random(seed).randrange(slab.stat().st_size), 1 + seed)
    table = kind.removesuffix("s")
    assert named(home) == {(f"doctor-{table}-vectors", f"{table}_vectors")}
    done = mended(home)
    assert (done.removed, done.vectors) == (0, 1)
    assert_mended(home, answers)


TEXTS = [
    ("说明 17".encode(), "captions"),
    ("图/0001.jpg".encode(), "paths"),
    (b"2024-05-01T12:00", "images"),
    (b"/pictures/of/cats", "meta"),
    (b"Apache-2.0", "spaces"),
    (b"slots/1/caption", "counters"),
    (b"+60 -0", "changes"),
]


@pytest.mark.parametrize(("text", "table"), TEXTS)
def test_a_flipped_bit_of_a_text_is_named_and_put_right(home, answers, text, table):
    assert flip_text(home, text)
    assert table in {where.rpartition(": ")[2] for _, where in named(home)}
    done = mended(home)
    assert done.restored
    assert done.removed == 0
    assert everything(home) == answers, "nothing is lost, even before the next index run"
    assert_mended(home, answers)


@pytest.mark.parametrize(("text", "table"), TEXTS)
def test_more_than_a_bit_of_a_text(home, answers, text, table):
    assert flip_text(home, text, 0x15)
    assert table in {where.rpartition(": ")[2] for _, where in named(home)}
    mended(home)
    assert_mended(home, answers)


NUMBERS = [
    ("UPDATE images SET width = 1234567 WHERE id = 7", "images"),
    ("UPDATE paths SET mtime_ns = 12 WHERE image_id = 7", "paths"),
    ("UPDATE captions SET position = 777 WHERE id = 7", "captions"),
    ("UPDATE captions SET image_id = 1000 WHERE id = 7", "captions"),
    ("UPDATE image_vectors SET slot = 44 WHERE owner = 7", "image_vectors"),
    ("UPDATE caption_vectors SET slot = 4444 WHERE owner = 7", "caption_vectors"),
    ("UPDATE counters SET value = 3", "counters"),
    ("UPDATE changes SET generation = 99 WHERE id = 7", "changes"),
    ("UPDATE packed SET revision = revision - 3", "packed"),
    ("UPDATE packed SET pairs = zeroblob(length(pairs))", "packed"),
    ("UPDATE meta SET value = x'00' WHERE key = 'model'", "meta"),
    ("UPDATE meta SET value = x'00' WHERE key = 'space'", "meta"),
    ("UPDATE spaces SET since = '1999'", "spaces"),
    ("UPDATE spaces SET card = replace(card, ': 8', ': 16')", "spaces"),
    ("UPDATE spaces SET folder = '../../etc'", "spaces"),
    ("UPDATE spaces SET card = '[]'", "spaces"),
]


@pytest.mark.parametrize(("statement", "table"), NUMBERS)
def test_a_changed_field_of_every_table(home, answers, statement, table):
    edit(home, statement)
    assert table in {where for _, where in named(home)}
    mended(home)
    assert_mended(home, answers)


def test_every_table_is_damaged_above():
    from soutu.store.rows import TABLES

    assert {table for _, table in (*TEXTS, *NUMBERS)} == set(TABLES)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM images WHERE id = 7",
        "DELETE FROM captions WHERE id = 7",
        "DELETE FROM spaces",
        "DELETE FROM counters",
        "DELETE FROM meta",
        "DELETE FROM image_vectors",
    ],
)
def test_rows_that_are_gone(home, answers, statement):
    """What belonged to them is named; only a vector can go without leaving a gap behind."""
    edit(home, statement)
    found = {code for code, _ in named(home)}
    told = {"doctor-ownerless", "doctor-counter-low", "doctor-packed"}
    assert found & told or statement == "DELETE FROM meta", found
    mended(home)
    assert_mended(home, answers)


@pytest.mark.parametrize("kind", ["images", "captions"])
@pytest.mark.parametrize("left", [None, 0, 3 * DIM * 4 + 5])
def test_a_slab_that_is_cut_or_gone(home, answers, kind, left):
    [slab] = home.glob(f"spaces/*/{kind}.f32")
    data = slab.read_bytes()
    slab.unlink()
    if left is not None:
        slab.write_bytes(data[:left])
        slab.chmod(0o600)
    assert ("doctor-slab", slab.relative_to(home).as_posix()) in named(home)
    assert mended(home).vectors == 60 - (3 if left else 0)
    assert_mended(home, answers)


@pytest.mark.parametrize("left", [0, 50, 4096, 5000, 0.5, 0.95])
def test_a_database_that_is_cut(home, answers, left):
    data = (home / DATABASE).read_bytes()
    size = int(left * len(data)) if isinstance(left, float) else left
    (home / DATABASE).write_bytes(data[:size])
    assert ("doctor-structure", DATABASE) in named(home)
    [kept, *_] = mended(home).kept
    assert kept.name.startswith("rows.db.damaged-")
    assert kept.read_bytes() == data[:size]
    assert_mended(home, answers)


@pytest.mark.parametrize("offset", [0, 16, 18, 19, 20, 21, 28, 31, 32, 47, 59, 60, 63, 100, 103])
def test_a_flipped_byte_of_the_header(home, answers, offset):
    flip(home / DATABASE, offset, 0x43)
    assert ("doctor-structure", DATABASE) in named(home)
    mended(home)
    assert everything(home) == answers, "every row is found where it lies"
    assert_mended(home, answers)


def test_a_damaged_definition_of_a_table(home, answers):
    data = bytearray((home / DATABASE).read_bytes())
    data[data.index(b"width INTEGER")] ^= 1
    (home / DATABASE).write_bytes(data)
    assert ("doctor-structure", DATABASE) in named(home)
    mended(home)
    assert everything(home) == answers
    assert_mended(home, answers)


def test_pages_full_of_nothing(home, answers):
    """A disk that forgot a stretch of the file takes with it only what lay there."""
    data = bytearray((home / DATABASE).read_bytes())
    at = data.index("图/0030.jpg".encode()) // 4096 * 4096
    data[at : at + 4096] = bytes(4096)
    (home / DATABASE).write_bytes(data)
    mended(home)
    with LocalStore.open(home) as store:
        assert len(store.all_captions()) == 60
    assert_mended(home, answers)


@pytest.mark.parametrize("where", ["anywhere", "where something lies"])
def test_random_flips_of_the_database(whole, answers, tmp_path, where):
    """Each is named, or hits bytes that hold nothing; none is a crash; all can be mended."""
    chosen, rows = random.Random(where), all_rows(whole)
    data = (whole / DATABASE).read_bytes()
    offsets = [at for at, byte in enumerate(data) if byte or where == "anywhere"]
    silent = 0
    for number in range(FLIPS):
        home = copied(whole, tmp_path / str(number) / ".soutu")
        offset, bits = chosen.choice(offsets), chosen.choice([1 << number % 8, 1 + number])
        flip(home / DATABASE, offset, bits)
        if not named(home):
            silent += 1
            assert all_rows(home) == rows, f"byte {offset} ^ {bits:#x} was not noticed"
            assert everything(home) == answers, f"byte {offset} ^ {bits:#x} was not noticed"
        mended(home)
        assert named(home) == set(), f"byte {offset} ^ {bits:#x}"
        bring_up_to_date(home)
        assert everything(home) == answers, f"byte {offset} ^ {bits:#x}"
    assert silent < FLIPS * (0.9 if where == "anywhere" else 0.3)


def test_a_second_model_keeps_its_vectors(home):
    with LocalStore.create_or_open(home, card("other", 4)) as other, other.writer() as writer:
        writer.set_image_vectors(writer.images_without_vector(), unit(60, 4))
    query = unit(4, seed=5)
    with LocalStore.open(home, "other@1") as other:
        before = other.search_images(query, 60).ids.tolist()
    edit(home, "UPDATE spaces SET card = '[]', since = '' WHERE id = 1")
    assert ("doctor-spaces", "spaces") in named(home)
    mended(home)
    assert named(home) == set()
    bring_up_to_date(home)
    with LocalStore.open(home, "other@1") as other:
        assert other.search_images(query, 60).ids.tolist() == before
    with LocalStore.open(home, "tiny@1") as tiny:
        assert tiny.state().images == tiny.state().captions == 60


def test_a_reader_that_was_there_before_sees_what_was_mended(home):
    with LocalStore.open(home) as reader:
        assert reader.state().images == 60
        generation = reader.state().generation
        edit(home, "UPDATE images SET width = 1234567 WHERE id = 7")
        mended(home)
        assert reader.state().images == 59
        assert 7 not in reader.search_images(unit(DIM), 99).ids.tolist()
        assert reader.state().generation == generation + 1
        assert reader.changes(generation)[0].kind == "repaired"


WRITE = """
import sys
from pathlib import Path
from soutu.store.local import LocalStore
from tests.store_samples import *
with LocalStore.open(Path(sys.argv[1])) as store, store.writer() as writer:
    print("writing", flush=True)
    for start in range(100, 100_000, 4):
        ids = writer.add_images(pictures(4, start), unit(4, DIM, seed=start))
        writer.set_image_vectors(ids[:1], unit(1, DIM, seed=start))
"""


def test_beside_a_writer_nothing_is_found_and_a_repair_waits_its_turn(home):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITE, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"writing"
        counts, end = [], time.monotonic() + 2
        while time.monotonic() < end:
            found, checked = examine(home)
            assert found == []
            counts.append(checked["images"])
        with pytest.raises(IndexCorrupt) as caught:
            mended(home)
        assert caught.value.code == "index-locked"
        writer.kill()
    assert counts[-1] > counts[0]
    assert named(home) == set()
    assert mended(home).found == ()


def test_a_writer_that_was_killed_leaves_nothing_that_a_repair_would_lose(home, answers):
    """What was written ahead and not yet moved into the file counts, damage or not."""
    with LocalStore.open(home) as store:
        with store.writer() as writer:
            writer.add_images(pictures(1, 77), unit(1, DIM, seed=7))
        with store.writer() as writer:
            writer.replace_captions([NewCaption(1, "最后一条")])
            torn = copied(home, home.parent / "killed" / ".soutu")
    assert (torn / f"{DATABASE}-wal").stat().st_size
    flip(torn / DATABASE, 19, 0x43)
    assert named(torn)
    mended(torn)
    assert named(torn) == set()
    with LocalStore.open(torn) as store:
        assert "图/0077.jpg" in store.files()
        assert [row.text for row in store.all_captions()][-1:] == ["最后一条"]


def test_a_folder_that_cannot_be_written_is_examined_but_not_mended(home, monkeypatch):
    edit(home, "UPDATE images SET width = 1234567 WHERE id = 7")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert named(home) == {("doctor-images", "images")}
    with pytest.raises(IndexCorrupt) as caught:
        mended(home)
    assert caught.value.code == "index-unwritable"
    assert str(home) in str(caught.value)


def test_what_is_removed_is_written_down_and_what_was_before_is_kept(home):
    edit(home, "UPDATE captions SET text = '一只被改坏的猫' WHERE id = 7")
    copy, notes = mended(home).kept
    assert re.fullmatch(r"before-repair-[\d-]+\.db", copy.name)
    assert re.fullmatch(r"repair-[\d-]+\.jsonl", notes.name)
    assert "一只被改坏的猫" in notes.read_text("utf-8")
    with closing(sqlite3.connect(copy)) as before:
        sql = "SELECT text FROM captions WHERE id = 7"
        assert before.execute(sql).fetchone() == ("一只被改坏的猫",)
    if os.name != "nt":
        assert {path.stat().st_mode & 0o777 for path in (copy, notes)} == {0o600}


def test_derived_data_alone_needs_no_copy(home, answers):
    edit(home, "UPDATE packed SET pairs = zeroblob(length(pairs))")
    assert mended(home).kept == ()
    assert everything(home) == answers


def test_an_index_of_one_picture_and_one_of_none(tmp_path):
    for count in (0, 1):
        home = tmp_path / str(count) / ".soutu"
        make(home, count)
        assert named(home) == set()
        (home / DATABASE).write_bytes(b"")
        assert ("doctor-structure", DATABASE) in named(home)
        mended(home)
        make(home, 1)
        assert named(home) == set()
