"""Carry over what only an old index knows, and put the new index in its place.

``soutu index --rebuild`` makes a new index in ``.soutu/rebuild``, under the write lock. Until it
is complete the old one answers; a process that is killed leaves one or the other, whole. From the
old index come settings, history, captions that no file holds, images that were imported without a
file, and vectors that the run does not encode: all of it where its checksums hold.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.fs import DATABASE, REBUILD, make_private_file, make_private_folder, sync_folder
from soutu.store.base import Change, NewCaption, NewImage
from soutu.store.sqlite.check import (
    SPACE_FOLDER,
    RawIndex,
    Row,
    as_text,
    row_issue,
    structure_issue,
    wrong_definitions,
)
from soutu.store.sqlite.schema import (
    READ_ERRORS,
    TABLES,
    connect,
    create_tables,
    get_counter,
    transaction,
    translate_sqlite_errors,
    write,
)
from soutu.store.sqlite.store import LocalStore
from soutu.store.sqlite.vectors import (
    CAPTIONS,
    DEFAULT,
    IMAGES,
    REVISION,
    VectorKind,
    add_space,
    all_spaces,
    card_from_json,
    first_name,
    pack,
    remove_old_generations,
)
from soutu.store.sqlite.writer import LocalWriter
from soutu.types import Floats, IntegrityIssue, ModelInfo

_BATCH = 4096
_PLAIN = ("meta", "counters", "spaces", "images", "paths", "captions", "changes")
_HEADER = b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20"  # of every database that we make
_RESET_KEYS = ("root", "model", DEFAULT)  # settings


@dataclass
class OldIndex:
    """Hold what is intact of an index that is to be replaced.

    ``rows`` are the intact rows of all tables but those of slots, ``damaged`` (table, issue, row)
    all others. ``raw`` is None where the database cannot be read; ``writable`` says whether SQLite
    would write to it.
    """

    home: Path
    raw: RawIndex | None = None
    writable: bool = False
    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in _PLAIN})
    damaged: list[tuple[str, IntegrityIssue, Row]] = field(default_factory=list)

    @property
    def meta(self) -> dict[str, str]:
        """Return the stored settings."""
        return {as_text(row[0]): as_text(row[1]) for row in self.rows["meta"]}

    @property
    def models(self) -> dict[int, ModelInfo]:
        """Return the model of each space, by the space's number."""
        return {row[0]: card_from_json(row[3]) for row in self.rows["spaces"]}

    @property
    def changes(self) -> list[Change]:
        """Return the history, oldest first."""
        return [
            Change(generation, as_text(kind), os.fsdecode(path), os.fsdecode(other), as_text(time))
            for _, generation, kind, path, other, time, _ in sorted(self.rows["changes"])
        ]

    def close(self) -> None:
        """Close the database if it is open."""
        if self.raw is not None:
            self.raw.close()


@dataclass
class CarryReport:
    """Count what came from the old index, and list what of it was lost."""

    images: int = 0
    captions: int = 0
    vectors: int = 0
    lost: list[IntegrityIssue] = field(default_factory=list)


def read_old_index(home: Path) -> OldIndex:
    """Read the index at ``home`` (absolute), whatever state it is in; close it at the end.

    Raises IndexCorrupt for the index of a newer Soutu.
    """
    old = OldIndex(home)
    if not (home / DATABASE).is_file():
        return old
    try:
        with open(home / DATABASE, "rb") as file:
            old.writable = file.read(len(_HEADER)) == _HEADER
        old.raw = RawIndex(home) if old.writable else _open_copy(home)
        with suppress(*READ_ERRORS):
            wrong_definitions(old.raw)
    except (IndexCorrupt, OSError) as error:
        if isinstance(error, IndexCorrupt) and error.code == "index-newer":
            raise
        detail = error.fields["error"] if isinstance(error, IndexCorrupt) else error
        old.damaged.append(("", structure_issue(detail), ()))
        return old
    for table in _PLAIN:
        rows, unread = _read_rows(old.raw, table, "", TABLES[table][0])
        old.rows[table] = [row for row, intact in rows.items() if intact]
        old.damaged += [(table, issue, ()) for issue in unread]
        old.damaged += [(table, row_issue(table, row), row) for row, ok in rows.items() if not ok]
    return old


