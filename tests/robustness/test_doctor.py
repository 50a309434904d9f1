"""Whatever is damaged in an index is named, mended, and whole again after one index run."""

from __future__ import annotations

import random

import pytest

from soutu.fs import DATABASE
from soutu.store.sqlite.schema import TABLES
from soutu.store.sqlite.store import LocalStore
from tests.damaged import (
    all_rows,
    assert_mended,
    bring_up_to_date,
    copied,
    edit,
    everything,
    flip,
    flip_text,
    mended,
    named,
)
from tests.store_samples import DIM

FLIPS = 60


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
