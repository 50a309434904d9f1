"""Index a folder: bring a store up to date with it and its captions file.

Every batch is one transaction of the store, so a run can be stopped at any moment and the next
one goes on; nothing is forgotten before what replaces it is safe.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from soutu.errors import BadCaptions, BadImage, BadInput, MissingExtra, SoutuError
from soutu.images.captions import CaptionFile
from soutu.images.decode import read_file
from soutu.images.exclude import Excludes
from soutu.images.scan import has_image_suffix, nfc
from soutu.indexing.diff import ReadFile, diff, load_failures, save_failures
from soutu.indexing.pipeline import Batch, EncodePipeline, IndexOptions, coalesce
from soutu.models.base import Encoder
from soutu.store.base import Change, NewCaption, NewImage, StoredFile, VectorStore, Writer

ATTACH_COUNT = 1000  # files that are attached to known content at once
TEXT_BATCH = 1024
TICK_MS = 500
POLL_MS = 60_000  # between two looks through a folder that cannot be watched


@dataclass(frozen=True)
class IndexReport:
    """What a run did.

    Attributes
    ----------
    files
        Files with a picture's name.
    encoded
        Pictures that the model looked at.
    unchanged
        Files as they were, or with the same content.
    returned
        Files of pictures that had gone and are back.
    duplicates
        Further paths of one content.
    failed, caption_problems
        The files and captions that were left out.
    built
        What ``Writer.refresh_ann`` built after the run.
    previews
        The raw files that could not be developed, and were read as the preview inside them.
    other_files
        How many files were passed over by the ending of their names, lower case, without the dot.
    skipped_folders
        How many bins, snapshots and the like were passed over, by name.
    excluded_files, excluded_folders
        How many pictures and folders a person's patterns exclude.
    notes
        What else a person should know.
    """

    files: int
    encoded: int
    unchanged: int
    renamed: int
    returned: int
    removed: int
    duplicates: int
    captions: int
    failed: tuple[BadImage, ...]
    caption_problems: tuple[BadCaptions, ...]
    generation: int
    built: tuple[str, ...] = ()
    previews: tuple[str, ...] = ()
    other_files: Mapping[str, int] = field(default_factory=dict)
    skipped_folders: Mapping[str, int] = field(default_factory=dict)
    excluded_files: int = 0
    excluded_folders: int = 0
    notes: tuple[SoutuError, ...] = ()


def index_folder(
    root: Path,
    store: VectorStore,
    encoder: Encoder,
    *,
    captions: CaptionFile | None = None,
    history: Sequence[Change] = (),
    options: IndexOptions | None = None,
    only: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Make ``store`` hold what ``root`` holds.

    Parameters
    ----------
    captions
        All captions there are to be; None leaves those of the store as they are.
    history
        What tells the present names of pictures that ``captions`` names by earlier ones; empty: the
        changes in the store.
    only
        Look at these paths alone; None: at the whole folder.
    progress
        Called with the number of files done and of all.

    Raises
    ------
    BadInput
        For an unusable root. A file that cannot be read is reported and left out; one that was
        readable before keeps its last good state.
    IndexCorrupt
        When another process is writing.
    """
    options = options or IndexOptions()
    before = load_failures(store, options.max_pixels) if not options.retry else None
    with store.writer() as writer, EncodePipeline(encoder, options) as pipeline:
        changes = diff(root, store, only, before, rehash=options.rehash, excludes=options.excludes)
        run = _Run(
            writer, progress, len(changes.stale), len(changes.unreadable), changes.unreadable
        )
        previews: list[str] = []
        new = run.attach_known(changes.read(writer, pipeline.workers))
        for batch in coalesce(pipeline.encode(new, lambda file: file.data)):
            images = [
                NewImage(
                    file.path,
                    file.size,
                    file.mtime_ns,
                    file.content,
                    picture.width,
                    picture.height,
                    picture.taken,
                    file.ctime_ns,
                    file.inode,
                )
                for file, picture in batch.pictures
            ]
            if images:
                writer.add_images(images, batch.vectors)
            previews += [file.path for file, picture in batch.pictures if picture.preview]
            for file, error in batch.failed:
                run.damaged[file.content] = error
                changes.add_failure(file, error)
            run.count(batch)
        run.attach(run.copies)
        if changes.removed:
            writer.detach(sorted(changes.removed))

        # Pictures that another model has encoded, and this one has not.
        paths = {file.image_id: file for file in store.files().values()}
        missing = [paths[image_id] for image_id in writer.images_without_vector()]
        missing = [file for file in missing if file.path not in changes.failures]
        run.total += len(missing)
        refills = pipeline.encode(missing, lambda file: read_file(root / file.path, name=file.path))
        for refill in coalesce(refills):
            if refill.pictures:
                ids = [file.image_id for file, _ in refill.pictures]
                writer.set_image_vectors(ids, refill.vectors)
            for stored, error in refill.failed:
                changes.add_failure(stored, error)
            run.count(refill)

        problems: list[BadCaptions] = []
        notes = changes.notes if only is None else []
        if captions is not None:
            matched = _match_captions(captions, store, changes.excludes, history)
            writer.replace_captions(matched.captions)
            problems, notes = matched.problems, [*notes, *matched.notes]
        encode_captions(writer, encoder)
    for copy, error in run.bad_copies:
        changes.add_failure(copy, error)
    save_failures(store, options.max_pixels, changes.failures)
    state = store.state()
    return IndexReport(
        files=changes.files,
        encoded=run.encoded,
        unchanged=max(0, changes.unchanged - len(missing)),
        renamed=run.attached["renamed"] + run.attached["moved"],
        returned=run.attached["returned"],
        removed=len(changes.removed),
        duplicates=run.attached["duplicate"] + run.attached["copy"],
        captions=state.captions,
        failed=tuple(run.failed),
        caption_problems=tuple(problems),
        generation=state.generation,
        previews=tuple(previews),
        notes=tuple(notes),
        **vars(changes.omissions),
    )


