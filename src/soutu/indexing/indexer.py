"""Noticing that something in a folder has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from soutu.errors import BadCaptions, BadImage, MissingExtra
from soutu.images.captions import CaptionFile
from soutu.images.decode import DecodedImage, content_hash, read_file
from soutu.images.scan import ImageFile, has_image_suffix
from soutu.indexing.diff import diff_folder
from soutu.indexing.pipeline import DecodePipeline, IndexOptions, coalesce
from soutu.models.base import Encoder
from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore, Writer
from soutu.types import Rgb

# Indexing: bring a store up to date with a folder and its captions file.
#
# Every batch is one transaction of the store, so a run can be stopped at any moment and the
# next one goes on; nothing is forgotten before what replaces it is safe.


ROWS = 1000  # files that are attached to known content at once
TEXT_BATCH = 1024


@dataclass(frozen=True)
class IndexReport:
    """What a run did. ``found`` counts files with a picture's name; ``encoded`` pictures that the
    model looked at; ``duplicates`` further files of content that is already there; ``built`` is
    what ``refresh_ann`` built after it."""

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
    built: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Read:
    """A file's bytes and what they are called."""

    file: ImageFile
    content: bytes
    data: bytes

    def row(self, picture: DecodedImage) -> NewImage:
        file = self.file
        return NewImage(
            file.path,
            file.size,
            file.mtime_ns,
            self.content,
            picture.width,
            picture.height,
            picture.taken,
        )


@dataclass(frozen=True)
class _Copy:
    """A further file of content that is stored, or about to be."""

    file: ImageFile
    content: bytes


@dataclass
class _Run:
    """One index run while it is under way."""

    root: Path
    store: VectorStore
    encoder: Encoder
    writer: Writer
    crew: DecodePipeline
    report: Callable[[int], None]
    vanished: dict[int, list[str]] = field(default_factory=dict)
    failed: list[BadImage] = field(default_factory=list)
    encoded: int = 0
    renamed: list[str] = field(default_factory=list)
    duplicates: int = 0
    _copies: list[_Copy] = field(default_factory=list)
    _damaged: dict[bytes, BadImage] = field(default_factory=dict)

    def take(self, files: Sequence[ImageFile]) -> None:
        """Store these files: content that is known gains a path, the rest is encoded."""
        crew = self.crew
        reads = (read for _, read in crew.ordered(self._read, files, lambda file: file.size))
        prepared = crew.ordered(self._decode, self._new(reads), lambda read: len(read.data))
        for batch, vectors in coalesce(crew.encoded(self._whole(prepared))):
            self.writer.add_images(batch, vectors)
            self._count(len(batch))
        self._attach(self._copies)

    def _read(self, file: ImageFile) -> _Read | BadImage:
        """Runs in a worker."""
        try:
            data = read_file(self.root / file.path, name=file.path)
        except BadImage as problem:
            return problem
        return _Read(file, content_hash(data), data)

    def _decode(self, read: _Read) -> DecodedImage | BadImage:
        """Runs in a worker."""
        try:
            return self.crew.decode(read.data, read.file.path)
        except BadImage as problem:
            return problem

    def _new(self, reads: Iterable[_Read | BadImage]) -> Iterator[_Read]:
        """Those of the files that hold content nobody has seen. Further files of stored content
        are attached, those of content that is on its way are kept until it is stored."""
        fresh: set[bytes] = set()
        known: list[_Copy] = []
        for read in reads:
            if isinstance(read, BadImage):
                self._fail(read)
            elif read.content in fresh:
                self._copies.append(_Copy(read.file, read.content))
            elif self.writer.known_content([read.content]):
                known.append(_Copy(read.file, read.content))
            else:
                fresh.add(read.content)
                yield read
            if len(known) == ROWS:
                self._attach(known)
                known = []
        self._attach(known)

    def _whole(
        self, prepared: Iterable[tuple[_Read, DecodedImage | BadImage]]
    ) -> Iterator[tuple[NewImage, Rgb]]:
        """The rows and pictures of those that could be decoded."""
        for read, picture in prepared:
            if isinstance(picture, BadImage):
                self._damaged[read.content] = picture
                self._fail(picture)
            else:
                yield read.row(picture), picture.rgb

    def _fail(self, problem: BadImage) -> None:
        self.failed.append(problem)
        self.report(1)

    def _attach(self, copies: Sequence[_Copy]) -> None:
        """Further files of stored content: a vanished path's new name, or a duplicate. A copy of
        what could not be decoded is as damaged as that was."""
        moves: list[tuple[str, StoredFile]] = []
        added: list[StoredFile] = []
        known = self.writer.known_content([copy.content for copy in copies])
        for copy in copies:
            if problem := self._damaged.get(copy.content):
                self._fail(BadImage(problem.code, **{**problem.fields, "path": copy.file.path}))
                continue
            image = known[copy.content]
            file = StoredFile(copy.file.path, copy.file.size, copy.file.mtime_ns, image)
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
        self.report(len(moves) + len(added))

    def fill(self, pending: Sequence[tuple[int, str]]) -> None:
        """Give vectors to pictures, by id and path, that have another model's only."""
        read = self.crew.ordered(self._again, pending, lambda _: 0)
        for batch, vectors in coalesce(self.crew.encoded(self._filling(read))):
            self.writer.set_image_vectors(batch, vectors)
            self._count(len(batch))

    def _again(self, pending: tuple[int, str]) -> DecodedImage | BadImage:
        """Runs in a worker."""
        shown = pending[1]
        try:
            return self.crew.decode(read_file(self.root / shown, name=shown), shown)
        except BadImage as problem:
            return problem

    def _filling(
        self, read: Iterable[tuple[tuple[int, str], DecodedImage | BadImage]]
    ) -> Iterator[tuple[int, Rgb]]:
        for (image, _), picture in read:
            if isinstance(picture, BadImage):
                self._fail(picture)
            else:
                yield image, picture.rgb

    def _count(self, encoded: int) -> None:
        self.encoded += encoded
        self.report(encoded)


