"""From finished shards into an index: any ``VectorStore``, through its writer alone.

What is stored already is passed over, so that filling can be stopped and repeated. Shards are read
one at a time, in the source's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soutu.distributed.shards import Embedded, ShardFolder
from soutu.encoders.base import Encoder
from soutu.indexing.run import encode_captions
from soutu.indexing.scan import scan
from soutu.sources.images import ImageFile
from soutu.store.base import NewCaption, NewImage, VectorStore, Writer

ROWS = 1000  # in one transaction


@dataclass(frozen=True)
class FillReport:
    """``added`` pictures (or paths, or vectors of this model) that the index did not have,
    ``captions`` likewise."""

    added: int
    captions: int


def missing_files(root: Path, store: VectorStore) -> list[ImageFile]:
    """What an index run over ``root`` would encode, before it is known which files are renamed:
    those that are new or look changed, and one of each picture without a vector of this model.
    Raises BadInput as ``scan`` does."""
    known = store.files()
    found = scan(root, known).stale
    lacking = {*store.images_without_vector()}
    for path, file in known.items():
        if file.image_id in lacking:
            lacking.remove(file.image_id)
            found.append(ImageFile(path, file.size, file.mtime_ns))
    return [*dict.fromkeys(found)]


def fill_folder(store: VectorStore, folder: ShardFolder, names: Sequence[str]) -> int:
    """Store a picture of each content that is new, or lacks a vector of this model, with its first
    path. All else that a folder's index needs (copies, renames, what is gone, captions) is what
    ``indexing.index_folder`` does afterwards, which takes these files for unchanged. Returns how
    many."""
    with store.writer() as writer:
        fill = _Fill(store, writer, copies=False)
        for name in names:
            fill.take(folder.read(name))
    return fill.added


def fill_records(
    store: VectorStore, encoder: Encoder, folder: ShardFolder, names: Sequence[str]
) -> FillReport:
    """Store every picture under its key, and the captions, whose texts are encoded here."""
    with store.writer() as writer:
        fill = _Fill(store, writer, copies=True)
        for name in names:
            fill.take(folder.read(name))
        new = fill.add_captions()
        encode_captions(writer, encoder)
    return FillReport(fill.added, new)


@dataclass
class _Fill:
    """One filling while it is under way. ``copies``: further keys of known content count too."""

    store: VectorStore
    writer: Writer
    copies: bool
    added: int = 0
    captions: dict[tuple[int, str], None] = field(default_factory=dict)
    _lacking: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lacking = {*self.writer.images_without_vector()}

    def take(self, shard: Embedded) -> None:
        for start in range(0, len(shard.images), ROWS):
            part = shard.images[start : start + ROWS]
            known = self.writer.known_content(list({row.content for row in part}))
            wanted = self._wanted(part, known)
            if wanted:
                rows = [part[i] for i in wanted]
                ids = self.writer.add_images(rows, shard.vectors[[start + i for i in wanted]])
                known |= {row.content: id_ for row, id_ in zip(rows, ids, strict=True)}
                self._lacking -= {*ids}
                self.added += len(wanted)
            for row, caption in zip(part, shard.captions[start : start + ROWS], strict=True):
                if caption and self.copies:
                    self.captions[known[row.content], caption] = None

    def _wanted(self, part: Sequence[NewImage], known: dict[bytes, int]) -> list[int]:
        paths = self._paths(known.values()) if self.copies else {}
        wanted, fresh = [], set()
        for i, row in enumerate(part):
            image = known.get(row.content)
            new = image is None or image in self._lacking
            if self.copies:
                take = new or row.path not in paths.get(image or 0, ())
            else:
                take = new and row.content not in fresh
            if take:
                wanted.append(i)
                fresh.add(row.content)
        return wanted

    def _paths(self, ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
        return {row.id: row.paths for row in self.store.images(sorted(set(ids)))}

    def add_captions(self) -> int:
        """Put the captions behind those there are; returns how many are new."""
        stored = self.store.all_captions()
        there = {(caption.image_id, caption.text) for caption in stored}
        fresh = [key for key in self.captions if key not in there]
        if fresh:
            kept = [NewCaption(one.image_id, one.text, one.tags) for one in stored]
            self.writer.replace_captions([*kept, *(NewCaption(*key) for key in fresh)])
        return len(fresh)
