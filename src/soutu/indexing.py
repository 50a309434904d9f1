"""Indexing: bring a store up to date with a folder and its captions file.

Every batch is one transaction of the store, so a run can be stopped at any moment and the
next one goes on; nothing is forgotten before what replaces it is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soutu.encoders.base import Encoder
from soutu.errors import BadCaptions, BadImage, BadInput
from soutu.sources.captions import CaptionFile
from soutu.sources.decode import Decoded, content_hash, decode, read_file
from soutu.sources.images import ImageFile, walk
from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore, Writer

BATCH = 32
TEXT_BATCH = 1024
BATCH_PIXELS = 64_000_000  # decoded pictures held at once: 200 MB, whatever their size


@dataclass(frozen=True)
class IndexReport:
    """What a run did. ``found`` counts files with a picture's name; ``encoded`` pictures that the
    model looked at; ``duplicates`` further files of content that is already there."""

    found: int
    encoded: int
    unchanged: int
    renamed: int
    removed: int
    duplicates: int
    captions: int
    failed: tuple[BadImage, ...]
    caption_problems: tuple[BadCaptions, ...]
    generation: int


@dataclass(frozen=True)
class _Read:
    """A file's bytes and what they are called."""

    file: ImageFile
    content: bytes
    data: bytes


@dataclass(frozen=True)
class _New:
    """A picture the store does not know."""

    read: _Read
    picture: Decoded

    def row(self) -> NewImage:
        file, picture = self.read.file, self.picture
        return NewImage(
            file.path,
            file.size,
            file.mtime_ns,
            self.read.content,
            picture.width,
            picture.height,
            picture.taken,
        )


@dataclass
class _Run:
    """One index run while it is under way."""

    root: Path
    store: VectorStore
    encoder: Encoder
    writer: Writer
    max_pixels: int
    vanished: dict[int, list[str]] = field(default_factory=dict)
    failed: list[BadImage] = field(default_factory=list)
    encoded: int = 0
    renamed: list[str] = field(default_factory=list)
    duplicates: int = 0

    def take(self, files: Sequence[ImageFile]) -> None:
        """Store these files: content that is known gains a path, the rest is encoded."""
        reads = [read for file in files if (read := self._read(file))]
        known = self.writer.known_content([read.content for read in reads])
        fresh: set[bytes] = set()
        batch: list[_New] = []
        copies: list[_Read] = []
        for read in reads:
            if read.content in known or read.content in fresh:
                copies.append(read)
                continue
            try:
                shown = read.file.path
                picture = decode(read.data, max_pixels=self.max_pixels, shown=shown)
            except BadImage as problem:
                self.failed.append(problem)
                continue
            fresh.add(read.content)
            batch.append(_New(read, picture))
            if _full(new.picture for new in batch):
                self._add(batch)
        self._add(batch)
        self._attach(copies)

    def _attach(self, copies: Sequence[_Read]) -> None:
        """Further files of stored content: a vanished path's new name, or a duplicate."""
        known = self.writer.known_content([read.content for read in copies])
        moves: list[tuple[str, StoredFile]] = []
        added: list[StoredFile] = []
        for read in copies:
            image = known[read.content]
            file = StoredFile(read.file.path, read.file.size, read.file.mtime_ns, image)
            if old := self.vanished.get(image):
                moves.append((old.pop(0), file))
            else:
                added.append(file)
        if moves:
            self.writer.rename(moves)
            self.renamed += [old for old, _ in moves]
        if added:
            self.writer.attach(added)
            self.duplicates += len(added)

    def _read(self, file: ImageFile) -> _Read | None:
        try:
            data = read_file(self.root / file.path, shown=file.path)
        except BadImage as problem:
            self.failed.append(problem)
            return None
        return _Read(file, content_hash(data), data)

    def _add(self, batch: list[_New]) -> None:
        """Encode and store the batch, and empty it."""
        if batch:
            vectors = self.encoder.encode_images([new.picture.rgb for new in batch])
            self.writer.add_images([new.row() for new in batch], vectors)
            self.encoded += len(batch)
            batch.clear()

    def fill(self, paths: dict[int, str]) -> None:
        """Give vectors to pictures that are stored with another model's only."""
        pending: list[tuple[int, Decoded]] = []
        for image in self.writer.images_without_vector():
            shown = paths[image]
            try:
                picture = decode(self.root / shown, max_pixels=self.max_pixels, shown=shown)
            except BadImage as problem:
                self.failed.append(problem)
                continue
            pending.append((image, picture))
            if _full(picture for _, picture in pending):
                self._set(pending)
        self._set(pending)

    def _set(self, pending: list[tuple[int, Decoded]]) -> None:
        if pending:
            vectors = self.encoder.encode_images([picture.rgb for _, picture in pending])
            self.writer.set_image_vectors([image for image, _ in pending], vectors)
            self.encoded += len(pending)
            pending.clear()


