"""Files are written whole or not at all; folders are replaced; locks are let go of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt
from soutu.fs import (
    atomic_write,
    make_private_file,
    make_private_folder,
    replace_folder,
    write_lock,
)


def test_a_file_is_what_it_was_until_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_fails_leaves_nothing(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first", "renamed last"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_who_may_read_it(tmp_path, private, mode):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file", private=private) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.fixture
def calls(monkeypatch):
    """The system's calls that make a file last, in order."""
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def call(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(os, name, call)
    return calls


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_it_is_on_disk_before_it_has_its_name_and_its_name_after(tmp_path, calls):
    with atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert calls == ["fsync", "replace", "fsync"]
    calls.clear()
    with atomic_write(tmp_path / "cache", durable=False) as file:
        file.write(b"x")
    assert calls == ["replace"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "target", tmp_path / "spare")
    assert names(tmp_path / "target") == ["new"]
    assert names(tmp_path / "spare") == ["target"]
    replace_folder(tmp_path / "target", tmp_path / "fresh", tmp_path / "unused")
    assert names(tmp_path) == ["fresh", "spare"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "absent", tmp_path / "target", tmp_path / "spare")
    assert names(tmp_path) == ["target"]


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_what_is_private_stays_private(tmp_path):
    make_private_folder(tmp_path / "a" / "b")
    make_private_file(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o600


def test_a_second_writer_is_told_who_has_the_lock(tmp_path):
    with write_lock(tmp_path):
        for wait in (0.0, 0.1):
            with pytest.raises(IndexCorrupt) as caught, write_lock(tmp_path, wait=wait):
                pass
            assert caught.value.fields["pid"] == str(os.getpid())
    with write_lock(tmp_path):
        pass