def begin_new_index(old: OldIndex, folder: Path) -> None:
    """Create an empty index in ``folder`` with the old one's settings, spaces and counters.

    Processes that have the index open know spaces, images and captions by their numbers.
    """
    make_private_folder(folder)
    make_private_file(folder / DATABASE)
    counters = {as_text(row[0]): row[1] for row in old.rows["counters"]}
    largest = {
        "image": max((row[0] for row in old.rows["images"]), default=0),
        "caption": max((row[0] for row in old.rows["captions"]), default=0),
        "change": max((row[0] for row in old.rows["changes"]), default=0),
        "generation": max((row[1] for row in old.rows["changes"]), default=0),
    }
    # Each change of what is searchable leaves at least one line of history.
    largest[REVISION] = largest["change"]
    with closing(connect(folder, writing=True)) as new:
        create_tables(new)
        for number, card in old.models.items():
            space = add_space(new, folder, card)
            [row] = new.execute("SELECT * FROM spaces WHERE id = ?", (space.id,))
            with transaction(new):
                new.execute("DELETE FROM spaces WHERE id = ?", (space.id,))
                write(new, "spaces", [(number, *row[1:-1])])
        with transaction(new):
            write(new, "meta", [(as_text(row[0]), row[1]) for row in old.rows["meta"]])
            values = [(name, max(n, counters.get(name, 0))) for name, n in largest.items()]
            write(new, "counters", values)


def carry_over(
    old: OldIndex, folder: Path, space: str, *, encoded: bool, captions: bool
) -> CarryReport:
    """Add to the new index in ``folder`` what the run did not make.

    Parameters
    ----------
    space
        The space that will be the gallery's default.
    encoded
        Whether all images that have a file are there, with vectors in ``space``. If not, no model
        was at hand, and images and vectors come from the old index.
    captions
        Whether captions come from the old index. If not, they were read from their file.
    """
    run = _Carrying(old, space if encoded else None)
    for number, card in old.models.items():
        with LocalStore.open(folder, card.space) as store, store.writer() as writer:
            run.carry_images(writer, number, card)
    if captions:
        with LocalStore.open(folder, space) as store, store.writer() as writer:
            run.carry_captions(writer)
    for number, card in old.models.items():
        with LocalStore.open(folder, card.space) as store, store.writer() as writer:
            run.carry_caption_vectors(writer, number, card)
    with LocalStore.open(folder, space) as store:
        store.set_meta(DEFAULT, space)
        run.name_lost(set(store.files()), captions=captions)
    return run.carried


def put_in_place(old: OldIndex, folder: Path) -> None:
    """Replace the old index by the complete one in ``folder``, and close the old one.

    Vector folders go first, under names that the old index does not use. Then one SQLite
    transaction overwrites the old database, beside its readers; where SQLite cannot write to it,
    the new file is renamed over it.
    """
    with closing(connect(folder, writing=True)) as new:
        for space in all_spaces(new, folder):
            target = _unused_folder(old.home, first_name(space.folder.name))
            make_private_folder(target.parent)
            space.folder.replace(target)
            sync_folder(target.parent)
            sql = "SELECT id, space, folder, card, since FROM spaces WHERE id = ?"
            [row] = new.execute(sql, (space.id,))
            with transaction(new):
                write(new, "spaces", [(*row[:2], target.name, *row[3:])])
        _write_history(old, new)
        pack(new)
        old.close()
        overwritten = old.writable and _overwrite(old.home, new)
    if not overwritten:
        for ending in ("-wal", "-shm", "-journal"):  # must not be read into the new file
            old.home.joinpath(DATABASE + ending).unlink(missing_ok=True)
        (folder / DATABASE).replace(old.home / DATABASE)
        sync_folder(old.home)
    shutil.rmtree(folder)
    with closing(connect(old.home, writing=True)) as connection:
        if remove_old_generations(connection, old.home):
            current = {space.folder for space in all_spaces(connection, old.home)}
            for path in (old.home / "spaces").glob("*"):
                if SPACE_FOLDER.fullmatch(path.name) and path not in current:
                    shutil.rmtree(path, ignore_errors=True)