def index_folder(
    root: Path,
    store: VectorStore,
    encoder: Encoder,
    *,
    captions: CaptionFile | None = None,
    pace: IndexOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Make ``store`` hold what ``root`` holds. ``captions`` None leaves the captions as they are;
    ``progress`` is told how many files are done, and of how many.

    A file that cannot be read is reported and left out; one that was readable before keeps
    its last good state. Raises BadInput for an unusable root, IndexCorrupt when another
    process is writing.
    """
    with store.writer() as writer, DecodePipeline(encoder, pace or IndexOptions()) as crew:
        found = diff_folder(root, store.files())
        done = _Done(progress, len(found.stale))
        run = _Run(root, store, encoder, writer, crew, done.more, failed=found.unreadable)
        for path, image in found.gone.items():
            run.vanished.setdefault(image, []).append(path)
        run.take(found.stale)
        left = sorted(found.gone.keys() - set(run.renamed))
        if left:
            writer.detach(left)
        pending = _without_vector(store, writer)
        done.total += len(pending)
        run.fill(pending)
        stored, problems = _captions(run, captions)
    return IndexReport(
        found=found.count,
        encoded=run.encoded,
        unchanged=max(0, found.count - len(found.stale) - len(pending)),
        renamed=len(run.renamed),
        removed=len(left),
        duplicates=run.duplicates,
        captions=stored,
        failed=tuple(run.failed),
        caption_problems=problems,
        generation=store.state().generation,
    )


@dataclass
class _Done:
    """How far the run is."""

    tell: Callable[[int, int], None] | None
    total: int
    count: int = 0

    def more(self, count: int) -> None:
        self.count += count
        if self.tell and count:
            self.tell(self.count, self.total)


def _without_vector(store: VectorStore, writer: Writer) -> list[tuple[int, str]]:
    """Ids and a path each of the pictures that this model has not seen."""
    paths = {file.image_id: path for path, file in store.files().items()}
    return [(image, paths[image]) for image in writer.images_without_vector()]


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
    encode_captions(run.writer, run.encoder)
    return len(run.store.all_captions()), tuple(problems)


def encode_captions(writer: Writer, encoder: Encoder) -> None:
    """Give the captions that this model has not seen their vectors."""
    new = writer.captions_without_vector()
    for start in range(0, len(new), TEXT_BATCH):
        part = new[start : start + TEXT_BATCH]
        vectors = encoder.encode_texts([row.text for row in part])
        writer.set_caption_vectors([row.id for row in part], vectors)


TICK_MS = 500


def watch_changes(
    root: Path, *, ignored: Path, also: Path | None, stop: Event | None
) -> Iterator[bool]:
    """Twice a second, and once when changes have come to rest: whether a picture, a folder or
    the file ``also`` below ``root`` was changed. Nothing is missed between two of them. What lies
    in ``ignored`` does not count; ``stop`` ends it. MissingExtra without watchfiles."""
    try:
        from watchfiles import Change, watch
    except ImportError as fault:
        raise MissingExtra("extra-watch", fault=fault) from fault

    def counts(_: Change, name: str) -> bool:
        path = Path(name)
        if path.is_relative_to(ignored):
            return False
        # A folder that was removed cannot be asked any more: what has no suffix may have been one.
        return has_image_suffix(path.name) or path == also or not path.suffix or path.is_dir()

    for changes in watch(
        root,
        watch_filter=counts,
        stop_event=stop,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
    ):
        yield bool(changes)
