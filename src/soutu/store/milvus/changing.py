"""One call of a writer on its way into Milvus: rows first, and then the head, which shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from soutu.store.base import StoredFile
from soutu.store.milvus.connection import KEY, Row
from soutu.store.milvus.head import Head
from soutu.store.milvus.mirror import Mirror
from soutu.store.milvus.reading import path_digits
from soutu.store.milvus.schema import FOREVER, SINCE, UNTIL, VECTOR
from soutu.store.milvus.spaces import CAPTION, IMAGE, Tables, live
from soutu.store.milvus.tables import digest, is_seen
from soutu.store.milvus.where import digits
from soutu.store.rows import folded_name
from soutu.types import Floats, ModelCard


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
        self, tables: Tables, mirror: Mirror, head: Head, card: ModelCard, cards: list[ModelCard]
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
            "name": digits(folded_name(file.path)),
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