def _open_copy(home: Path) -> RawIndex:
    """Open a copy of the database with the header that it should have."""
    folder = home / REBUILD / "old"
    make_private_folder(folder.parent)
    make_private_folder(folder)
    for name in (DATABASE, f"{DATABASE}-wal"):
        if (home / name).is_file():
            make_private_file(folder / name)
            shutil.copyfile(home / name, folder / name)
    with open(folder / DATABASE, "r+b") as file:
        file.write(_HEADER)
    return RawIndex(home, folder)


def _read_rows(
    raw: RawIndex, table: str, condition: str, key: str
) -> tuple[dict[Row, bool], list[IntegrityIssue]]:
    """Return the readable rows, whether each is intact, and what ended the reading."""
    rows: dict[Row, bool] = {}
    issues: list[IntegrityIssue] = []
    for order in ("", "DESC"):  # from the other end too, where a damaged page is in the way
        try:
            rows.update(raw.rows(table, f"{condition} ORDER BY {key} {order}"))
        except READ_ERRORS as error:
            issues.append(structure_issue(error, table))
        else:
            return rows, []
    return rows, issues[:1]


class _Carrying:
    """Carry rows and vectors over; ``encoded`` is the space encoded again, if any."""

    def __init__(self, old: OldIndex, encoded: str | None) -> None:
        self.old, self.encoded = old, encoded
        self.carried = CarryReport()
        self._images = {row[0]: row for row in old.rows["images"]}
        self._paths: defaultdict[int, list[Row]] = defaultdict(list)
        for row in old.rows["paths"]:
            self._paths[row[3]].append(row)

    def carry_images(self, writer: LocalWriter, number: int, card: ModelInfo) -> None:
        """Carry vectors of images that are there, and images that no run can find."""
        lacking = set(writer.images_without_vector())
        for owners, vectors in self._intact_vectors(IMAGES, number, card):
            contents = [self._images[owner][1] for owner in owners]
            known = writer.known_content(contents)
            places = [i for i, content in enumerate(contents) if known.get(content) in lacking]
            ids = [known[contents[i]] for i in places]
            writer.set_image_vectors(ids, vectors[places])
            new = [
                (i, _new_image(image, row))
                for i, owner in enumerate(owners)
                if contents[i] not in known and (image := self._unfindable(owner))
                for row in self._paths[owner]
            ]
            rows = [i for i, _ in new]
            writer.add_images([image for _, image in new], vectors[rows])
            self.carried.images += len(set(rows))
            self.carried.vectors += len(places) + len(set(rows))

    def carry_captions(self, writer: LocalWriter) -> None:
        """Carry the captions of images that are there."""
        ids = self._new_ids(writer)
        captions = [
            NewCaption(ids[image], as_text(text), json.loads(tags))
            for _, image, text, tags, *_ in sorted(
                self.old.rows["captions"], key=lambda row: (row[4], row[0])
            )
            if image in ids
        ]
        writer.replace_captions(captions)
        self.carried.captions = len(captions)

    def carry_caption_vectors(self, writer: LocalWriter, number: int, card: ModelInfo) -> None:
        """Carry the vectors that captions lack."""
        lacking = {(row.image_id, row.text): row.id for row in writer.captions_without_vector()}
        ids = self._new_ids(writer)
        texts = {row[0]: (ids.get(row[1], 0), as_text(row[2])) for row in self.old.rows["captions"]}
        for owners, vectors in self._intact_vectors(CAPTIONS, number, card):
            new = {i: lacking[texts[owner]] for i, owner in enumerate(owners)
                   if texts.get(owner) in lacking}  # fmt: skip
            writer.set_caption_vectors(list(new.values()), vectors[list(new)])
            self.carried.vectors += len(new)

    def name_lost(self, paths: set[str], *, captions: bool) -> None:
        """List what was damaged and neither made again nor derived."""
        again = {"counters", "changes", *(() if captions else ("captions",))}
        again |= {"images", "paths"} if self.encoded else set()
        for table, issue, row in self.old.damaged:
            if table == "images" and row and self.encoded:
                # Of a picture that was imported without its file nothing else tells.
                known = any(os.fsdecode(path[0]) in paths for path in self._paths[row[0]])
            else:
                known = table in again or (table == "meta" and issue.key in _RESET_KEYS)
            if not known:
                self.carried.lost.append(issue)

    def _intact_vectors(
        self, kind: VectorKind, number: int, card: ModelInfo
    ) -> Iterator[tuple[list[int], Floats]]:
        """Yield owners and vectors of one space in batches; list the lost ones."""
        raw = self.old.raw
        assert raw is not None
        rows, unread = _read_rows(raw, kind.vectors, f"WHERE space = {number}", "owner")
        owners = self._images if kind is IMAGES else {row[0] for row in self.old.rows["captions"]}
        intact = [(row[1], row[2]) for row, ok in rows.items() if ok and row[1] in owners]
        for start in range(0, len(intact), _BATCH):
            part = intact[start : start + _BATCH]
            vectors = [raw.vector(kind, number, slot) for _, slot in part]
            yield [owner for owner, _ in part], np.array(vectors, np.float32)
        encoded = card.space == self.encoded
        for row in (row for row, ok in rows.items() if not ok):
            if not encoded or (kind is IMAGES and self._unfindable(row[1])):
                self.carried.lost.append(row_issue(kind.vectors, row))
        if not encoded:
            self.carried.lost += unread

    def _unfindable(self, owner: int) -> Row | None:
        """Return the row of an image that no index run has found.

        Without a run that is any image; else one without a size, which was imported without its
        file.
        """
        image = self._images.get(owner)
        return image if image and (self.encoded is None or not image[2]) else None

    def _new_ids(self, writer: LocalWriter) -> dict[int, int]:
        """Return the new ids of images, by their old ones."""
        known = writer.known_content([row[1] for row in self._images.values()])
        return {row[0]: known[row[1]] for row in self._images.values() if row[1] in known}


