"""Whatever is damaged in an index is found, named, and cured by ``soutu index --rebuild``."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE
from soutu.gallery import Gallery
from soutu.store.sqlite.schema import TABLES
from soutu.store.sqlite.store import LocalStore
from tests.conftest import picture
from tests.damaged import answers, copy_gallery, edit, flip, make_gallery, named

FLIPS = 25


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("whole") / "图库")


@pytest.fixture(scope="module")
def before(whole):
    return answers(whole)


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return copy_gallery(whole, tmp_path / "图库")


@pytest.fixture
def home(folder) -> Path:
    return folder / ".soutu"


def rebuild(folder: Path, **options: object):
    with Gallery.open(folder) as gallery:
        return gallery.rebuild(**options)


def assert_cured(folder: Path, before: object, **options: object) -> None:
    report = rebuild(folder, **options)
    assert named(folder / ".soutu") == set()
    assert answers(folder) == before
    assert {path.name for path in (folder / ".soutu").iterdir()} == {DATABASE, "spaces", "lock"}
    assert len(list((folder / ".soutu" / "spaces").iterdir())) == 1
    assert report.index.encoded == 12


def test_a_whole_index_made_anew_answers_as_before(folder, before):
    with LocalStore.open(folder / ".soutu") as store:
        generation, history = store.state().generation, store.changes()
    report = rebuild(folder)
    assert report.carried.lost == []
    assert answers(folder) == before
    with LocalStore.open(folder / ".soutu") as store:
        assert store.state().generation == generation + 1 == report.index.generation
        assert store.changes()[:-1] == history
        assert store.changes()[-1].kind == "repaired"


@pytest.mark.parametrize("kind", ["images", "captions"])
@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_byte_of_a_slab(folder, home, before, kind, seed):
    [slab] = home.glob(f"spaces/*/{kind}.f32")
    flip(slab, random.Random(seed).randrange(slab.stat().st_size), 1 + seed)
    table = kind.removesuffix("s")
    assert named(home) == {(f"doctor-{table}-vectors", f"{table}_vectors")}
    assert_cured(folder, before)


CHANGES = [
    ("UPDATE images SET width = 1234567 WHERE id = 7", "images"),
    ("UPDATE images SET content = zeroblob(32) WHERE id = 7", "images"),
    ("UPDATE paths SET mtime_ns = 12 WHERE image_id = 7", "paths"),
    ("UPDATE captions SET position = 777 WHERE id = 7", "captions"),
    ("UPDATE captions SET image_id = 1000 WHERE id = 7", "captions"),
    ("UPDATE captions SET text = CAST(text AS BLOB) WHERE id = 3", "captions"),
    ("UPDATE image_vectors SET slot = 4 WHERE owner = 7", "image_vectors"),
    ("UPDATE caption_vectors SET slot = 4444 WHERE owner = 7", "caption_vectors"),
    ("UPDATE counters SET value = 3", "counters"),
    ("UPDATE changes SET generation = 99 WHERE id = 7", "changes"),
    ("UPDATE packed SET revision = revision - 1", "packed"),
    ("UPDATE packed SET pairs = zeroblob(length(pairs))", "packed"),
    ("UPDATE meta SET value = x'00' WHERE key = 'model'", "meta"),
    ("UPDATE meta SET value = x'00' WHERE key = 'space'", "meta"),
    ("UPDATE spaces SET since = '1999'", "spaces"),
    ("UPDATE spaces SET card = replace(card, ': 64', ': 16')", "spaces"),
    ("UPDATE spaces SET folder = '../../etc'", "spaces"),
    ("UPDATE spaces SET card = '[]'", "spaces"),
]


@pytest.mark.parametrize(("statement", "table"), CHANGES)
def test_a_changed_field_of_every_table(folder, home, before, statement, table):
    edit(home, statement)
    assert table in {where for _, where in named(home)}
    assert_cured(folder, before)


def test_every_table_is_damaged_above():
    assert {table for _, table in CHANGES} == set(TABLES)


TEXTS = [
    ("说明 7 ".encode(), "captions"),
    ("图07.png".encode(), "paths"),
    (b"slots/1/caption", "counters"),
    (b"+12 -0", "changes"),
    (b'"license"', "spaces"),
]


@pytest.mark.parametrize(("text", "table"), TEXTS)
@pytest.mark.parametrize("bits", [1, 0x95])
def test_a_flipped_byte_of_a_text(folder, home, before, text, table, bits):
    data = (home / DATABASE).read_bytes()
    start = data.find(text)
    assert start >= 0
    while start >= 0:
        flip(home / DATABASE, start + len(text) - 1, bits)
        start = data.find(text, start + 1)
    assert table in {where.rpartition(": ")[2] for _, where in named(home)}
    assert_cured(folder, before)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM images WHERE id = 7",
        "DELETE FROM captions WHERE id = 7",
        "DELETE FROM spaces",
        "DELETE FROM counters",
        "DELETE FROM image_vectors",
    ],
)
def test_rows_that_are_gone(folder, home, before, statement):
    edit(home, statement)
    found = {code for code, _ in named(home)}
    assert found & {"doctor-ownerless", "doctor-counter-low", "doctor-packed"}, found
    assert_cured(folder, before)


@pytest.mark.parametrize("kind", ["images", "captions"])
@pytest.mark.parametrize("left", [None, 0, 1000])
def test_a_slab_that_is_cut_or_gone(folder, home, before, kind, left):
    [slab] = home.glob(f"spaces/*/{kind}.f32")
    data = slab.read_bytes()
    slab.unlink()
    if left is not None:
        slab.write_bytes(data[:left])
        slab.chmod(0o600)
    assert ("doctor-slab", slab.relative_to(home).as_posix()) in named(home)
    assert_cured(folder, before)


@pytest.mark.parametrize("left", [0, 50, 4096, 5000, 0.5, 0.95])
def test_a_database_that_is_cut(folder, home, before, left):
    """How much of the settings is left depends on where it is cut."""
    data = (home / DATABASE).read_bytes()
    (home / DATABASE).write_bytes(data[: int(left * len(data)) if left < 1 else left])
    assert ("doctor-structure", DATABASE) in named(home)
    assert_cured(folder, before, captions=folder / "captions.csv")


def test_a_database_that_is_gone(folder, home, before):
    (home / DATABASE).unlink()
    assert_cured(folder, before, captions=folder / "captions.csv")


@pytest.mark.parametrize("offset", [0, 16, 18, 19, 20, 21, 28, 31, 32, 47, 59, 60, 63, 100, 103])
def test_a_flipped_byte_of_the_header(folder, home, before, offset):
    flip(home / DATABASE, offset, 0x43)
    assert ("doctor-structure", DATABASE) in named(home)
    assert_cured(folder, before, captions=folder / "captions.csv")


@pytest.mark.parametrize("offset", range(0, 24, 5))
def test_with_a_damaged_header_settings_and_captions_are_kept(folder, home, before, offset):
    """Its first bytes are the same in every index."""
    (folder / "captions.csv").rename(folder / "elsewhere.csv")
    flip(home / DATABASE, offset, 0x43)
    report = rebuild(folder)
    assert report.carried.captions == 12
    assert report.carried.lost == []
    assert answers(folder) == before


def test_a_damaged_definition_of_a_table(folder, home, before):
    data = bytearray((home / DATABASE).read_bytes())
    data[data.index(b"width INTEGER")] ^= 1
    (home / DATABASE).write_bytes(data)
    assert ("doctor-structure", DATABASE) in named(home)
    assert_cured(folder, before)


def test_pages_full_of_nothing(folder, home, before):
    data = bytearray((home / DATABASE).read_bytes())
    start = data.index("图03.png".encode()) // 4096 * 4096
    data[start : start + 4096] = bytes(4096)
    (home / DATABASE).write_bytes(data)
    assert ("doctor-structure", DATABASE) in named(home)
    assert_cured(folder, before)


@pytest.mark.parametrize("victim", ["codes", "manifest", "gone"])
def test_damaged_codes(folder, home, monkeypatch, victim):
    pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")
    monkeypatch.setattr("soutu.store.ann_build.EXACT_BELOW", 20)
    monkeypatch.setattr("soutu.store.sqlite.store.EXACT_BELOW", 20)
    monkeypatch.setattr("soutu.store.ann_build.lists_for", lambda slots: 1)
    for number in range(40):
        Image.fromarray(picture(100 + number)).save(folder / f"{number}.png")
    rebuild(folder)
    before = answers(folder)
    [manifest] = home.glob("spaces/*/image.ann.json")
    [codes] = (path for path in home.glob("spaces/*/image.ann.*") if path != manifest)
    path = manifest if victim == "manifest" else codes
    if victim == "gone":
        path.unlink()
    else:
        flip(path, path.stat().st_size // 2, 4)
    assert named(home) == {("doctor-ann", manifest.relative_to(home).as_posix())}
    assert answers(folder) == before, "scanned"
    rebuild(folder)
    assert named(home) == set()
    assert len(list(home.glob("spaces/*/image.ann.*"))) == 2
    assert answers(folder) == before


@pytest.mark.parametrize("where", ["anywhere", "where something lies"])
def test_random_flips_of_the_database(whole, before, tmp_path, where):
    """Each is named, or hits bytes that hold nothing; none is a crash; all can be cured."""
    chosen = random.Random(where)
    data = (whole / ".soutu" / DATABASE).read_bytes()
    offsets = [i for i, byte in enumerate(data) if byte or where == "anywhere"]
    silent = 0
    for number in range(FLIPS):
        folder = copy_gallery(whole, tmp_path / str(number))
        offset, bits = chosen.choice(offsets), chosen.choice([1 << number % 8, 1 + number])
        flip(folder / ".soutu" / DATABASE, offset, bits)
        if not named(folder / ".soutu"):
            silent += 1
            assert answers(folder) == before, f"byte {offset} ^ {bits:#x} was not noticed"
        rebuild(folder, captions=folder / "captions.csv")
        assert named(folder / ".soutu") == set(), f"byte {offset} ^ {bits:#x}"
        assert answers(folder) == before, f"byte {offset} ^ {bits:#x}"
    assert silent < FLIPS * (0.9 if where == "anywhere" else 0.3)


def test_a_reader_that_was_there_before_sees_the_new_index(folder, home):
    with LocalStore.open(home) as reader:
        first = reader.images(sorted(file.image_id for file in reader.files().values()))
        vectors = reader.image_vectors([image.id for image in first])
        generation = reader.state().generation
        edit(home, "UPDATE captions SET text = '坏' WHERE id = 7")
        with reader.snapshot():
            assert reader.state().images == 12
            rebuild(folder)
            assert len(reader.search_images(vectors[0], 99).ids) == 12, "still the old one"
        assert reader.state().generation == generation + 1
        second = reader.images(reader.search_images(vectors[0], 99).ids.tolist())
        assert {image.paths for image in second} == {image.paths for image in first}
        assert not {image.id for image in second} & {image.id for image in first}


def test_one_writer_at_a_time(folder, home, before):
    with LocalStore.open(home) as store, store.writer(), pytest.raises(IndexCorrupt) as caught:
        rebuild(folder)
    assert caught.value.code == "index-locked"
    assert answers(folder) == before


def test_the_index_of_a_newer_soutu_is_left_alone(folder, home):
    edit(home, "DROP INDEX paths_by_image", "PRAGMA user_version = 99")
    data = (home / DATABASE).read_bytes()
    with pytest.raises(IndexCorrupt) as caught:
        rebuild(folder)
    assert caught.value.code == "index-newer"
    assert (home / DATABASE).read_bytes() == data


KILLED = """
import sys
from pathlib import Path
import soutu.maintenance, soutu.store.sqlite.rebuild
from soutu.gallery import Gallery
from tests.killing import Steps

