"""A gallery: a folder of pictures with its index, opened, brought up to date, searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from soutu import journal
from soutu.assemble import (
    DEFAULT,
    build_encoder,
    build_expander,
    create_store,
    open_store,
    recall,
)
from soutu.config import Config, load_config
from soutu.errors import BadCaptions, BadInput, IndexCorrupt, MissingIndex, ModelMismatch
from soutu.search import Searcher
from soutu.store.home import HOME, absolute, find_home
from soutu.types import IndexState, ModelCard, SearchResult

if TYPE_CHECKING:
    from types import TracebackType

    from soutu.doctor import Health
    from soutu.encoders.base import Encoder
    from soutu.indexing import IndexPlan, IndexReport
    from soutu.store.local import LocalStore
    from soutu.types import Rgb

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class GalleryInfo:
    """What ``soutu info`` shows."""

    root: Path
    home: Path
    model: ModelCard
    state: IndexState
    spaces: tuple[str, ...]
    captions_file: str
    bytes_on_disk: int


class Gallery:
    """``Gallery.open(folder)``, then ``index``, ``search`` and ``captions``.

    Usable as a context manager. Opening is cheap: the model is loaded by the first call
    that needs it.
    """

    def __init__(self, root: Path, home: Path, config: Config, *, once: bool = False) -> None:
        self.root, self.home, self.config, self.once = root, home, config, once
        self.journal_fault: OSError | None = None
        self._store: LocalStore | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        model: str | None = None,
        index: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        once: bool = False,
    ) -> Gallery:
        """The gallery of ``folder`` (None: of where we are): the one whose ``.soutu`` lies there
        or above, else a new one. ``index`` names another place for ``.soutu``'s content, for
        read-only folders; ``settings`` are those of ``soutu.config.Config``. ``once``: for a
        process that ends after one search; its model is ready sooner and works slower."""
        start = absolute(Path(folder or "."))
        if index is None:
            home = find_home(start) or start / HOME
            root = home.parent
        else:
            home, known = absolute(Path(index)), None
            with suppress(
                IndexCorrupt
            ):  # which ``doctor`` must be able to open; others will say it
                known = recall(home, "root")
            root = Path(known) if known and folder is None else start
        flags = {**(settings or {}), **({"model": model} if model else {})}
        return cls(root, home, load_config(home, flags), once=once)

    @cached_property
    def model(self) -> str:
        """The model's name: the one asked for, else the gallery's own, else the default."""
        return self.config.model or recall(self.home, "model") or DEFAULT

    @cached_property
    def encoder(self) -> Encoder:
        return build_encoder(self.model, self.config.device, once=self.once)

    @cached_property
    def searcher(self) -> Searcher:
        store = self.store  # first: without an index there is no need to look for a model
        return Searcher(self.encoder, store, build_expander(self.config, self.home))

    @property
    def store(self) -> LocalStore:
        """The opened index. Raises MissingIndex, or ModelMismatch where it holds no vectors
        of this gallery's model."""
        if self._store is None:
            self._require_index()
            card = self.encoder.card
            try:
                self._store = open_store(self.home, card.space)
            except ModelMismatch as fault:
                asked = {"model": self.model, "space": card.space, "folder": self.root}
                known = fault.fields["known"]
                raise ModelMismatch("gallery-model", known=known, **asked) from fault
        return self._store

    def _require_index(self) -> None:
        """Said before a model is looked for: without an index no model would help."""
        if recall(self.home, "root") is None:
            raise MissingIndex("index-missing", folder=self.root)

    def index(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Bring the index up to date with the folder. A captions file is remembered and read
        again by later calls without one."""
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
        report = index_folder(
            self.root,
            self._store,
            self.encoder,
            captions=read,
            pace=Pace(self.config.workers or 0, self.config.batch or 0, self.config.max_pixels),
            progress=progress,
        )
        if not gone:
            return report
        return replace(report, caption_problems=(BadCaptions("captions-gone", file=file),))

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

    def _check_root(self) -> None:
        """The folder can be listed, and the index is its own."""
        from soutu.sources.images import check_root

        check_root(self.root)
        known = recall(self.home, "root")
        if known and Path(known) != self.root and self.home.parent != self.root:
            raise BadInput("index-other-root", home=self.home, known=known, folder=self.root)

    def _remembered_captions(self) -> Path | None:
        kept = recall(self.home, "captions_file")
        return self.root / kept if kept else None

    def _remember(self, captions: Path | None, encoding: str | None) -> None:
        """Written before the run, so that one that is stopped can be gone on with."""
        name = str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model
        known = {"model": name, "root": str(self.root)}
        if captions:
            inside = captions.is_relative_to(self.root)
            # A gallery that is moved as a whole finds its captions again.
            file = captions.relative_to(self.root) if inside else captions
            known |= {"captions_file": file.as_posix(), "captions_encoding": encoding or ""}
        for key, value in known.items():
            if self.store.recall(key) != value:
                self.store.remember(key, value)

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int | None = None,
        where: str | None = None,
    ) -> SearchResult:
        """The ``k`` pictures nearest to a text, or to a picture (a path, or RGB uint8
        (h, w, 3)). Exactly one of the two must be given. ``where`` narrows the search:
        ``"folder = '2024' and width > 2000"`` (its words: ``query/where.py``)."""
        if (text is None) == (image is None):
            raise TypeError("search takes a text or an image")
        k = self.config.k if k is None else k
        if text is not None:
            return self._logged(self.searcher.search(text, k, where=where))
        rgb, name = self._picture(image)
        return self._logged(self.searcher.search_by_image(rgb, name, k, where=where))

    def captions(self, image: str | Path | Rgb, *, k: int | None = None) -> SearchResult:
        """The ``k`` captions nearest to a picture (a path, or RGB uint8 (h, w, 3))."""
        rgb, name = self._picture(image)
        return self._logged(self.searcher.captions(rgb, name, self.config.k if k is None else k))

    def _picture(self, image: str | Path | Rgb | None) -> tuple[Rgb, str]:
        if not isinstance(image, (str, Path)):
            assert image is not None
            return image, "(array)"
        from soutu.sources.decode import decode

        return decode(Path(image), max_pixels=self.config.max_pixels).rgb, str(image)

    def _logged(self, result: SearchResult) -> SearchResult:
        """A search that cannot be logged (a read-only disk) is still an answer; the fault is
        kept for whoever shows it."""
        if self.config.journal:
            try:
                journal.record(self.home / JOURNAL, result)
            except OSError as fault:
                self.journal_fault = fault
        return result

    def info(self) -> GalleryInfo:
        """What this gallery holds. Needs no model."""
        self._require_index()
        with open_store(self.home) as store:
            return GalleryInfo(
                root=self.root,
                home=self.home,
                model=store.card,
                state=store.state(),
                spaces=tuple(card.space for card in store.spaces()),
                captions_file=store.recall("captions_file") or "",
                bytes_on_disk=sum(p.stat().st_size for p in self.home.rglob("*") if p.is_file()),
            )

    def doctor(self, *, repair: bool = False) -> Health:
        """What is wrong with the index, and with ``repair`` what was done about it; one ``index``
        brings back what a repair could not keep. Raises MissingIndex, or IndexCorrupt where
        a repair is kept from writing. Needs no model."""
        from soutu.doctor import examine_gallery

        self.close()
        return examine_gallery(self.root, self.home, repair=repair)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        self.__dict__.pop("searcher", None)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
