"""A gallery: a folder of pictures with its index, opened, brought up to date, searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import create_store, open_embeddings, open_store, recall
from soutu.errors import BadCaptions, Missing, ModelMismatch, SoutuError
from soutu.gallery import upkeep
from soutu.gallery.opened import Opened
from soutu.gallery.several import DEPTH, fused
from soutu.journal import Journal
from soutu.store.home import absolute
from soutu.types import SearchResult

if TYPE_CHECKING:
    from threading import Event

    from soutu.doctor import Health
    from soutu.gallery.explain import Explanation
    from soutu.gallery.on_ray import OnRay
    from soutu.gallery.upkeep import GalleryInfo
    from soutu.gallery.words import Looked
    from soutu.indexing import IndexPlan, IndexReport
    from soutu.indexing.importing import ImportReport
    from soutu.replay import Replay
    from soutu.store.compact import Compacted
    from soutu.store.exchange.export import ExportReport
    from soutu.types import Floats, Rgb

JOURNAL = "journal.jsonl"
KEY = "journal.key"


class Gallery(Opened):
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
        from soutu.indexing import Pace, index_folder
        from soutu.sources.captions import read_captions

        self._check_root()
        encoding = encoding or recall(self.home, "captions_encoding") or None
        file = absolute(Path(captions)) if captions else self._remembered_captions()
        gone = captions is None and file is not None and not file.is_file()
        # All that can be wrong with the captions is said before anything is written.
        read = read_captions(file, self.root, encoding=encoding) if file and not gone else None
        self.close()
        self._store = create_store(self.home, self.encoder.card)
        self._remember(file if captions else None, encoding)
        ready = on_ray.fill(self, self._store, progress) if on_ray else 0
        report = index_folder(
            self.root,
            self._store,
            self.encoder,
            captions=read,
            pace=Pace(self.config.workers or 0, self.config.batch or 0, self.config.max_pixels),
            progress=progress,
        )
        report = replace(
            report,
            encoded=report.encoded + ready,
            unchanged=report.unchanged - ready,
            built=upkeep.refresh(self._store, self.encoder, self.config),
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
        from soutu.indexing import ticks

        self._check_root()
        file = absolute(Path(captions)) if captions else self._remembered_captions()
        due, told = True, ""
        for changed in ticks(self.root, ignored=self.home, also=file, stop=stop):
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

    def plan(self) -> IndexPlan:
        """What ``index`` would do now. Nothing is written, and no index is made."""
        from soutu.indexing import plan_index

        self._check_root()
        if recall(self.home, "root") is None:
            return plan_index(self.root, None)
        try:
            with open_store(self.home, self.encoder.card.space) as store:
                return plan_index(self.root, store)
        except ModelMismatch:
            with open_store(self.home) as store:
                return plan_index(self.root, store, other_model=True)

    def import_embeddings(
        self,
        path: str | Path,
        *,
        form: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Index the embeddings in ``path`` (its format: ``store/exchange/formats.py``) without
        encoding anything. They are of the model that this gallery was opened with, or that a file
        there names. All rows are checked before anything is written."""
        from soutu.indexing.importing import check_embeddings, import_embeddings

        self._check_root()
        source, made = open_embeddings(Path(path), form, self.config.model)
        check_embeddings(source, made.card.dim)
        self.close()
        self.__dict__.pop("encoder", None)
        self.model = made.model
        self._store = create_store(self.home, made.card)
        self._remember(None, None)
        workers, dim = self.config.workers or 0, made.card.dim
        report = import_embeddings(
            self.root, self._store, source, dim, workers=workers, progress=progress
        )
        with suppress(Missing):  # without the model, codes are built by a run that has it
            upkeep.refresh(self._store, self.encoder, self.config)
        return report

    def export_embeddings(self, folder: str | Path, *, form: str = "npy") -> ExportReport:
        """Write what is indexed into ``folder``, as "npy", "pt" or "parquet": the vectors of the
        model asked for, or of the one last indexed with. A folder that holds anything but an
        earlier export is refused."""
        from soutu.store.exchange.export import export_embeddings
        from soutu.store.features import Described

        self._require_index()
        space = self.encoder.card.space if self.config.model else None
        with open_store(self.home, space) as store:
            return export_embeddings(store, Path(folder), form, Described(self.model, store.card))

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
        ``query/parse.py``), or to a picture (a path, or RGB uint8 (h, w, 3)). Exactly one of the
        two must be given. ``where`` narrows the search: ``"folder = '2024' and width > 2000"``
        (its words: ``query/where.py``). Where it is less sure than ``min_confidence`` (0 to 1) that
        anything like the text is there, there are no hits; None: as the settings say. ``also``:
        further models that the gallery was indexed with: their rankings of a text are fused with
        this one's (``gallery/several.py``); each search is logged by itself."""
        if (text is None) == (image is None):
            raise TypeError("search takes a text or an image")
        k = self.config.k if k is None else k
        if text is not None:
            searcher = self.searcher  # first: it says where there is no index
            wished = (min_confidence, self.config.min_confidence, searcher.tuned.min_confidence)
            sure = next(one for one in wished if one is not None)
            depth = max(k, DEPTH) if also else k
            found = searcher.search(text, depth, where=where, min_confidence=sure)
            found = self._logged(found)
            rest = [
                self.with_model(name).search(text, k=depth, where=where, min_confidence=sure)
                for name in also
            ]
            return fused([found, *rest], k) if rest else found
        rgb, name = self._picture(image)
        return self._logged(self.searcher.search_by_image(rgb, name, k, where=where))

    def explain(self, text: str, *, k: int | None = None) -> Explanation:
        """Why a query finds what it finds by what the pictures show (captions have no say here);
        a search like any other, and logged."""
        from soutu.gallery.explain import explain

        plain = replace(self.searcher, hybrid="off")
        result = plain.search(text, self.config.k if k is None else k)
        return explain(self._logged(result, hybrid="off"), self.encoder, self.store)

    def lookup(self, text: str) -> Looked:
        """What the lexicon, with the gallery's own words over it, makes of a text."""
        from soutu.gallery.words import look_up

        return look_up(self.home, text)

    def add_word(self, word: str, english: list[str]) -> Path:
        """Teach the gallery a word; returns the file that it was written to (BadConfig)."""
        from soutu.gallery.words import add

        self._require_index()
        self._forget_words()
        return add(self.home, word, english)

    def captions(self, image: str | Path | Rgb, *, k: int | None = None) -> SearchResult:
        """The ``k`` captions nearest to a picture (a path, or RGB uint8 (h, w, 3))."""
        rgb, name = self._picture(image)
        return self._logged(self.searcher.captions(rgb, name, self.config.k if k is None else k))

    def _picture(self, image: str | Path | Rgb | None) -> tuple[Rgb, str]:
        if not isinstance(image, (str, Path)):
            assert image is not None
            return image, "(array)"
        return self._open_picture(str(image)), str(image)

    @property
    def journal(self) -> Journal:
        """Where searches are logged, and how."""
        config = self.config
        key = self.home / KEY if config.journal == "hashed" else None
        return Journal(self.home / JOURNAL, config.journal_bytes, config.journal_files, key)

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
        from soutu.gallery.replaying import replay

        self._require_index()
        files = self.journal.files() if log is None else [Path(log)]
        return replay(self, files, against=against, k=k, progress=progress)

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

    def info(self) -> GalleryInfo:
        """What this gallery holds. Needs no model."""
        self._require_index()
        return upkeep.info(self.root, self.home, self.config)

    def compact(self) -> Compacted:
        """Give back the room of pictures, captions and vectors that are gone. Files that come
        back later are encoded again."""
        self._require_index()
        self.close()
        return upkeep.compact(self.home, self._encode, self.config)

    def doctor(self, *, repair: bool = False) -> Health:
        """What is wrong with the index, and with ``repair`` what was done about it; one ``index``
        brings back what a repair could not keep. Raises MissingIndex, or IndexCorrupt where
        a repair is kept from writing. Needs no model."""
        from soutu.doctor import examine_gallery

        self.close()
        health = examine_gallery(self.root, self.home, repair=repair)
        if repair:
            # Searches are exact until a run can build the codes.
            with suppress(SoutuError), open_store(self.home) as store:
                upkeep.refresh_codes(store, self._encode, self.config)
        return health

    def _encode(self, texts: Sequence[str]) -> Floats:
        return self.encoder.encode_texts(texts)
