"""An index of an older Soutu is brought up to date by whoever opens it first."""

import multiprocessing
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, write_lock
from soutu.maintenance import check_gallery
from soutu.store.sqlite.check import _reference_schema, check_index
from soutu.store.sqlite.schema import SCHEMA_VERSION
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare
from tests.store_samples import DIM, card, pictures, unit

INDEXES = Path(__file__).parents[1] / "indexes"
"""300 pictures of which ten are gone and one was renamed, two with odd names, 120 captions; two
spaces. Written by the schema of that version, never to be changed."""


@pytest.fixture(params=[1, 2, 3])
def old(request):
    return request.param


@pytest.fixture
def home(tmp_path, old):
    return Path(shutil.copytree(INDEXES / f"version-{old}", tmp_path / ".soutu"))


def version(home):
    with closing(sqlite3.connect(home / DATABASE)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def check(home):
    """All of version 1 is there."""
    with LocalStore.open(home) as store:
        assert store.state().images == 292
        files = store.files()
        assert "moved/十.jpg" in files
        assert os.fsdecode(b"raw\xff/\xfe.png") in files
        ids = [files[image.path].image_id for image in pictures(50, 50)]
        np.testing.assert_array_equal(store.image_vectors(ids), unit(50, DIM, seed=50))
        assert store.state().captions == len(store.search_captions(unit(DIM), 1000).ids) > 100
        assert {card.space for card in store.spaces()} == {"tiny@1", "other@1"}
        assert [change.kind for change in store.changes(1)].count("removed") == 10
        assert store.get_meta("root") == "/gallery"
    # How open its files are is what the checkout made of them.
    assert [issue for issue in check_index(home)[0] if issue.harm] == []


@pytest.mark.parametrize("how", ["open", "create_or_open"])
def test_nothing_is_lost(home, how, old):
    assert version(home) == old
    with LocalStore.open(home) if how == "open" else LocalStore.create_or_open(home, card()):
        pass
    assert version(home) == SCHEMA_VERSION
    check(home)


def test_it_is_then_as_one_made_today(home):
    with LocalStore.open(home):
        pass
    # How open its files are is what the checkout made of them.
    assert [finding for finding in check_index(home)[0] if finding.harm] == []
    with closing(sqlite3.connect(home / DATABASE)) as connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))
    assert made == _reference_schema()[0]


def test_a_doctor_brings_it_up_to_date_first(home):
    health = check_gallery(home)
    assert health.healthy, health.found
    assert version(home) == SCHEMA_VERSION


def test_what_is_new_works_on_old_rows(home):
    with LocalStore.open(home) as store:
        for pattern, count in (("ström.jpg", 1), ("*.JPG", 291), ("005?.jpg", 10), ("?.png", 1)):
            found = store.search_images(unit(DIM), 1000, Compare("name", "~", pattern))
            assert len(found.ids) == count, pattern
        [named] = store.search_text("说明 117", 1).ids.tolist()
        assert "说明 117" in store.images([named])[0].captions
        with store.writer() as writer:
            writer.add_images(pictures(1, 500), unit(1, DIM))
        assert store.state().images == 293


def test_damage_of_old_rows_is_not_sealed_over(home):
    with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
        connection.execute("UPDATE paths SET size = 7 WHERE path = ?", ("图/0100.jpg".encode(),))
    with LocalStore.open(home):
        pass
    [issue] = (issue for issue in check_index(home)[0] if issue.harm)
    assert (issue.where, issue.key) == ("paths", "图/0100.jpg")


def test_times_and_inodes_are_not_known_yet(home):
    with LocalStore.open(home) as store:
        files = store.files().values()
    assert {(file.ctime_ns, file.inode) for file in files} == {(0, 0)}
    assert {(file.size, file.mtime_ns) for file in files} == {(1000, 1_700_000_000_123_456_789)}


def open_and_count(home):
    with LocalStore.open(Path(home)) as store:
        return len(store.search_images(unit(DIM), 1000).ids)


def test_many_may_open_it_at_once(home):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(open_and_count, [str(home)] * 8) == [292] * 8
    check(home)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_one_says_what_to_do(home):
    home.chmod(0o500)
    try:
        with pytest.raises(IndexCorrupt) as told:
            LocalStore.open(home)
        assert told.value.code == "index-older"
    finally:
        home.chmod(0o700)


def test_a_run_that_goes_on_is_waited_for_and_then_named(home, old, monkeypatch):
    monkeypatch.setattr("soutu.store.sqlite.schema.MIGRATION_WAIT", 0.2)
    with write_lock(home), pytest.raises(IndexCorrupt) as told:
        LocalStore.open(home)
    assert told.value.code == "index-locked"
    assert version(home) == old