@dataclass
class _MatchedCaptions:
    captions: list[NewCaption]
    problems: list[BadCaptions]
    notes: list[SoutuError]


def _match_captions(
    file: CaptionFile, store: VectorStore, excludes: Excludes, history: Sequence[Change]
) -> _MatchedCaptions:
    """Find the picture of each row.

    That is the one at the row's path, or that had this name before it was renamed. Else a caption
    of that text which is stored, and which no other row accounts for, is this row's: its picture
    may lie elsewhere by now, or be away.
    """
    files = store.files()
    by_line = {row.line: NewCaption(files[row.path].image_id, row.text, row.tags)
               for row in file.rows if row.path in files}  # fmt: skip
    renamed: dict[int, tuple[str, str]] = {}  # by line: before, now
    names = current_names(history or store.changes()) if file.unmatched else {}
    for row, paths in file.unmatched:
        now = next((names[path] for path in map(nfc, paths) if names.get(path) in files), None)
        if now:
            by_line[row.line] = NewCaption(files[now].image_id, row.text, row.tags)
            renamed[row.line] = row.path, now
    rest = [row for row in (*file.rows, *(row for row, _ in file.unmatched))
            if row.line not in by_line]  # fmt: skip
    paths_by_image = {stored.image_id: path for path, stored in files.items()} if rest else {}
    if rest:
        accounted = {(caption.image_id, caption.text) for caption in by_line.values()}
        images_by_text: defaultdict[str, list[int]] = defaultdict(list)
        # Those without a path come first: a picture that is there is more likely named by its row.
        for stored in sorted(store.all_captions(), key=lambda row: row.image_id in paths_by_image):
            if (stored.image_id, stored.text) not in accounted:
                images_by_text[stored.text].append(stored.image_id)
        for row in rest:
            if images_by_text[row.text]:
                image = images_by_text[row.text].pop(0)
                by_line[row.line] = NewCaption(image, row.text, row.tags)
                if image in paths_by_image and not excludes.covers(row.path):
                    renamed[row.line] = row.path, paths_by_image[image]
    problems = [p for p in file.problems if p.fields.get("line") not in renamed]
    excluded = 0
    for row in file.rows:
        if row.path not in files and row.line not in renamed:
            if excludes.covers(row.path):
                caption = by_line.get(row.line)
                excluded += caption is None or caption.image_id not in paths_by_image
            else:
                where = {"path": row.path, "line": row.line}
                problems.append(BadCaptions("caption-not-indexed", **where))
    notes: list[SoutuError] = []
    if excluded:
        notes.append(BadCaptions("captions-excluded", count=excluded))
    if renamed:
        before, now = renamed[min(renamed)]
        notes.append(BadCaptions("captions-renamed", count=len(renamed), before=before, now=now))
    return _MatchedCaptions([by_line[line] for line in sorted(by_line)], problems, notes)


def current_names(changes: Iterable[Change]) -> dict[str, str]:
    """Map names that files had before, composed (NFC), to those that they have now."""
    earlier: dict[str, list[str]] = {}  # names, by the present one
    for change in changes:
        if change.kind == "renamed":
            earlier[change.other] = [*earlier.pop(change.path, []), nfc(change.path)]
        elif change.kind in ("added", "removed"):
            earlier.pop(change.path, None)
    return {name: now for now, names in earlier.items() for name in names}


