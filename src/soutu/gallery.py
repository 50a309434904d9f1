"""A gallery: a folder of pictures with its index, opened, brought up to date, searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu import maintenance
from soutu.errors import BadCaptions, BadInput, IndexCorrupt, Missing, ModelMismatch, SoutuError
from soutu.factory import (
    build_encoder,
    build_expander,
    create_store,
    is_remembered,
    lexicon_files,
    lexicon_hashes,
    load_tuned_params,
    missing_index_error,
    open_embeddings,
    open_store,
    precision,
    read_meta,
    redacted,
    require_local,
    save_store_address,
    store_location,
    user_lexicon,
)
from soutu.fs import DATABASE, HOME, absolute, find_home
from soutu.maintenance import GalleryInfo
from soutu.models.catalog import DEFAULT
from soutu.query.expansion import CHOSEN, LexiconExpander
from soutu.query.gloss import gloss
from soutu.query.lexicon import Sense, add_word, load_lexicon
from soutu.query.parser import parse_query
from soutu.search.calibration import BASELINE_KEY, baseline_from_json
from soutu.search.fusion import reciprocal_rank
from soutu.search.searcher import SUBTRACT, Searcher, SearchParams
from soutu.searchlog.reader import LogRecord, read_records
from soutu.searchlog.record import Provenance, SearchLog
from soutu.searchlog.replay import Replay, ReplayState, compare
from soutu.searchlog.replay import replay as run
from soutu.settings import Settings, load_settings, merge_settings
from soutu.types import Hit, Query, Ranking, SearchResult

if TYPE_CHECKING:
    from threading import Event
    from types import TracebackType

    from typing_extensions import Self

    from soutu.distributed.ingest import OnRay
    from soutu.exchange.export import ExportReport
    from soutu.indexing.diff import FolderDiff
    from soutu.indexing.importer import ImportReport
    from soutu.indexing.indexer import IndexReport
    from soutu.maintenance import HealthReport, RebuildReport
    from soutu.models.base import Encoder
    from soutu.query.expansion import Expander
    from soutu.search.explain import Explanation
    from soutu.store.base import VectorStore
    from soutu.store.sqlite.compact import Compacted
    from soutu.types import Floats, ModelInfo, Rgb

# A gallery that has been opened: where it is, which model it has, and its index.


# What changes the answer to a query, beside the query.
SEARCHING = ("fusion", "correction", "hybrid", "negatives")  # of ``soutu.search.searcher.Searcher``
SETTINGS = ("expand", "templates", *SEARCHING)
RECORDS = "records"  # remembered by an index that is of tars or Parquet files: where they are
OUTSIDE = ("translator", "llm", "llm_model", "expansions", "tuned")


class Use(Enum):
    """What a process does with a gallery: one search, for which the model is ready sooner and works
    slower; some work of one thread; or the searches of many, whose texts are encoded together
    (apart: each search's by themselves, which shows what that is worth)."""

    ONCE = "once"
    SOME = "some"
    SHARED = "shared"
    APART = "apart"


class Opened:
    """What all of a gallery's work needs: its settings, its model, its index.

    Usable as a context manager. Opening is cheap: the model is loaded by the first call
    that needs it. ``use``: see ``open``.
    """

    def __init__(self, root: Path, home: Path, config: Settings, use: Use = Use.SOME) -> None:
        self.root, self.home, self.config, self.use = root, home, config, use
        self.place = store_location(home, config)
        self.journal_fault: OSError | None = None
        self._store: VectorStore | None = None
        self._known: tuple[object, object] | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        model: str | None = None,
        index: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        use: Use = Use.SOME,
    ) -> Self:
        """The gallery of ``folder`` (None: of where we are): the one whose ``.soutu`` lies there
        or above, else a new one. ``index`` names another place for ``.soutu``'s content, for
        read-only folders; ``settings`` are those of ``soutu.settings.Settings``. ``use``: what the
        process is for."""
        start = absolute(Path(folder or "."))
        home = absolute(Path(index)) if index else find_home(start) or start / HOME
        flags = {**(settings or {}), **({"model": model} if model else {})}
        config, root = load_settings(home, flags), start if index else home.parent
        if index and folder is None:
            with suppress(IndexCorrupt):  # which ``doctor`` must be able to open; others say it
                root = Path(read_meta(store_location(home, config), "root") or start)
        return cls(root, home, config, use)

    @cached_property
    def model(self) -> str:
        """The model's name: the one asked for, else the gallery's own, else the default."""
        return self.config.model or read_meta(self.place, "model") or DEFAULT

    @cached_property
    def encoder(self) -> Encoder:
        return build_encoder(self.model, self.config.device, use=self.use.value)

    @cached_property
    def searcher(self) -> Searcher:
        store = self.store  # first: without an index there is no need to look for a model
        expander = build_expander(self.config, self.home)
        how = {name: getattr(self.config, name) for name in SEARCHING}
        tuned = load_tuned_params(self.config, self.encoder.info.space)
        return Searcher(self.encoder, store, expander, self._open_picture, **how, tuned=tuned)

    @cached_property
    def setup(self) -> Provenance:
        """What this gallery's searches depend on; as old as ``searcher``."""
        settings = {name: getattr(self.config, name) for name in (*SETTINGS, *OUTSIDE)}
        return Provenance(settings, lexicon_hashes(self.config, self.home), precision(self.model))

    def notice(self) -> None:
        """Take notice of rules and words that were edited, and of an index that was put in the
        place of this one; for a process that stays. (Searches see by themselves what an index run
        changes.) Costs a few microseconds."""
        words = tuple(_state(file) for file in lexicon_files(self.config, self.home))
        database = _state(self.home / DATABASE)
        place = database and database[:2]
        known, self._known = self._known, (words, place)
        if known is None or known == self._known:
            return
        if place and place != known[1]:
            self._store = None  # threads that search in the old one may end in peace
        self._forget_words()

    def _forget_words(self) -> None:
        """The next search reads rules and lexicon anew."""
        for name in ("searcher", "setup"):
            self.__dict__.pop(name, None)

    def _open_picture(self, path: str) -> Rgb:
        from soutu.images.decode import decode

        return decode(Path(path).expanduser(), max_pixels=self.config.max_pixels, name=path).rgb

    @property
    def store(self) -> VectorStore:
        """The opened index. Raises MissingIndex, or ModelMismatch where it holds no vectors
        of this gallery's model."""
        if self._store is None:
            self._require_index()
            card = self.encoder.info
            try:
                self._store = open_store(self.place, card.space)
            except ModelMismatch as fault:
                asked = {"model": self.model, "space": card.space, "folder": self.root}
                known = fault.fields["known"]
                raise ModelMismatch("gallery-model", known=known, **asked) from fault
        return self._store

    def _create_store(self, card: ModelInfo) -> VectorStore:
        """The index for writing; an address that was asked for is remembered."""
        store = create_store(self.place, card)
        if self.config.store:
            save_store_address(self.home, self.place)
        return store

    def _require_index(self) -> None:
        """Said before a model is looked for: without an index no model would help."""
        if read_meta(self.place, "root") is None:
            raise missing_index_error(self.place, self.root)

    def _check_root(self) -> None:
        """The folder can be listed, and the index is its own."""
        from soutu.images.scan import check_root

        if records := read_meta(self.place, RECORDS):
            raise BadInput("index-of-records", home=self.home, records=records)
        check_root(self.root)
        known = read_meta(self.place, "root")
        if not known or Path(known) == self.root:
            return
        if self.place != self.home:
            if not is_remembered(self.home, self.place):  # else the folder has been moved
                told = {"address": redacted(self.place), "known": known, "folder": self.root}
                raise BadInput("store-other-root", **told)
        elif self.home.parent != self.root:
            raise BadInput("index-other-root", home=self.home, known=known, folder=self.root)

    def _remembered_captions(self) -> Path | None:
        kept = read_meta(self.place, "captions_file")
        return self.root / kept if kept else None

    def _remember(self, captions: Path | None, encoding: str | None) -> None:
        """Written before the run, so that one that is stopped can be gone on with."""
        maintenance.remember(self.store, self.root, self.model, captions, encoding)

    @cached_property
    def _others(self) -> dict[str, Self]:
        return {}

    def with_model(self, name: str) -> Self:
        """This gallery as another model sees it, for as long as this one is open."""
        if name not in self._others:
            config = replace(self.config, model=name)
            self._others[name] = type(self)(self.root, self.home, config, self.use)
        return self._others[name]

    def close(self) -> None:
        while self._others:
            self._others.popitem()[1].close()
        if self._store is not None:
            self._store.close()
            self._store = None
        self._forget_words()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _state(file: Path) -> tuple[int, ...] | None:
    """What is another once ``file`` is another (its place on the disk first) or was written to."""
    try:
        known = file.stat()
    except OSError:
        return None
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns


# One query asked of several models: their rankings are fused by rank, as their scores cannot be
# compared.


RRF = "rrf"
DEPTH = 50  # places that count, at least


def fuse_models(results: Sequence[SearchResult], k: int) -> SearchResult:
    """The ``k`` best hits of ``results`` (of one gallery, a model each, ``DEPTH`` hits or more) by
    reciprocal rank. ``score`` is theirs; the rest of each hit, and of the result, is what the first
    model that has it said."""
    first = results[0]
    known: dict[int, Hit] = {}
    rankings = []
    for result in results:
        ids = np.array([hit.id for hit in result.hits], np.int64)
        rankings.append(Ranking(ids, np.array([hit.score for hit in result.hits], np.float32)))
        for hit in result.hits:
            known.setdefault(hit.id, hit)
    merged = reciprocal_rank(rankings)
    best = zip(merged.ids[:k].tolist(), merged.scores[:k].tolist(), strict=True)
    hits = tuple(
        replace(known[id_], rank=rank, score=score) for rank, (id_, score) in enumerate(best, 1)
    )
    return replace(first, hits=hits, ranked_by=RRF)


# Looking words up as a gallery's searches understand them, and adding one's own.


@dataclass(frozen=True)
class LexiconEntry:
    """``senses`` of a word that is known as a whole; else the ``words`` that a text was cut into
    and the English ``caption`` made of them ("" where nothing is known)."""

    senses: tuple[Sense, ...]
    words: tuple[str, ...]
    caption: str


