"""One index run in Milvus: every call becomes visible as a whole, or not at all.

Rows that begin with the next epoch are written first, then the head is moved on to it
(``changing.py``). What a call left half done (a connection that stayed away, a process that was
killed) nobody sees; the next call or the next run clears it away and begins anew.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property

from soutu.errors import BadCaptions
from soutu.store.base import CaptionRow, NewCaption, NewImage, StoredFile, validate_rows
from soutu.store.milvus import ann, epoch
from soutu.store.milvus import rows as stored
from soutu.store.milvus.connection import KEY, Row
from soutu.store.milvus.epoch import (
    CAPTION,
    IDS,
    IMAGE,
    KINDS,
    Head,
    Lease,
    Table,
    Tables,
    digest,
    is_seen,
    live,
    number,
    seen,
)
from soutu.store.milvus.filters import digits
from soutu.store.milvus.rows import path_digits, path_of
from soutu.store.milvus.schema import FOREVER, SINCE, TEXT, UNTIL, VECTOR
from soutu.store.sqlite.schema import casefold_name
from soutu.types import Floats, ModelInfo

# What a writer knows of the gallery while it runs: paths and captions, fetched once.
#
# About a kilobyte a path. It follows what the writer makes visible; after a fault it is fetched
# anew.


@dataclass
class Mirror:
    """The rows of ``files`` by path and of ``captions`` by id, as of ``epoch``."""

    tables: Tables
    epoch: int
    _owned: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    @cached_property
    def files(self) -> dict[str, Row]:
        rows = {path_of(row["path"]): row for row in self.tables.files.rows(seen(self.epoch))}
        for path, row in rows.items():
            self._owned[row["image"]].add(path)
        return rows

    @cached_property
    def captions(self) -> dict[int, Row]:
        return {row["id"]: row for row in self.tables.captions.rows(seen(self.epoch))}

    def file(self, path: str) -> StoredFile | None:
        row = self.files.get(path)
        if row is None:
            return None
        return StoredFile(path, row["size"], row["mtime_ns"], row["image"])

    def has_path(self, image: int) -> bool:
        _ = self.files
        return bool(self._owned.get(image))

    def captions_of(self, images: set[int]) -> set[int]:
        if not images:
            return set()
        return {id_ for id_, row in self.captions.items() if row["image"] in images}

    def put_file(self, path: str, row: Row | None) -> None:
        before = self.files.pop(path, None)
        if before is not None:
            self._owned[before["image"]].discard(path)
        if row is not None:
            self.files[path] = row
            self._owned[row["image"]].add(path)


# One call of a writer on its way into Milvus: rows first, and then the head, which shows them.


@dataclass
class Change:
    """What a call wants: ``files`` by path (None: forget it), ``pictures`` rows of images that are
    new, ``known`` those of images that files point to, ``captions`` rows by id (None: gone),
    vectors of this space by kind and owner; ``notes`` are its lines of the changes table."""

    files: dict[str, StoredFile | None] = field(default_factory=dict)
    pictures: list[Row] = field(default_factory=list)
    known: dict[int, Row] = field(default_factory=dict)
    captions: dict[int, Row | None] = field(default_factory=dict)
    vectors: dict[str, dict[int, Floats]] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)


class Changing:
    """Carries one ``Change`` out. ``cards`` are the models of the gallery, ``card`` the one that
    the change's vectors are of."""

    def __init__(
        self, tables: Tables, mirror: Mirror, head: Head, card: ModelInfo, cards: list[ModelInfo]
    ) -> None:
        self._tables, self._mirror, self._head = tables, mirror, head
        self._card, self._cards = card, cards
        self._epoch = head.epoch + 1
        self._live: Counter[str] = Counter()

    def carry_out(self, change: Change, *, first: bool) -> Head:
        """Write it and return the head that shows it, which the caller moves to. ``first``: of its
        run."""
        self._tables.images.put(change.pictures)
        new = {row[KEY] for row in change.pictures}
        had = {image: self._mirror.has_path(image) for image in self._touched(change)}
        self._put_files(change)
        has = {image: self._mirror.has_path(image) for image in had}
        gained = {image for image in had if has[image] and not had[image]}
        lost = {image for image in had if had[image] and not has[image]}
        back = gained - new
        words, silent = self._mirror.captions_of(back), self._mirror.captions_of(lost)
        told = len(words) - len(silent) + self._put_captions(change)
        self._put_vectors(change)
        self._show(IMAGE, back, lost, change)
        words |= {id_ for id_, row in change.captions.items() if row and self._is_told(row)}
        silent |= {id_ for id_, row in change.captions.items() if row is None}
        self._show(CAPTION, words, silent, change)
        generation = self._head.generation + (1 if first and change.notes else 0)
        self._note(change, generation)
        worded = back or lost or change.captions or change.vectors.get(IMAGE, {}).keys() - new
        counts = {**self._head.live}
        for name, more in self._live.items():
            counts[name] = counts.get(name, 0) + more
        return replace(
            self._head,
            epoch=self._epoch,
            generation=generation,
            owners=self._head.owners + len(gained) - len(lost),
            told=self._head.told + told,
            said=self._epoch if worded else self._head.said,
            live=counts,
        )

    def _touched(self, change: Change) -> set[int]:
        """Images that may gain or lose their paths."""
        images = {file.image_id for file in change.files.values() if file}
        for path in change.files:
            if row := self._mirror.files.get(path):
                images.add(row["image"])
        return images

    def _put_files(self, change: Change) -> None:
        ended, fresh = [], []
        for path, file in change.files.items():
            row = self._mirror.files.get(path)
            if file == self._mirror.file(path):
                continue
            if row is not None:
                ended.append(row)
            made = None if file is None else self._file_row(file, change.known[file.image_id])
            if made is not None:
                fresh.append(made)
            self._mirror.put_file(path, made)
        self._tables.files.end(ended, self._epoch)
        self._tables.files.put(fresh)

    def _file_row(self, file: StoredFile, image: Row) -> Row:
        path = path_digits(file.path)
        return {
            KEY: digest(path, file.size, file.mtime_ns, file.image_id),
            SINCE: self._epoch,
            UNTIL: FOREVER,
            "image": int(file.image_id),
            "path": path,
            "name": digits(casefold_name(file.path)),
            "depth": file.path.count("/"),
            "size": int(file.size),
            "mtime_ns": int(file.mtime_ns),
            "width": image["width"],
            "height": image["height"],
            "taken": digits(image["taken"]),
        }

    def _put_captions(self, change: Change) -> int:
        """Returns how many more captions there are of images that have a path."""
        ended, fresh, told = [], [], 0
        for id_, row in change.captions.items():
            before = self._mirror.captions.get(id_)
            if before is not None:
                ended.append(before)
                told -= self._is_told(before)
                del self._mirror.captions[id_]
            if row is not None:
                kept = (row["id"], row["image"], row["text"], row["tags"], row["position"])
                made = {**row, KEY: digest(*kept), SINCE: self._epoch, UNTIL: FOREVER}
                fresh.append(made)
                told += self._is_told(row)
                self._mirror.captions[id_] = made
        self._tables.captions.end(ended, self._epoch)
        self._tables.captions.put(fresh)
        return told

    def _is_told(self, caption: Row) -> bool:
        return self._mirror.has_path(caption["image"])

    def _put_vectors(self, change: Change) -> None:
        """Vectors of this space; one that is seen already goes on being so."""
        for kind, vectors in change.vectors.items():
            table = self._tables.vectors(self._card, kind)
            before = table.get(vectors, (KEY, SINCE, UNTIL))
            rows = []
            for owner, vector in vectors.items():
                row: Row = before.get(owner, {SINCE: 0, UNTIL: 0})
                shown = is_seen(row, self._head.epoch)
                if self._may_be_seen(kind, owner) and not (shown and row[UNTIL] == FOREVER):
                    row = {SINCE: self._epoch, UNTIL: FOREVER}
                    self._live[live(self._card, kind)] += 1
                times = {SINCE: row[SINCE], UNTIL: row[UNTIL]}
                rows.append({KEY: owner, **times, VECTOR: vector.tolist()})
            table.put(rows)

    def _may_be_seen(self, kind: str, owner: int) -> bool:
        return self._mirror.has_path(
            owner if kind == IMAGE else self._mirror.captions[owner]["image"]
        )

    def _show(self, kind: str, shown: set[int], hidden: set[int], change: Change) -> None:
        """Let vectors of all models be seen, or not, from the next epoch on; those of this model
        that the change puts are so already."""
        if not shown and not hidden:
            return
        for card in self._cards:
            table = self._tables.vectors(card, kind)
            put = change.vectors.get(kind, {}) if card.space == self._card.space else {}
            changed = []
            for owner, row in table.get((shown | hidden) - put.keys()).items():
                there = row[UNTIL] == FOREVER
                if owner in shown and not there:
                    changed.append({**row, SINCE: self._epoch, UNTIL: FOREVER})
                    self._live[live(card, kind)] += 1
                elif owner in hidden and there:
                    changed.append({**row, UNTIL: self._epoch})
                    self._live[live(card, kind)] -= 1
            table.put(changed)

    def _note(self, change: Change, generation: int) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._tables.changes.put(
            {
                KEY: (self._epoch << 24) + at,
                SINCE: self._epoch,
                "generation": generation,
                "kind": kind,
                "path": path_digits(path),
                "other": path_digits(other),
                "time": now,
            }
            for at, (kind, path, other) in enumerate(change.notes)
        )