def _full(pictures: Iterable[Decoded]) -> bool:
    sizes = [p.width * p.height for p in pictures]
    return len(sizes) >= BATCH or sum(sizes) >= BATCH_PIXELS


def index_folder(
    root: Path,
    store: VectorStore,
    encoder: Encoder,
    *,
    captions: CaptionFile | None = None,
    max_pixels: int = 178_000_000,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Make ``store`` hold what ``root`` holds. ``captions`` None leaves the captions as they are.

    A file that cannot be read is reported and left out; one that was readable before keeps
    its last good state. Raises BadInput for an unusable root, IndexCorrupt when another
    process is writing.
    """
    with store.writer() as writer:
        files, unreadable = _split(walk(root))
        known = store.files()
        if known and not files:
            raise BadInput("index-empty", folder=root, count=len(known))
        run = _Run(root, store, encoder, writer, max_pixels, failed=unreadable)
        gone = _gone(known, files, unreadable)
        for path in gone:
            run.vanished.setdefault(known[path].image_id, []).append(path)
        stale = [f for f in files if not _same(known.get(f.path), f)]
        for start in range(0, len(stale), BATCH):
            run.take(stale[start : start + BATCH])
            if progress:
                progress(min(start + BATCH, len(stale)), len(stale))
        left = [path for path in gone if path not in set(run.renamed)]
        if left:
            writer.detach(left)
        before = len(writer.images_without_vector())
        run.fill({file.image_id: path for path, file in store.files().items()})
        stored, problems = _captions(run, captions)
    return IndexReport(
        found=len(files),
        encoded=run.encoded,
        unchanged=max(0, len(files) - len(stale) - before),
        renamed=len(run.renamed),
        removed=len(left),
        duplicates=run.duplicates,
        captions=stored,
        failed=tuple(run.failed),
        caption_problems=problems,
        generation=store.state().generation,
    )


def _split(found: Iterable[ImageFile | BadImage]) -> tuple[list[ImageFile], list[BadImage]]:
    files: list[ImageFile] = []
    problems: list[BadImage] = []
    for one in found:
        if isinstance(one, ImageFile):
            files.append(one)
        else:
            problems.append(one)
    return files, problems


def _same(known: StoredFile | None, file: ImageFile) -> bool:
    return known is not None and (known.size, known.mtime_ns) == (file.size, file.mtime_ns)


def _gone(
    known: dict[str, StoredFile], files: list[ImageFile], unreadable: list[BadImage]
) -> list[str]:
    """Known paths that are no longer there. What lies in a folder that could not be listed,
    or at a path that is there but unusable, is not gone."""
    present = {file.path for file in files}
    hidden = {
        str(problem.fields["path"]) for problem in unreadable if problem.code != "image-is-folder"
    }
    below = tuple(
        f"{problem.fields['path']}/"
        for problem in unreadable
        if problem.code == "folder-unreadable"
    )
    return [
        path
        for path in known
        if path not in present and path not in hidden and not path.startswith(below)
    ]


def _captions(run: _Run, captions: CaptionFile | None) -> tuple[int, tuple[BadCaptions, ...]]:
    """Store the captions of pictures that are indexed and encode those that this model has
    not seen; returns how many there are now, and which rows were skipped."""
    problems: list[BadCaptions] = []
    if captions is not None:
        files = run.store.files()
        problems += captions.problems
        rows = []
        for caption in captions.rows:
            if caption.path in files:
                owner = files[caption.path].image_id
                rows.append(NewCaption(owner, caption.text, caption.tags))
            else:
                where = {"path": caption.path, "line": caption.line}
                problems.append(BadCaptions("caption-not-indexed", **where))
        run.writer.replace_captions(rows)
    new = run.writer.captions_without_vector()
    for start in range(0, len(new), TEXT_BATCH):
        part = new[start : start + TEXT_BATCH]
        vectors = run.encoder.encode_texts([row.text for row in part])
        run.writer.set_caption_vectors([row.id for row in part], vectors)
    return len(run.store.all_captions()), tuple(problems)