def _new_image(image: Row, path: Row) -> NewImage:
    _, content, width, height, taken, _ = image
    name, size, mtime_ns, _, _, *status, _ = path
    facts = content, width, height, as_text(taken)
    return NewImage(os.fsdecode(name), size, mtime_ns, *facts, *status)


def _unused_folder(home: Path, name: str) -> Path:
    """Return the first of ``NAME``, ``NAME-2``, … that does not exist."""
    folder, number = home / "spaces" / name, 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


def _write_history(old: OldIndex, new: sqlite3.Connection) -> None:
    """Write the old history and one more line; the run's own calls every image new."""
    counters = {as_text(row[0]): row[1] for row in old.rows["counters"]}
    last = max((row[1] for row in old.rows["changes"]), default=0)
    generation = max(last, counters.get("generation", 0)) + 1
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    change = get_counter(new, "change") + 1
    with transaction(new):
        new.execute("DELETE FROM changes")
        history = [
            (id_, number, as_text(kind), path, other, as_text(when))
            for id_, number, kind, path, other, when, _ in old.rows["changes"]
        ]
        write(new, "changes", [*history, (change, generation, "repaired", b"", b"", now)])
        write(new, "counters", [("change", change), ("generation", generation)])


def _overwrite(home: Path, new: sqlite3.Connection) -> bool:
    """Copy the new database over the old one; False if that is too damaged to write."""
    try:
        with translate_sqlite_errors(home), closing(connect(home, writing=True)) as current:
            new.backup(current)
    except IndexCorrupt as error:
        if error.code != "index-damaged":
            raise
        return False
    return True
