"""The files beside the rows: slabs that are there, nothing left over, closed to others."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, HOME, make_private_file, make_private_folder
from soutu.store.ann import manifest_path, read_manifest
from soutu.store.sqlite.sealed import Slabs, as_text
from soutu.store.sqlite.vectors import KINDS
from soutu.types import IntegrityIssue

SPACES = "spaces"
FRESH = f"{DATABASE}.new"  # a database being put together
_OURS = re.compile(r"[0-9a-f]{16}(-[0-9]+)?")  # a space's folder; others were made by somebody else
_LEFT = (".new", ".new-wal", ".new-shm", ".new-journal", ".tmp", ".part")
_KEPT = (
    "lock",
    "journal*.jsonl",
    "journal.key",
    "llm-cache.jsonl",
    "repair-*.jsonl",
    "before-repair-*.db",
    f"{DATABASE}*",
)
_SETTLED = 60  # seconds after which a file is no longer being made


def slab_files(connection: sqlite3.Connection, home: Path) -> Iterator[IntegrityIssue]:
    """Files of vectors that are not there, or end before the last vector that rows point to."""
    slabs = Slabs(connection, home)
    for number, name in connection.execute("SELECT id, folder FROM spaces"):
        for kind in KINDS:
            sql = f"""SELECT max(slot) + 1 FROM {kind.vectors}
                WHERE space = ? AND typeof(slot) = 'integer'"""
            needed = connection.execute(sql, (number,)).fetchone()[0] or 0
            there = slabs.length(kind, number)
            place = f"{SPACES}/{as_text(name)}/{kind.slab}"
            if there < needed or not _is_file(home / place):
                yield IntegrityIssue("doctor-slab", place, detail=f"{there} < {needed}")


def make_slabs(connection: sqlite3.Connection, home: Path) -> None:
    """An empty file for each that is not there."""
    for (name,) in connection.execute("SELECT folder FROM spaces"):
        folder = home / SPACES / as_text(name)
        make_private_folder(folder.parent)
        make_private_folder(folder)
        for kind in KINDS:
            make_private_file(folder / kind.slab)


def space_folders(home: Path) -> dict[str, bool]:
    """Names of the folders of vectors, and whether each is more than a space in the making:
    a run makes the folder before the row, and fills it only after."""
    folders = (home / SPACES).iterdir() if (home / SPACES).is_dir() else ()
    return {
        folder.name: _settled(folder) or any(p.stat().st_size for p in folder.glob("*.f32"))
        for folder in folders
        if _OURS.fullmatch(folder.name) and folder.is_dir()
    }


def ownerless_folders(
    connection: sqlite3.Connection, folders: dict[str, bool]
) -> Iterator[IntegrityIssue]:
    """Those of ``folders`` (listed before the rows were looked at) that no row refers to."""
    known = {as_text(name) for (name,) in connection.execute("SELECT folder FROM spaces")}
    for name in sorted(name for name, whole in folders.items() if whole and name not in known):
        yield IntegrityIssue("doctor-folder", f"{SPACES}/{name}", harm=False)


def codes(connection: sqlite3.Connection, home: Path) -> Iterator[IntegrityIssue]:
    """Manifests of codes that are not what was written, or name a file that is not."""
    for (name,) in connection.execute("SELECT folder FROM spaces"):
        folder = home / SPACES / as_text(name)
        for kind in KINDS:
            try:
                manifest = read_manifest(folder, kind.name)
                if manifest is None or manifest.is_whole(folder):
                    continue
                seen = manifest.file
            except IndexCorrupt:
                seen = ""
            place = _within(home, manifest_path(folder, kind.name))
            yield IntegrityIssue("doctor-ann", place, detail=seen)


def leftovers(home: Path) -> Iterator[IntegrityIssue]:
    """Temporary files of a run that was killed."""
    for path in sorted((*home.glob("*"), *home.glob(f"{SPACES}/*/*"))):
        if path.name.endswith(_LEFT) and path.is_file() and _settled(path):
            yield IntegrityIssue("doctor-leftover", _within(home, path), harm=False)


def permissions(home: Path) -> Iterator[IntegrityIssue]:
    """What others than its owner may read or change. An index folder that the person named
    (``--index DIR``) is theirs to open; what lies in it is not."""
    if os.name == "nt":
        return
    for path in _private(home):
        mode = _mode(path)
        if mode & 0o077:
            yield IntegrityIssue(
                "doctor-open", _within(home, path), detail=f"{mode:04o}", harm=False
            )


def clear(home: Path, found: IntegrityIssue) -> None:
    """Mend a finding of this module; what the system refuses will be found again."""
    path = home / found.where
    with suppress(OSError):
        if found.code == "doctor-folder":
            shutil.rmtree(path)
        elif found.code in ("doctor-leftover", "doctor-ann"):
            path.unlink()
        elif found.code == "doctor-open":
            path.chmod(0o700 if path.is_dir() else 0o600)


def _private(home: Path) -> list[Path]:
    folders = [home] if home.name == HOME else []
    files = [path for pattern in _KEPT for path in home.glob(pattern)]
    return [*folders, *sorted({*files, *home.glob(SPACES), *home.glob(f"{SPACES}/**/*")})]


def _within(home: Path, path: Path) -> str:
    return path.relative_to(home).as_posix()


def _mode(path: Path) -> int:
    """Permissions; 0 for a link, and for what has gone since it was listed."""
    try:
        found = path.lstat().st_mode
    except OSError:
        return 0
    return 0 if stat.S_ISLNK(found) else stat.S_IMODE(found)


def _settled(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _SETTLED
    except OSError:  # gone already
        return False


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (False for a name that no file can have)
