"""A gallery that has been opened: where it is, which model it has, and its index."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import (
    DEFAULT,
    build_encoder,
    build_expander,
    build_tuned,
    create_store,
    is_remembered,
    no_index,
    open_store,
    place_of,
    precision,
    recall,
    remember_store,
    shown,
    word_files,
    word_prints,
)
from soutu.config import Config, load_config
from soutu.errors import BadInput, IndexCorrupt, ModelMismatch
from soutu.journal import Setup
from soutu.search import Searcher
from soutu.store.home import DATABASE, HOME, absolute, find_home

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from soutu.encoders.base import Encoder
    from soutu.store.base import VectorStore
    from soutu.types import ModelCard, Rgb


# What changes the answer to a query, beside the query.
SEARCHING = ("fusion", "correction", "hybrid", "negatives")  # of ``soutu.search.Searcher``
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

    def __init__(self, root: Path, home: Path, config: Config, use: Use = Use.SOME) -> None:
        self.root, self.home, self.config, self.use = root, home, config, use
        self.place = place_of(home, config)
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
        read-only folders; ``settings`` are those of ``soutu.config.Config``. ``use``: what the
        process is for."""
        start = absolute(Path(folder or "."))
        home = absolute(Path(index)) if index else find_home(start) or start / HOME
        flags = {**(settings or {}), **({"model": model} if model else {})}
        config, root = load_config(home, flags), start if index else home.parent
        if index and folder is None:
            with suppress(IndexCorrupt):  # which ``doctor`` must be able to open; others say it
                root = Path(recall(place_of(home, config), "root") or start)
        return cls(root, home, config, use)

    @cached_property
    def model(self) -> str:
        """The model's name: the one asked for, else the gallery's own, else the default."""
        return self.config.model or recall(self.place, "model") or DEFAULT

    @cached_property
    def encoder(self) -> Encoder:
        return build_encoder(self.model, self.config.device, use=self.use.value)

    @cached_property
    def searcher(self) -> Searcher:
        store = self.store  # first: without an index there is no need to look for a model
        expander = build_expander(self.config, self.home)
        how = {name: getattr(self.config, name) for name in SEARCHING}
        tuned = build_tuned(self.config, self.encoder.card.space)
        return Searcher(self.encoder, store, expander, self._open_picture, **how, tuned=tuned)

    @cached_property
    def setup(self) -> Setup:
        """What this gallery's searches depend on; as old as ``searcher``."""
        settings = {name: getattr(self.config, name) for name in (*SETTINGS, *OUTSIDE)}
        return Setup(settings, word_prints(self.config, self.home), precision(self.model))

    def notice(self) -> None:
        """Take notice of rules and words that were edited, and of an index that was put in the
        place of this one; for a process that stays. (Searches see by themselves what an index run
        changes.) Costs a few microseconds."""
        words = tuple(_state(file) for file in word_files(self.config, self.home))
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
        from soutu.sources.decode import decode

        return decode(Path(path).expanduser(), max_pixels=self.config.max_pixels, shown=path).rgb

    @property
    def store(self) -> VectorStore:
        """The opened index. Raises MissingIndex, or ModelMismatch where it holds no vectors
        of this gallery's model."""
        if self._store is None:
            self._require_index()
            card = self.encoder.card
            try:
                self._store = open_store(self.place, card.space)
            except ModelMismatch as fault:
                asked = {"model": self.model, "space": card.space, "folder": self.root}
                known = fault.fields["known"]
                raise ModelMismatch("gallery-model", known=known, **asked) from fault
        return self._store

    def _create_store(self, card: ModelCard) -> VectorStore:
        """The index for writing; an address that was asked for is remembered."""
        store = create_store(self.place, card)
        if self.config.store:
            remember_store(self.home, self.place)
        return store

    def _require_index(self) -> None:
        """Said before a model is looked for: without an index no model would help."""
        if recall(self.place, "root") is None:
            raise no_index(self.place, self.root)

    def _check_root(self) -> None:
        """The folder can be listed, and the index is its own."""
        from soutu.sources.images import check_root

        if records := recall(self.place, RECORDS):
            raise BadInput("index-of-records", home=self.home, records=records)
        check_root(self.root)
        known = recall(self.place, "root")
        if not known or Path(known) == self.root:
            return
        if self.place != self.home:
            if not is_remembered(self.home, self.place):  # else the folder has been moved
                told = {"address": shown(self.place), "known": known, "folder": self.root}
                raise BadInput("milvus-other-root", **told)
        elif self.home.parent != self.root:
            raise BadInput("index-other-root", home=self.home, known=known, folder=self.root)

    def _remembered_captions(self) -> Path | None:
        kept = recall(self.place, "captions_file")
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
