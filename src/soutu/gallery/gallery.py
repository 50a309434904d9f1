"""A gallery: a folder of pictures with its index, opened, brought up to date, searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import open_embeddings, open_store, recall, refuse_elsewhere
from soutu.errors import BadCaptions, Missing, ModelMismatch, SoutuError
from soutu.gallery import upkeep
from soutu.gallery.searching import Searching
from soutu.store.home import absolute

if TYPE_CHECKING:
    from threading import Event

    from soutu.doctor import Health
    from soutu.gallery.on_ray import OnRay
    from soutu.gallery.upkeep import GalleryInfo
    from soutu.gallery.words import Looked
    from soutu.indexing import IndexPlan, IndexReport
    from soutu.indexing.importing import ImportReport
    from soutu.store.compact import Compacted
    from soutu.store.exchange.export import ExportReport
    from soutu.types import Floats


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
        from soutu.indexing import Pace, index_folder
        from soutu.sources.captions import read_captions

        self._check_root()
        encoding = encoding or recall(self.place, "captions_encoding") or None
        file = absolute(Path(captions)) if captions else self._remembered_captions()
        gone = captions is None and file is not None and not file.is_file()
        # All that can be wrong with the captions is said before anything is written.
        read = read_captions(file, self.root, encoding=encoding) if file and not gone else None
        self.close()
        self._store = self._create_store(self.encoder.card)
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
        if recall(self.place, "root") is None:
            return plan_index(self.root, None)
        try:
            with open_store(self.place, self.encoder.card.space) as store:
                return plan_index(self.root, store)
        except ModelMismatch:
            with open_store(self.place) as store:
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
        self._store = self._create_store(made.card)
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
        with open_store(self.place, space) as store:
            return export_embeddings(store, Path(folder), form, Described(self.model, store.card))

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

    def info(self) -> GalleryInfo:
        """What this gallery holds. Needs no model."""
        self._require_index()
        return upkeep.info(self.root, self.home, self.place, self.config)

    def compact(self) -> Compacted:
        """Give back the room of pictures, captions and vectors that are gone. Files that come
        back later are encoded again."""
        home = refuse_elsewhere(self.place, "compact")
        self._require_index()
        self.close()
        return upkeep.compact(home, self._encode, self.config)

    def doctor(self, *, repair: bool = False) -> Health:
        """What is wrong with the index, and with ``repair`` what was done about it; one ``index``
        brings back what a repair could not keep. Raises MissingIndex, or IndexCorrupt where
        a repair is kept from writing. Needs no model."""
        from soutu.doctor import examine_gallery

        home = refuse_elsewhere(self.place, "doctor")
        self.close()
        health = examine_gallery(self.root, home, repair=repair)
        if repair:
            # Searches are exact until a run can build the codes.
            with suppress(SoutuError), open_store(self.place) as store:
                upkeep.refresh_codes(store, self._encode, self.config)
        return health

    def _encode(self, texts: Sequence[str]) -> Floats:
        return self.encoder.encode_texts(texts)