with Gallery.open(Path(sys.argv[1])) as gallery, Steps(int(sys.argv[2])) as steps:
    gallery.rebuild()
print(steps.count)
"""


def killed_at(folder: Path, step: int) -> subprocess.CompletedProcess[str]:
    """Rebuild in a process that kills itself at this step; 0: at none."""
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(step)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL as POSIX has it")
@pytest.mark.parametrize("damage", ["caption", "header"])
def test_killed_at_any_step_the_old_index_or_the_new_one_is_there(whole, before, tmp_path, damage):
    def damaged(name: str) -> Path:
        folder = copy_gallery(whole, tmp_path / name)
        (folder / ".soutu" / "lexicon.yaml").write_text("words:\n  雪橇犬: [husky]\n", "utf-8")
        if damage == "caption":
            edit(folder / ".soutu", "UPDATE captions SET tags = '{}' WHERE id = 7")
        else:
            flip(folder / ".soutu" / DATABASE, 0, 0x43)
        return folder

    first = killed_at(damaged("first"), 0)
    assert first.returncode == 0, first.stderr
    steps = int(first.stdout)
    old, new = named(damaged("old") / ".soutu"), set()
    seen = set()
    # The last steps put the new index in place: more of them are tried.
    chosen = [*range(1, steps - 90, steps // 5), *range(steps - 90, steps, 10)]
    for step in chosen:
        folder = damaged(str(step))
        assert killed_at(folder, step).returncode == -signal.SIGKILL
        found = {issue for issue in named(folder / ".soutu") if issue[0] != "doctor-folder"}
        assert found in (old, new), step
        seen.add(found == new)
        if found == new:
            assert answers(folder) == before
        assert_cured_after_kill(folder, before)
    assert seen == {False, True}, "some before it was in place, and some after"


def assert_cured_after_kill(folder: Path, before: object) -> None:
    rebuild(folder)
    assert named(folder / ".soutu") == set()
    assert answers(folder) == before
    assert (folder / ".soutu" / "lexicon.yaml").is_file()
    assert not (folder / ".soutu" / "rebuild").exists()
    assert len(list((folder / ".soutu" / "spaces").iterdir())) == 1


def test_what_was_written_ahead_counts(folder, home, tmp_path):
    """A writer that was killed leaves rows that are not yet in the database file."""
    with LocalStore.open(home) as store, store.writer() as writer:
        rows = store.all_captions()
        writer.replace_captions(rows[:-1])
        torn = copy_gallery(folder, tmp_path / "torn")
    (torn / "captions.csv").unlink()
    assert (torn / ".soutu" / f"{DATABASE}-wal").stat().st_size
    flip(torn / ".soutu" / DATABASE, 19, 0x43)
    assert rebuild(torn).carried.captions == 11
    with closing(sqlite3.connect(torn / ".soutu" / DATABASE)) as connection:
        assert connection.execute("SELECT count(*) FROM captions").fetchone() == (11,)
