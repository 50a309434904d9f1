"""Where an index may lie, who may read it, and how it is found."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt
from soutu.fs import find_home
from soutu.store.sqlite import schema
from soutu.store.sqlite.schema import refuse_network_storage
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, make, unit

posix = pytest.mark.skipif(os.name == "nt", reason="permissions and mounts as POSIX has them")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "gallery" / ".soutu"


@posix
def test_the_index_is_private(home):
    old = os.umask(0)
    try:
        make(home)
        with LocalStore.open(home) as store, store.writer():
            store.state()
            modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (home, *home.rglob("*"))}
    finally:
        os.umask(old)
    assert {p.name for p in modes} >= {"rows.db", "rows.db-wal", "lock", "images.f32"}
    assert all(mode == (0o700 if p.is_dir() else 0o600) for p, mode in modes.items()), modes


def test_a_place_that_cannot_be_made_names_the_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IndexCorrupt, match="--index DIR") as caught:
        LocalStore.create_or_open(tmp_path / "file" / ".soutu", card())
    assert caught.value.code == "index-unwritable"


def test_a_folder_that_cannot_be_written_is_read_as_it_stands(home, monkeypatch):
    make(home)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with LocalStore.open(home) as store:
        assert len(store.search_images(unit(DIM), 9).ids) == 3
        with pytest.raises(IndexCorrupt), store.writer() as writer:
            writer.detach(["图/0001.jpg"])
    assert not list(home.glob("*-wal"))


def test_find_home_looks_upwards_for_an_index(home):
    make(home, 0)
    below = home.parent / "2024" / "summer"
    below.mkdir(parents=True)
    (below / ".soutu").mkdir()  # settings, but no index
    assert find_home(below) == find_home(home.parent) == home
    assert find_home(home.parent.parent) is None
    assert find_home(Path("/")) is None


def test_find_home_takes_a_relative_start(home, monkeypatch):
    make(home, 0)
    monkeypatch.chdir(home.parent)
    assert find_home(Path()) == home


MOUNTS = """\
proc /proc proc rw 0 0
/dev/sda / ext4 rw 0 0
server:/export /mnt/photos nfs4 rw 0 0
/dev/sdb /mnt/photos/local xfs rw 0 0
//nas/share /mnt/my\\040nas cifs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
drvfs /mnt/c 9p rw 0 0
server:/a /mnt/over nfs rw 0 0
/dev/sdc /mnt/over ext4 rw 0 0
broken
"""


@posix
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/mnt/photos/.soutu", "nfs4"),
        ("/mnt/photos/2024/.soutu", "nfs4"),
        ("/mnt/photos/local/.soutu", ""),
        ("/mnt/photos2/.soutu", ""),
        ("/mnt/my nas/.soutu", "cifs"),
        ("/mnt/ssh/.soutu", "fuse.sshfs"),
        ("/mnt/c/Users/.soutu", "9p"),
        ("/mnt/over/.soutu", ""),
        ("/home/me/.soutu", ""),
    ],
)
def test_network_storage_is_refused_by_the_longest_mount(place, kind):
    if not kind:
        refuse_network_storage(Path(place), MOUNTS)
        return
    with pytest.raises(IndexCorrupt, match="--index DIR") as caught:
        refuse_network_storage(Path(place), MOUNTS)
    assert caught.value.code == "index-network"
    assert caught.value.fields["kind"] == kind


@posix
def test_opening_asks_where_it_lies(home, monkeypatch):
    make(home, 0)
    mounts = f"server:/x {home.parent.resolve()} nfs rw 0 0\n"
    monkeypatch.setattr(schema, "_system_mounts", lambda: mounts)
    for attempt in (lambda: LocalStore.open(home), lambda: LocalStore.create_or_open(home, card())):
        with pytest.raises(IndexCorrupt) as caught:
            attempt()
        assert caught.value.code == "index-network"