@dataclass
class _Run:
    """What one run has done.

    ``unlisted`` failures are no part of its ``total``; ``attached`` counts files of stored content
    by kind; ``copies`` are files of content that is about to be stored.
    """

    writer: Writer
    progress: Callable[[int, int], None] | None
    total: int
    unlisted: int
    failed: list[BadImage]
    encoded: int = 0
    attached: Counter[str] = field(default_factory=Counter)
    copies: list[ReadFile] = field(default_factory=list)
    damaged: dict[bytes, BadImage] = field(default_factory=dict)
    bad_copies: list[tuple[ReadFile, BadImage]] = field(default_factory=list)

    def count(self, batch: Batch[Any] | None = None) -> None:
        """Report how far the run is, once ``batch`` is stored."""
        if batch:
            self.encoded += len(batch.pictures)
            self.failed += [error for _, error in batch.failed]
        done = self.encoded + self.attached.total() + len(self.failed) - self.unlisted
        if self.progress and done:
            self.progress(done, self.total)

    def attach_known(self, files: Iterable[ReadFile]) -> Iterator[ReadFile]:
        """Attach the files of stored content; yield those of new content."""
        known: list[ReadFile] = []
        for file in files:
            if file.kind == "new":
                yield file
            elif file.kind == "copy":
                self.copies.append(file)
            else:
                known.append(file)
            if len(known) == ATTACH_COUNT:
                self.attach(known)
                known = []
        if known:
            self.attach(known)

    def attach(self, files: list[ReadFile]) -> None:
        """Give stored pictures these files.

        A copy of what could not be decoded is as damaged as that was.
        """
        if not files:
            return
        moves: list[tuple[str, StoredFile]] = []
        added: list[StoredFile] = []
        known = self.writer.known_content([file.content for file in files])
        for file in files:
            if error := self.damaged.get(file.content):
                self.failed.append(BadImage(error.code, **{**error.fields, "path": file.path}))
                self.bad_copies.append((file, self.failed[-1]))
                continue
            status = file.ctime_ns, file.inode
            image_id = known[file.content]
            stored = StoredFile(file.path, file.size, file.mtime_ns, image_id, *status)
            if file.kind == "renamed":
                moves.append((file.old_path, stored))
            else:
                added.append(stored)
            self.attached[file.kind] += 1
        if moves:
            self.writer.rename(moves)
        if added:
            self.writer.attach(added)
        self.count()


def encode_captions(writer: Writer, encoder: Encoder) -> None:
    """Encode the captions that have no vector of this model yet."""
    new = writer.captions_without_vector()
    for start in range(0, len(new), TEXT_BATCH):
        part = new[start : start + TEXT_BATCH]
        vectors = encoder.encode_texts([row.text for row in part])
        writer.set_caption_vectors([row.id for row in part], vectors)


def watch_changes(
    root: Path, *, ignored: Path, captions: Path | None, stop: Event | None
) -> Iterator[bool | BadInput]:
    """Tell twice a second, and once when changes have come to rest, whether anything changed.

    A picture, a folder and the file ``captions`` below ``root`` count, what lies in ``ignored``
    does not. Nothing is missed between two answers; ``stop`` ends them. A folder that goes (a disk
    is pulled out) is told of once, and changed when it is there again. Where the system watches no
    further folder, which is told too, it is looked through every minute. Raises MissingExtra
    without watchfiles.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtra("extra-watch", error=error) from error

    def counts(_: object, name: str) -> bool:
        path = Path(name)
        if path.is_relative_to(ignored):
            return False
        # Whether a removed path was a folder cannot be found out: without a suffix it may have
        # been one.
        return has_image_suffix(path.name) or path == captions or not path.suffix or path.is_dir()

    place, due, polling = _identity(root), False, False
    while True:
        try:
            for changes in watch(
                root,
                watch_filter=counts,
                stop_event=stop,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                force_polling=polling or None,
                poll_delay_ms=POLL_MS,
            ):
                if _identity(root) != place:  # what was watched is no longer there
                    break
                yield due or bool(changes)
                due = False
            else:
                return
        except FileNotFoundError:
            pass
        except (OSError, RuntimeError) as error:  # what its own error is
            if polling:
                raise
            polling = True
            yield BadInput("watch-limit", folder=root, error=str(error))
            continue
        if not _is_present(root):
            yield BadInput("watch-gone", folder=root)
            while not _is_present(root):
                if stop and stop.is_set():
                    return
                time.sleep(TICK_MS / 1000)
        place, due = _identity(root), True


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_present(folder: Path) -> bool:
    """Whether there is a folder with anything in it: the mount point of a missing disk is empty."""
    try:
        return any(True for _ in folder.iterdir())
    except OSError:
        return False


def save_gallery_meta(
    store: VectorStore, root: Path, model: str, captions: Path | None, encoding: str | None
) -> None:
    """Keep with the index what later calls need not be told again."""
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    known = {"model": name, "root": str(root)}
    if captions:
        # A gallery that is moved as a whole finds its captions again.
        inside = captions.is_relative_to(root)
        file = captions.relative_to(root) if inside else captions
        known |= {"captions_file": file.as_posix(), "captions_encoding": encoding or ""}
    for key, value in known.items():
        if store.get_meta(key) != value:
            store.set_meta(key, value)
