"""What is asked of a gallery: searches, their log, and their replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.gallery.opened import Opened
from soutu.gallery.several import DEPTH, fused
from soutu.journal import Journal
from soutu.query.choose import CHOSEN
from soutu.query.parse import parse_query
from soutu.search import Asking
from soutu.types import Query, SearchResult

if TYPE_CHECKING:
    from soutu.gallery.explain import Explanation
    from soutu.replay import Replay
    from soutu.types import Rgb

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
            sure = self.threshold(min_confidence)
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

    def threshold(self, wished: float | None) -> float:
        """The confidence below which there are no hits: ``wished``, or as the settings say."""
        tuned = self.searcher.tuned.min_confidence
        known = (wished, self.config.min_confidence, tuned)
        return next(one for one in known if one is not None)

    def find(self, query: Query | Rgb, asking: Asking) -> SearchResult:
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
        from soutu.gallery.explain import explain

        plain = replace(self.searcher, hybrid="off")
        asked = parse_query(query) if isinstance(query, str) else query
        result = plain.find(asked, Asking(self.config.k if k is None else k))
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