def lookup_word(home: Path, text: str) -> LexiconEntry:
    file = user_lexicon(home)
    expander = LexiconExpander(load_lexicon(file) if file.is_file() else None)
    word, tokens = expander.understood(text)
    words = tuple(token.text for token in tokens)
    return LexiconEntry(expander.lexicon.lookup(word), words, gloss(tokens))


def add_user_word(home: Path, word: str, english: list[str]) -> Path:
    """Teach the gallery at ``home`` a word; returns the file it was written to."""
    file = user_lexicon(home)
    add_word(file, word, english)
    return file


# A gallery's part in replaying a log: searchers that are set as they were.


def replay_log(
    gallery: Opened,
    files: Sequence[Path],
    *,
    against: str | None = None,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """What ``Gallery.replay`` does."""
    lines = read_records(files)
    _ = gallery.searcher  # what is wrong with it is wrong for every line
    if against is None:
        with gallery.store.snapshot():
            return run(
                lines, GallerySearchers(gallery), _current_state(gallery), k=k, progress=progress
            )
    config = replace(gallery.config, model=against)
    with Opened(gallery.root, gallery.home, config) as other:
        _ = other.searcher
        done = compare(
            lines, GallerySearchers(gallery), GallerySearchers(other), k=k, progress=progress
        )
    return replace(done, against=against)


@dataclass
class GallerySearchers:
    """A gallery's searcher, set as it was for a logged search. What names a file, a folder or a
    server is never taken from a log: it may be somebody else's."""

    gallery: Opened
    _expanders: dict[tuple[object, ...], Expander | None] = field(default_factory=dict)

    def __call__(self, logged: LogRecord) -> Searcher:
        kept = {name: logged.settings[name] for name in SETTINGS if name in logged.settings}
        if (
            kept.get("fusion") == CHOSEN
        ):  # no setting: the variants are logged (``searchlog/replay.py``)
            del kept["fusion"]
        kept.setdefault("negatives", SUBTRACT)  # which is all that an older Soutu could
        config = merge_settings(self.gallery.config, kept, logged.place)
        words = config.expand, config.templates
        if words not in self._expanders:
            self._expanders[words] = build_expander(config, self.gallery.home)
        how = {name: getattr(config, name) for name in SEARCHING}
        return replace(self.gallery.searcher, expander=self._expanders[words], **how)


def _current_state(gallery: Opened) -> ReplayState:
    store, card = gallery.store, gallery.encoder.info
    kept = store.get_meta(BASELINE_KEY + card.space)
    named = baseline_from_json(kept).name if kept else ""
    return ReplayState(card, store.state(), named, gallery.setup, cache(store.changes))


# What is asked of a gallery: searches, their log, and their replay.


JOURNAL = "journal.jsonl"
KEY = "journal.key"


class Searching(Opened):
    """A gallery that is only read."""

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int | None = None,
        where: str | None = None,
        min_confidence: float | None = None,
        also: Sequence[str] = (),
    ) -> SearchResult:
        """The ``k`` pictures nearest to a query (a text, or several terms: ``灰猫 + 雪地``,
        ``query/parser.py``), or to a picture (a path, or RGB uint8 (h, w, 3)). Exactly one of the
        two must be given. ``where`` narrows the search: ``"folder = '2024' and width > 2000"``
        (its words: ``query/parser.py``). Where it is less sure than ``min_confidence`` (0 to 1)
        that
        anything like the text is there, there are no hits; None: as the settings say. ``also``:
        further models that the gallery was indexed with: their rankings of a text are fused with
        this one's (``gallery.py``); each search is logged by itself."""
        if (text is None) == (image is None):
            raise TypeError("search takes a text or an image")
        k = self.config.k if k is None else k
        if text is not None:
            searcher = self.searcher  # first: it says where there is no index
            sure = self.threshold(min_confidence)
            depth = max(k, DEPTH) if also else k
            found = searcher.search(text, depth, where=where, min_confidence=sure)
            found = self._logged(found)
            rest = [
                self.with_model(name).search(text, k=depth, where=where, min_confidence=sure)
                for name in also
            ]
            return fuse_models([found, *rest], k) if rest else found
        rgb, name = self._picture(image)
        return self._logged(self.searcher.search_by_image(rgb, name, k, where=where))

    def threshold(self, wished: float | None) -> float:
        """The confidence below which there are no hits: ``wished``, or as the settings say."""
        tuned = self.searcher.tuned.min_confidence
        known = (wished, self.config.min_confidence, tuned)
        return next(one for one in known if one is not None)

    def find(self, query: Query | Rgb, asking: SearchParams) -> SearchResult:
        """A search of a query in parts, or a picture, as ``asking`` says: page by page, with
        variants of one's own. Pages after the first are not logged: they are the same search."""
        if isinstance(query, Query):
            found = self.searcher.find(query, asking)
        else:
            found = self.searcher.find_by_image(query, self._picture(query)[1], asking)
        if asking.offset:
            return found
        others: dict[str, object] = {} if asking.expand else {"expand": False}
        if asking.variants is not None:
            others["fusion"] = CHOSEN
        return self._logged(found, **others)

    def explain(self, query: str | Query, *, k: int | None = None) -> Explanation:
        """Why a query finds what it finds by what the pictures show (captions have no say here);
        a search like any other, and logged."""
        from soutu.search.explain import explain

        plain = replace(self.searcher, hybrid="off")
        asked = parse_query(query) if isinstance(query, str) else query
        result = plain.find(asked, SearchParams(self.config.k if k is None else k))
        return explain(self._logged(result, hybrid="off"), self.encoder, self.store)

    def captions(self, image: str | Path | Rgb, *, k: int | None = None) -> SearchResult:
        """The ``k`` captions nearest to a picture (a path, or RGB uint8 (h, w, 3))."""
        rgb, name = self._picture(image)
        return self._logged(self.searcher.captions(rgb, name, self.config.k if k is None else k))

    def captions_of(self, path: str, *, k: int | None = None) -> SearchResult:
        """The ``k`` captions nearest to an indexed picture, by its path there."""
        return self._logged(self.searcher.captions_of(path, self.config.k if k is None else k))

    def _picture(self, image: str | Path | Rgb | None) -> tuple[Rgb, str]:
        if not isinstance(image, (str, Path)):
            assert image is not None
            return image, "(array)"
        return self._open_picture(str(image)), str(image)

    @property
    def journal(self) -> SearchLog:
        """Where searches are logged, and how."""
        config = self.config
        key = self.home / KEY if config.journal == "hashed" else None
        return SearchLog(self.home / JOURNAL, config.journal_bytes, config.journal_files, key)

    def replay(
        self,
        log: str | Path | None = None,
        *,
        against: str | None = None,
        k: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Replay:
        """Run the searches in ``log`` (None: this gallery's journal) again and compare, over the
        first ``k`` hits where that is given; or this gallery's model with ``against`` on them.
        Nothing is logged. Raises BadInput for a log that cannot be read."""

        self._require_index()
        files = self.journal.files() if log is None else [Path(log)]
        return replay_log(self, files, against=against, k=k, progress=progress)

    def _logged(self, result: SearchResult, **settings: object) -> SearchResult:
        """A search that cannot be logged (a read-only disk) is still an answer; the fault is
        kept for whoever shows it. ``settings``: those that were others than the gallery's."""
        if self.config.journal != "off":
            setup = replace(self.setup, settings={**self.setup.settings, **settings})
            try:
                self.journal.record(result, setup)
            except OSError as fault:
                self.journal_fault = fault
        return result


class Gallery(Searching):
    """``Gallery.open(folder)``, then ``index``, ``search`` and ``captions``."""

    def index(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_ray: OnRay | None = None,
    ) -> IndexReport:
        """Bring the index up to date with the folder. A captions file is remembered and read
        again by later calls without one. ``on_ray``: pictures are embedded there first."""
        from soutu.images.captions import read_captions
        from soutu.indexing.indexer import index_folder
        from soutu.indexing.pipeline import IndexOptions

        self._check_root()
        encoding = encoding or read_meta(self.place, "captions_encoding") or None
        file = absolute(Path(captions)) if captions else self._remembered_captions()
        gone = captions is None and file is not None and not file.is_file()
        # All that can be wrong with the captions is said before anything is written.
        read = read_captions(file, self.root, encoding=encoding) if file and not gone else None
        self.close()
        self._store = self._create_store(self.encoder.info)
        self._remember(file if captions else None, encoding)
        ready = on_ray.fill(self, self._store, progress) if on_ray else 0
        report = index_folder(
            self.root,
            self._store,
            self.encoder,
            captions=read,
            options=IndexOptions(
                self.config.workers or 0, self.config.batch or 0, self.config.max_pixels
            ),
            progress=progress,
        )
        report = replace(
            report,
            encoded=report.encoded + ready,
            unchanged=report.unchanged - ready,
            built=maintenance.refresh_derived(self._store, self.encoder, self.config),
        )
        if not gone:
            return report
        return replace(report, caption_problems=(BadCaptions("captions-gone", file=file),))

    def watch(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Event | None = None,
    ) -> Iterator[IndexReport | SoutuError]:
        """``index``, and again whenever a picture, a folder or the captions file has changed:
        the report of each run, or why it could not be done. While another process writes, it is
        tried again. Ends when ``stop`` is set. Raises MissingExtra without watchfiles."""
        from soutu.indexing.indexer import watch_changes

        self._check_root()
        file = absolute(Path(captions)) if captions else self._remembered_captions()
        due, told = True, ""
        for changed in watch_changes(self.root, ignored=self.home, captions=file, stop=stop):
            if not (due or changed):
                continue
            try:
                report = self.index(captions, encoding=encoding, progress=progress)
            except SoutuError as fault:
                due = fault.code == "index-locked"
                if fault.code != told:
                    yield fault
                told = fault.code if due else ""
            else:
                due, told = False, ""
                yield report

    def plan(self) -> FolderDiff:
        """What ``index`` would do now. Nothing is written, and no index is made."""
        from soutu.indexing.diff import dry_run

        self._check_root()
        if read_meta(self.place, "root") is None:
            return dry_run(self.root, None)
        try:
            with open_store(self.place, self.encoder.info.space) as store:
                return dry_run(self.root, store)
        except ModelMismatch:
            with open_store(self.place) as store:
                return dry_run(self.root, store, other_model=True)

    def import_embeddings(
        self,
        path: str | Path,
        *,
        form: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Index the embeddings in ``path`` (its format: ``exchange/formats.py``) without
        encoding anything. They are of the model that this gallery was opened with, or that a file
        there names. All rows are checked before anything is written."""
        from soutu.indexing.importer import check_embeddings, import_embeddings

        self._check_root()
        source, made = open_embeddings(Path(path), form, self.config.model)
        check_embeddings(source, made.info.dim)
        self.close()
        self.__dict__.pop("encoder", None)
        self.model = made.model
        self._store = self._create_store(made.info)
        self._remember(None, None)
        workers, dim = self.config.workers or 0, made.info.dim
        report = import_embeddings(
            self.root, self._store, source, dim, workers=workers, progress=progress
        )
        with suppress(Missing):  # without the model, codes are built by a run that has it
            maintenance.refresh_derived(self._store, self.encoder, self.config)
        return report

    def export_embeddings(self, folder: str | Path, *, form: str = "npy") -> ExportReport:
        """Write what is indexed into ``folder``, as "npy", "pt" or "parquet": the vectors of the
        model asked for, or of the one last indexed with. A folder that holds anything but an
        earlier export is refused."""
        from soutu.exchange.export import export_embeddings
        from soutu.exchange.npy import EmbeddingSource

        self._require_index()
        space = self.encoder.info.space if self.config.model else None
        with open_store(self.place, space) as store:
            return export_embeddings(
                store, Path(folder), form, EmbeddingSource(self.model, store.info)
            )

    def lookup(self, text: str) -> LexiconEntry:
        """What the lexicon, with the gallery's own words over it, makes of a text."""

        return lookup_word(self.home, text)

    def add_word(self, word: str, english: list[str]) -> Path:
        """Teach the gallery a word; returns the file that it was written to (BadConfig)."""

        self._require_index()
        self._forget_words()
        return add_user_word(self.home, word, english)

    def info(self) -> GalleryInfo:
        """What this gallery holds. Needs no model."""
        self._require_index()
        return maintenance.gallery_info(self.root, self.home, self.place, self.config)

    def compact(self) -> Compacted:
        """Give back the room of pictures, captions and vectors that are gone. Files that come
        back later are encoded again."""
        home = require_local(self.place, "compact")
        self._require_index()
        self.close()
        return maintenance.compact_gallery(home, self._encode, self.config)

    def doctor(self) -> HealthReport:
        """Check the index for damage. Raises MissingIndex. Needs no model."""
        home = require_local(self.place, "doctor")
        self.close()
        return maintenance.check_gallery(home)

    def rebuild(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RebuildReport:
        """Make the index anew from the pictures, whatever state it is in; see
        ``maintenance.rebuild_gallery``. A captions file is remembered, as by ``index``."""
        home = require_local(self.place, "index --rebuild")
        self.close()
        for name in ("model", "encoder"):
            self.__dict__.pop(name, None)
        file = absolute(Path(captions)) if captions else None
        report = maintenance.rebuild_gallery(
            self.root, home, self.config, captions=file, encoding=encoding, progress=progress
        )
        self.model = report.model
        return report

    def _encode(self, texts: Sequence[str]) -> Floats:
        return self.encoder.encode_texts(texts)
