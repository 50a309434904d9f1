"""One index run in Milvus: every call becomes visible as a whole, or not at all.

Rows that begin with the next epoch are written first, then the head is moved on to it
(``changing.py``). What a call left half done (a connection that stayed away, a process that was
killed) nobody sees; the next call or the next run clears it away and begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from soutu.errors import BadCaptions
from soutu.store.base import CaptionRow, NewCaption, NewImage, StoredFile
from soutu.store.checks import checked_rows
from soutu.store.milvus import reading, spaces, tuning
from soutu.store.milvus.changing import Change, Changing
from soutu.store.milvus.connection import KEY, Row
from soutu.store.milvus.head import Head, Lease
from soutu.store.milvus.mirror import Mirror
from soutu.store.milvus.schema import TEXT, UNTIL
from soutu.store.milvus.spaces import CAPTION, IMAGE, KINDS, Tables
from soutu.store.milvus.tables import IDS, Table, number
from soutu.types import Floats, ModelCard


class MilvusWriter:
    """Implements ``Writer``; made by ``MilvusStore.writer``, which has taken the ``lease``."""

    def __init__(self, tables: Tables, card: ModelCard, lease: Lease) -> None:
        self._tables, self._card, self._lease = tables, card, lease
        self._cards = spaces.all_cards(tables.meta)
        self._torn = False
        self._changed = False
        self._settle()
        self._began = self._head.epoch
        for table in (tables.files, tables.captions):  # which no reader can still be looking at
            table.remove(f"{UNTIL} <= {self._head.floor}")

    def finish(self) -> None:
        """The run has done what it came for: this space is now the gallery's own."""
        spaces.settle_on(self._tables, self._card)
        if not self._changed:
            return
        self._move(replace(self._head, floor=self._began))
        if self._tables.connection.address.lite:  # whose searches of unflushed rows are slow
            self._flush()

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        return reading.ids_by_content(self._tables.images, contents)

    def images_without_vector(self) -> list[int]:
        return reading.images_without_vector(self._tables, self._head, self._card)

    def captions_without_vector(self) -> list[CaptionRow]:
        return reading.captions_without_vector(self._tables, self._head, self._card)

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        rows = checked_rows(vectors, len(images), self._card.dim)
        with self._changing() as change:
            placed = reading.places(self._tables.images, [image.content for image in images])
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
        rows = checked_rows(vectors, len(ids), self._card.dim)
        with self._changing() as change:
            self._know(change, ids)
            change.vectors[IMAGE] = {int(id_): row for id_, row in zip(ids, rows, strict=True)}
            self._note_vectors(change)

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        rows = checked_rows(vectors, len(ids), self._card.dim)
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
        wish = tuning.Wish(phrases, target, shift, self._lease.keep)
        made = [
            kind for kind in KINDS
            if tuning.refresh(self._tables, self._card, kind, self._head, wish)
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
