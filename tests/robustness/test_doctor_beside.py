"""The doctor beside readers and writers, in folders it may not write, and what it leaves behind."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE
from soutu.store.base import NewCaption
from soutu.store.sqlite.examine import examine
from soutu.store.sqlite.store import LocalStore
from tests.damaged import bring_up_to_date, copied, edit, everything, flip, mended, named
from tests.store_samples import DIM, card, make, pictures, unit


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