class MilvusWriter:
    """Implements ``Writer``; made by ``MilvusStore.writer``, which has taken the ``lease``."""

    def __init__(self, tables: Tables, card: ModelInfo, lease: Lease) -> None:
        self._tables, self._card, self._lease = tables, card, lease
        self._cards = epoch.all_cards(tables.meta)
        self._torn = False
        self._changed = False
        self._settle()
        self._began = self._head.epoch
        for table in (tables.files, tables.captions):  # which no reader can still be looking at
            table.remove(f"{UNTIL} <= {self._head.floor}")

    def finish(self) -> None:
        """The run has done what it came for: this space is now the gallery's own."""
        epoch.settle_on(self._tables, self._card)
        if not self._changed:
            return
        self._move(replace(self._head, floor=self._began))
        if self._tables.connection.address.lite:  # whose searches of unflushed rows are slow
            self._flush()

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        return stored.ids_by_content(self._tables.images, contents)

    def images_without_vector(self) -> list[int]:
        return stored.images_without_vector(self._tables, self._head, self._card)

    def captions_without_vector(self) -> list[CaptionRow]:
        return stored.captions_without_vector(self._tables, self._head, self._card)

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        rows = validate_rows(vectors, len(images), self._card.dim)
        with self._changing() as change:
            placed = stored.places(self._tables.images, [image.content for image in images])
            ids = [placed[image.content][0] for image in images]
            for image, id_ in zip(images, ids, strict=True):
                if not placed[image.content][1] and id_ not in change.known:
                    row = _image_row(image, id_)
                    change.pictures.append(row)
                    change.known[id_] = row
            self._know(change, ids)
            self._put_files(
                change,
                [
                    StoredFile(image.path, image.size, image.mtime_ns, id_)
                    for image, id_ in zip(images, ids, strict=True)
                ],
            )
            there = self._with_vector(ids)
            wanted: dict[int, Floats] = {}  # the first row of each image that lacks a vector
            for at, id_ in enumerate(ids):
                if id_ not in there:
                    wanted.setdefault(id_, rows[at])
            change.vectors[IMAGE] = wanted
            self._note_vectors(change)
        return ids

    def set_image_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        rows = validate_rows(vectors, len(ids), self._card.dim)
        with self._changing() as change:
            self._know(change, ids)
            change.vectors[IMAGE] = {int(id_): row for id_, row in zip(ids, rows, strict=True)}
            self._note_vectors(change)

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        rows = validate_rows(vectors, len(ids), self._card.dim)
        with self._changing() as change:
            for id_ in ids:
                if id_ not in self._mirror.captions:
                    raise KeyError(id_)
            change.vectors[CAPTION] = {int(id_): row for id_, row in zip(ids, rows, strict=True)}
            self._note_vectors(change)

    def attach(self, files: Sequence[StoredFile]) -> None:
        with self._changing() as change:
            self._know(change, [file.image_id for file in files])
            self._put_files(change, files)

    def detach(self, paths: Sequence[str]) -> None:
        with self._changing() as change:
            for path in sorted(set(paths) & self._mirror.files.keys()):
                change.files[path] = None
                change.notes.append(("removed", path, ""))

    def rename(self, moves: Sequence[tuple[str, StoredFile]]) -> None:
        with self._changing() as change:
            for old, _ in moves:
                if old not in self._mirror.files:
                    raise KeyError(old)
            self._know(change, [file.image_id for _, file in moves])
            change.files.update({old: None for old, _ in moves})
            change.files.update({file.path: file for _, file in moves})
            change.notes += [("renamed", old, file.path) for old, file in moves]

    def replace_captions(self, captions: Sequence[NewCaption]) -> None:
        """As ``Writer``; BadCaptions for a text of more than 65,535 bytes, which Milvus does not
        take."""
        wanted: dict[tuple[int, str], tuple[str, int]] = {}
        for position, caption in enumerate(captions):
            tags = json.dumps(dict(caption.tags), ensure_ascii=False, sort_keys=True)
            if max(len(caption.text.encode()), len(tags.encode())) > TEXT:
                raise BadCaptions("milvus-caption-long", text=caption.text[:40], most=TEXT)
            wanted.setdefault((int(caption.image_id), caption.text), (tags, position))
        with self._changing() as change:
            self._know(change, [image for image, _ in wanted])
            stored = {(row["image"], row["text"]): row for row in self._mirror.captions.values()}
            gone = [stored[key]["id"] for key in stored.keys() - wanted.keys()]
            change.captions.update(dict.fromkeys(gone))
            fresh = 0
            for (image, text), (tags, position) in wanted.items():
                row = stored.get((image, text))
                if row is None:
                    id_, fresh = self._caption_id(change, image, text), fresh + 1
                elif (row["tags"], row["position"]) == (tags, position):
                    continue
                else:
                    id_ = row["id"]
                more = {"image": image, "text": text, "tags": tags, "position": position}
                change.captions[id_] = {"id": id_, **more}
            if change.captions:
                change.notes.append(("captions", "", f"+{fresh} -{len(gone)}"))

    def refresh_ann(
        self,
        phrases: Callable[[], Floats],
        *,
        target: float = 0.99,
        shift: Floats | None = None,
    ) -> list[str]:
        if not 0 < target < 1:
            raise ValueError(f"a recall to be reached lies between 0 and 1, not at {target}")
        wish = ann.Wish(phrases, target, shift, self._lease.keep)
        made = [
            kind for kind in KINDS
            if ann.refresh(self._tables, self._card, kind, self._head, wish)
        ]  # fmt: skip
        if made:  # which lets readers look how to search
            self._move(replace(self._head, tuned=self._head.epoch + 1, epoch=self._head.epoch + 1))
        return made

    @contextmanager
    def _changing(self) -> Iterator[Change]:
        """One call: what it wants is gathered, then carried out and shown."""
        if self._torn:
            self._settle()
        change = Change()
        yield change
        if not (change.files or change.captions or any(change.vectors.values())):
            return
        self._lease.keep()  # rows of two writers would be of one epoch
        self._torn = True
        work = Changing(self._tables, self._mirror, self._head, self._card, self._cards)
        head = work.carry_out(change, first=not self._changed)
        self._move(head)
        self._torn = False
        self._changed = self._changed or bool(change.notes)

    def _move(self, head: Head) -> None:
        self._lease.keep()
        self._tables.meta.move(head)
        self._head = head
        self._mirror.epoch = head.epoch

    def _settle(self) -> None:
        """Clear away what was never shown, and look at the gallery anew."""
        self._head = self._tables.meta.head()
        self._mirror = Mirror(self._tables, self._head.epoch)
        self._tables.files.settle(self._head.epoch)
        self._tables.captions.settle(self._head.epoch)
        self._tables.changes.remove(f"since > {self._head.epoch}")
        for table in self._all_vectors():
            table.settle(self._head.epoch, keep=True)
        self._torn = False

    def _flush(self) -> None:
        for table in (self._tables.files, self._tables.captions, self._tables.images):
            table.flush()
        for table in self._all_vectors():
            table.flush()

    def _all_vectors(self) -> list[Table]:
        return [self._tables.vectors(card, kind) for card in self._cards for kind in KINDS]

    def _know(self, change: Change, ids: Sequence[int]) -> None:
        """The rows of these images; KeyError for the first that there is not."""
        wanted = [int(id_) for id_ in ids if int(id_) not in change.known]
        found = self._tables.images.get(wanted)
        for id_ in wanted:
            change.known[id_] = found[id_]

    def _put_files(self, change: Change, files: Sequence[StoredFile]) -> None:
        for file in files:
            change.files[file.path] = file
        for path, latest in change.files.items():
            assert latest is not None
            row = self._mirror.files.get(path)
            if row is None:
                change.notes.append(("added", path, ""))
            elif row["image"] != latest.image_id:
                change.notes.append(("changed", path, ""))

    def _with_vector(self, ids: Sequence[int]) -> set[int]:
        """Those that this space has a vector of, seen or not."""
        rows = self._tables.vectors(self._card, IMAGE).get(ids, (KEY,))
        return {int(key) for key in rows}

    def _note_vectors(self, change: Change) -> None:
        if not change.notes and any(change.vectors.values()):
            change.notes.append(("vectors", "", self._card.space))

    def _caption_id(self, change: Change, image: int, text: str) -> int:
        """53 bits of what it says of which image, or the next that no other caption has."""
        id_ = number(image, text)
        while id_ in self._mirror.captions or change.captions.get(id_) is not None:
            id_ = (id_ + 1) % IDS
        return id_


def _image_row(image: NewImage, id_: int) -> Row:
    sizes = {"width": int(image.width), "height": int(image.height), "taken": image.taken}
    return {KEY: id_, "content": image.content.hex(), **sizes}
