"""A gallery: a folder of pictures with its index, the façade of everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np

from soutu.errors import (
    BadImage,
    BadInput,
    BadQuery,
    IndexCorrupt,
    Missing,
    ModelMismatch,
    SoutuError,
)
from soutu.factory import (
    build_encoder,
    build_expander,
    is_remembered,
    lexicon_files,
    missing_index_error,
    redacted,
    require_local,
    save_store_address,
    store_location,
    store_type,
    user_lexicon,
)
from soutu.fs import DATABASE, HOME, absolute, check_home, expand_user, find_home, require_folder
from soutu.models.bundle import default_model
from soutu.query.expansion import CHOSEN, INHERITED
from soutu.query.parser import conditions, parse_query, parse_where
from soutu.search.calibration import BASELINE_KEY, baseline_from_json, load_tuned_params
from soutu.search.fusion import reciprocal_rank
from soutu.search.searcher import SUBTRACT, PreparedQuery, Searcher, SearchParams
from soutu.searchlog.record import Provenance, SearchLog
from soutu.settings import Settings, load_settings, merge_settings
from soutu.text import normalize, repair_text
from soutu.types import Hit, Query, Ranking, SearchResult

if TYPE_CHECKING:
    from threading import Event

    from PIL import Image
    from typing_extensions import Self

    from soutu.exchange.export import ExportReport
    from soutu.factory import StoreLocation, StoreType
    from soutu.images.exclude import Excludes
    from soutu.indexing.diff import FolderDiff
    from soutu.indexing.importer import ImportReport
    from soutu.indexing.indexer import IndexReport
    from soutu.indexing.pipeline import IndexOptions
    from soutu.maintenance import GalleryInfo, HealthReport, RebuildReport
    from soutu.models.base import Encoder
    from soutu.query.expansion import Expander
    from soutu.query.lexicon import Sense
    from soutu.search.explain import Explanation
    from soutu.searchlog.reader import LogRecord
    from soutu.searchlog.replay import Replay
    from soutu.store.base import VectorStore
    from soutu.store.sqlite.compact import CompactReport
    from soutu.types import Floats, ModelInfo, Rgb

    QueryLike = str | Path | Image.Image | np.ndarray[Any, Any]

# What changes the answer to a query, beside the query.
SEARCHER_SETTINGS = ("fusion", "correction", "hybrid", "negatives")
LOGGED_SETTINGS = ("expand", "templates", *SEARCHER_SETTINGS)
FILE_SETTINGS = ("translator", "llm", "llm_model", "expansions", "tuned")
RECORDS = "records"  # the key under which an index of tars or Parquet files keeps where they are
AGREES_KEY = "agrees:"  # with a model's fingerprint: its vectors were compared with the index
COMPARED, MIN_AGREEMENT = 3, 0.98  # pictures; int8 reaches 0.99, GELU for QuickGELU 0.95 to 0.97
LOG_FILE, LOG_KEY_FILE = "journal.jsonl", "journal.key"
ARRAY, VECTOR = "(array)", "(vector)"  # what is logged for a query that has no text or path
MOVED_SAMPLE = 100  # files that tell whether a folder is the one that was indexed
MAX_COMPARED = 20_000  # pictures whose names are compared with one that admits nothing
RRF, MIN_DEPTH = "rrf", 50  # hits of each model that are fused, at least

Mode = Literal["cli", "default", "server"]
"""What a process does with a gallery: one search, for which the model is ready sooner and works
slower; work of one thread; or searches of many threads, whose texts are encoded together."""


@dataclass(frozen=True)
class LexiconEntry:
    """What the lexicon knows of a text.

    ``senses`` of a word that is known as a whole; else the ``words`` that the text was cut into
    and the English ``caption`` made of them ("" where nothing is known).
    """

    senses: tuple[Sense, ...]
    words: tuple[str, ...]
    caption: str


class Engine(Protocol):
    """What may embed a gallery's pictures in place of this process, such as Ray."""

    def embed_folder(
        self,
        gallery: Gallery,
        store: VectorStore,
        options: IndexOptions,
        progress: Callable[[int, int], None] | None,
    ) -> int:
        """Embed into ``store`` what it lacks; return how many pictures were added."""
        ...


class Gallery:
    """A folder of pictures with its index.

    Opening is cheap: the model is loaded by the first call that needs it. Usable as a context
    manager.

    Examples
    --------
    >>> with Gallery.open("photos") as gallery:  # doctest: +SKIP
    ...     gallery.index()
    ...     for hit in gallery.search("灰猫", k=3):
    ...         print(hit.score, hit.path, hit.caption)
    """

    def __init__(
        self,
        root: Path,
        home: Path,
        settings: Settings,
        mode: Mode = "default",
        *,
        encoder: Encoder | None = None,
        store: VectorStore | None = None,
        expanders: Sequence[Expander] | None = None,
    ) -> None:
        self.root, self.home, self.settings, self.mode = root, home, settings, mode
        self.log_error: OSError | None = None
        self._own_encoder, self._own_store, self._own_expanders = encoder, store, expanders
        self._store: VectorStore | None = store
        self._signature: tuple[object, object] | None = None
        self._other_models: dict[str, Gallery] = {}

    # --- opening and closing ----------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        model: str | None = None,
        index: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        mode: Mode = "default",
        encoder: Encoder | None = None,
        store: VectorStore | None = None,
        expanders: Sequence[Expander] | None = None,
    ) -> Self:
        """Open the gallery of ``folder`` (None: of the working directory).

        It is the one whose ``.soutu`` lies there or above, else a new one.

        Parameters
        ----------
        model
            Name of a model or folder of a bundle; None: the gallery's own, or the default.
        index
            Another place for the content of ``.soutu``, for read-only folders.
        settings
            Fields of ``soutu.settings.Settings``, over environment and files.
        mode
            What the process is for.
        encoder, store, expanders
            Objects of one's own that follow the Protocols ``soutu.models.base.Encoder``,
            ``soutu.store.base.VectorStore`` and ``soutu.query.expansion.Expander``; expanders take
            the place of rules and lexicon. ``soutu.testing`` has the contracts they must keep.

        Raises
        ------
        BadConfig
            For settings that are wrong.
        BadInput
            For a folder that is not there.
        """
        start = absolute(expand_user(folder or "."))
        if folder and not index and store is None:
            require_folder(start)  # else a misspelt folder would mean the gallery above it
        home = absolute(expand_user(index)) if index else find_home(start) or start / HOME
        check_home(home)
        flags = {**(settings or {}), **({"model": model} if model else {})}
        loaded, root = load_settings(home, flags), start if index else home.parent
        if index and folder is None:
            with suppress(IndexCorrupt):  # which ``doctor`` must be able to open; others raise it
                location = store_location(home, loaded)
                root = Path(store_type(location).read_meta(location, "root") or start)
        return cls(root, home, loaded, mode, encoder=encoder, store=store, expanders=expanders)

    def close(self) -> None:
        """Close the index; the gallery can be used again."""
        while self._other_models:
            self._other_models.popitem()[1].close()
        self._forget_searcher()
        if self._store is not None and self._own_store is None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Self:
        """Return the gallery."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the gallery."""
        self.close()

    def __repr__(self) -> str:
        """Name the folder and the model."""
        return f"<Gallery {str(self.root)!r}, model {self.model!r}>"

    @cached_property
    def model(self) -> str:
        """The model's name: the one asked for, else the gallery's own, else ``default_model()``."""
        if self._own_encoder is not None:
            return self._own_encoder.info.name
        return self.settings.model or self._get_meta("model") or default_model()

    @property
    def exists(self) -> bool:
        """Whether there is an index."""
        return self._get_meta("root") is not None

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded by the first use."""
        return self._own_encoder or build_encoder(
            self.model, self.settings.device, mode=self.mode, pictures=self.root
        )

    @cached_property
    def location(self) -> StoreLocation:
        """Where rows and vectors are: a folder, or the address of a store elsewhere."""
        return store_location(self.home, self.settings)

    @cached_property
    def _store_type(self) -> StoreType:
        return store_type(self.location)

    @property
    def store(self) -> VectorStore:
        """The opened index.

        Raises
        ------
        MissingIndex
            If there is none.
        ModelMismatch
            If it holds no vectors of this gallery's model.
        """
        if self._store is None:
            self._require_index()
            info = self.encoder.info
            try:
                store = self._store_type.open(self.location, info.space)
            except ModelMismatch as error:
                known = error.fields["known"]
                raise ModelMismatch(
                    "gallery-model",
                    known=known,
                    model=self.model,
                    space=info.space,
                    folder=self.root,
                ) from error
            try:
                self._check_vectors(store)
            except BaseException:
                store.close()
                raise
            self._store = store
        return self._store

    def _check_vectors(self, store: VectorStore) -> None:
        """Compare vectors of a few pictures with what this gallery's model makes of them now.

        The same weights in another precision agree; a graph that was exported with another
        activation does not, though it was installed under the same name. Once for each model.

        Raises
        ------
        ModelMismatch
            Where they do not agree.
        """
        info = self.encoder.info
        key = f"{AGREES_KEY}{info.fingerprint}"
        if store.info.fingerprint == info.fingerprint or store.get_meta(key):
            return
        with store.snapshot():
            ids = store.search_images(np.eye(1, info.dim, dtype=np.float32)[0], COMPARED).ids
            rows, vectors = store.images(ids.tolist()), store.image_vectors(ids.tolist())
        cosines = []
        for row, vector in zip(rows, vectors, strict=True):
            with suppress(BadImage, IndexError, OSError):  # gone, damaged, or without a path
                image = self._open_image(str(self.root / row.paths[0]))
                cosines.append(float(vector @ self.encoder.encode_images([image])[0]))
        if not cosines:
            return
        if (cosine := float(np.median(cosines))) < MIN_AGREEMENT:
            raise ModelMismatch(
                "gallery-graph", model=self.model, folder=self.root, cosine=f"{cosine:.3f}"
            )
        with suppress(SoutuError, OSError):  # an index that cannot be written is compared again
            store.set_meta(key, "yes")

    def _check_present_vectors(self, space: str) -> None:
        if not self.exists:
            return
        try:
            store = self._store_type.open(self.location, space)
        except ModelMismatch:  # none of this space yet
            return
        with store:
            self._check_vectors(store)

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher as the settings want it."""
        store = self.store  # first: without an index there is no need to look for a model
        options = {name: getattr(self.settings, name) for name in SEARCHER_SETTINGS}
        tuned = load_tuned_params(self.settings, self.encoder)
        own = self._own_expanders
        expander = build_expander(self.settings, self.home, weights=tuned.weights, own=own)
        confidence = self.settings.min_confidence
        return Searcher(
            self.encoder,
            store,
            expander,
            self._open_image,
            **options,
            tuned=tuned,
            min_confidence=tuned.min_confidence if confidence is None else confidence,
        )

    @cached_property
    def provenance(self) -> Provenance:
        """What this gallery's searches depend on; as old as ``searcher``."""
        names = (*LOGGED_SETTINGS, *FILE_SETTINGS)
        settings = {name: getattr(self.settings, name) for name in names}
        hashes = getattr(self.searcher.expander, "word_hashes", {})
        return Provenance(settings, hashes, getattr(self.encoder, "precision", {}))

    @cached_property
    def _word_files(self) -> tuple[Path, ...]:
        return lexicon_files(self.settings, self.home)

    def reload_if_changed(self) -> None:
        """Notice edited rules and words, and an index that replaced this one.

        For a process that stays; costs a few microseconds. What an index run changes, searches
        see by themselves.
        """
        database = _file_signature(self.home / DATABASE)
        words = tuple(_file_signature(file) for file in self._word_files)
        place = database and database[:2]
        known, self._signature = self._signature, (words, place)
        if known is None or known == self._signature:
            return
        if place and place != known[1] and self._own_store is None:
            self._store = None  # threads that search in the old one may end in peace
        self._forget_searcher()

    def with_model(self, name: str) -> Gallery:
        """Return this gallery as another model sees it, for as long as this one is open."""
        if name not in self._other_models:
            settings = replace(self.settings, model=name)
            self._other_models[name] = Gallery(self.root, self.home, settings, self.mode)
        return self._other_models[name]

    # --- searching --------------------------------------------------------------------------

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a Sequence of str
        self,
        query: QueryLike | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int | None = None,
        where: str | None = None,
        min_confidence: float | None = None,
        also: Sequence[str] = (),
    ) -> SearchResult: ...
    @overload
    def search(
        self,
        query: Sequence[QueryLike],
        *,
        k: int | None = None,
        where: str | None = None,
        min_confidence: float | None = None,
    ) -> list[SearchResult]: ...
    def search(
        self,
        query: QueryLike | Sequence[QueryLike] | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int | None = None,
        where: str | None = None,
        min_confidence: float | None = None,
        also: Sequence[str] = (),
    ) -> SearchResult | list[SearchResult]:
        """Find the ``k`` pictures nearest to a query; each search is logged.

        Parameters
        ----------
        query
            Text (one term or several: ``灰猫 + 雪地``, see ``query/parser.py``), a ``Path`` of a
            picture, a PIL image, an RGB array uint8 (h, w, 3), a vector float32 (dim,); or a list
            of these, which are encoded in one batch and give a list of results.
        image
            A picture by path or as an RGB array, instead of ``query``.
        k
            Number of hits; None: as the settings say.
        where
            A filter: ``"folder = '2024' and width > 2000"``.
        min_confidence
            No hits where it is less sure (0 to 1) that anything like the text is there; None: as
            the settings say.
        also
            Further models that the gallery was indexed with: the rankings of a text are fused by
            reciprocal rank.

        Raises
        ------
        BadQuery, BadImage, MissingIndex, ModelMismatch
        """
        if (query is None) == (image is None):
            raise TypeError("search takes a query or an image")
        params = SearchParams(self.settings.k if k is None else k, 0, where, min_confidence)
        if image is not None:
            query = Path(image) if isinstance(image, str) else image
        if isinstance(query, str):
            if also:
                return self._search_models(query, params, also)
            return self._log(self.searcher.search_query(parse_query(query), params))
        if isinstance(query, Sequence):
            return self._search_batch(query, params)
        assert query is not None
        return self._search_picture(query, params)

    def search_query(self, query: Query | Rgb, params: SearchParams) -> SearchResult:
        """Search for a parsed query, or a picture as an RGB array, page by page.

        Pages after the first are not logged: they are the same search.
        """
        if not isinstance(query, Query):
            return self._search_picture(query, params)
        return self.run(self.searcher.prepare(query, params))

    def run(self, prepared: PreparedQuery, picture: Rgb | None = None) -> SearchResult:
        """Search for a query that ``searcher.prepare`` prepared, as ``search_query`` does.

        ``picture`` is what its terms of kind "image" stand for, where that is no file.
        """
        searcher, params = self.searcher, prepared.params
        if picture is not None:
            searcher = replace(searcher, open_image=lambda _: picture)
        result = searcher.run(prepared)
        if params.offset or not params.log:
            return result
        changed: dict[str, object] = {} if params.expand else {"expand": False}
        if params.variants is not None:
            changed["fusion"] = CHOSEN
        return self._log(result, **changed)

    def captions(
        self, image: str | Path | Rgb, *, k: int | None = None, log: bool = True
    ) -> SearchResult:
        """Find the ``k`` captions nearest to a picture: a path, or RGB uint8 (h, w, 3)."""
        rgb, name = self._load_image(Path(image) if isinstance(image, str) else image)
        result = self.searcher.captions(rgb, name, self.settings.k if k is None else k)
        return self._log(result) if log else result

    def captions_of(self, path: str, *, k: int | None = None, log: bool = True) -> SearchResult:
        """Find the ``k`` captions nearest to an indexed picture, by its path there."""
        result = self.searcher.captions_of(path, self.settings.k if k is None else k)
        return self._log(result) if log else result

    def explain(self, query: str | Query, *, k: int | None = None, log: bool = True) -> Explanation:
        """Explain why a query finds what it finds by the vectors alone; logged as a search."""
        from soutu.search.explain import explain

        searcher = replace(self.searcher, hybrid="off")
        parsed = parse_query(query) if isinstance(query, str) else query
        params = SearchParams(self.settings.k if k is None else k, min_confidence=0.0)
        result = searcher.search_query(parsed, params)
        if log:
            result = self._log(result, hybrid="off")
        return explain(result, self.encoder, self.store)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts as they stand, float32 (n, dim), unit rows. Needs no index."""
        return self.encoder.encode_texts(list(texts))

    def encode_images(self, images: Sequence[str | Path | Image.Image | Rgb]) -> Floats:
        """Encode pictures (paths, PIL images or RGB arrays), float32 (n, dim), unit rows."""
        loaded = [self._load_image(Path(i) if isinstance(i, str) else i)[0] for i in images]
        return self.encoder.encode_images(loaded)

    def vectors(self) -> tuple[list[str], Floats]:
        """Return the paths of all indexed pictures and their vectors, float32 (n, dim)."""
        store = self.store
        with store.snapshot():
            missing = set(store.images_without_vector())
            files = [file for file in store.files().values() if file.image_id not in missing]
            files.sort(key=lambda file: file.path)
            return [f.path for f in files], store.image_vectors([f.image_id for f in files])

    def nearest_names(self, where: str) -> list[str]:
        """Return folders and names of indexed pictures that are most like those in a filter.

        For a filter that admits nothing; at most three for each name in it.
        """
        from difflib import get_close_matches  # which only mistakes need

        from soutu.images.scan import nfc

        named = [part for part in conditions(parse_where(where)) if part.operator == "="]
        named = [part for part in named if part.field in ("folder", "name", "path")]
        paths = self.store.files() if named else {}
        near: dict[str, None] = {}
        for part in named:
            names = {
                name: None
                for path in islice(paths, MAX_COMPARED)
                for name in _parts(path, part.field)
            }
            by_form = {nfc(name).casefold(): name for name in names}
            form = nfc(str(part.value)).casefold().strip("/")
            # A folder or file is often named without the folders above it.
            matches = [other for other in by_form if other.endswith(f"/{form}")]
            matches += get_close_matches(form, by_form, 3, 0.6)
            for match in list(dict.fromkeys(matches))[:3]:
                name = by_form[match].replace("'", "''")
                near[f"{part.field} = '{name}'"] = None
        return [*near]

    def _search_batch(
        self, queries: Sequence[QueryLike], params: SearchParams
    ) -> list[SearchResult]:
        searcher = self.searcher
        texts = [i for i, query in enumerate(queries) if isinstance(query, str)]
        images = [i for i, query in enumerate(queries) if i not in set(texts)]
        vectors: dict[int, Floats] = {}
        pictures: dict[int, Rgb] = {}
        names: dict[int, str] = {}
        for i in images:
            query = queries[i]
            assert not isinstance(query, str)
            if isinstance(query, np.ndarray) and query.ndim == 1:
                vectors[i], names[i] = self._unit(query), VECTOR
            else:
                pictures[i], names[i] = self._load_image(query)
        rows = self.encoder.encode_images(list(pictures.values()))
        vectors |= zip(pictures, rows, strict=True)
        prepared = [searcher.prepare(parse_query(str(queries[i])), params) for i in texts]
        results = dict(zip(texts, searcher.run_batch(prepared), strict=True))
        for i, vector in vectors.items():
            results[i] = searcher.search_vector(vector, names[i], params)
        return [self._log(results[i]) for i in range(len(queries))]

    def _search_models(self, text: str, params: SearchParams, also: Sequence[str]) -> SearchResult:
        deeper = replace(params, k=max(params.k, MIN_DEPTH))
        results = [self._log(self.searcher.search_query(parse_query(text), deeper))]
        for name in also:
            other = self.with_model(name)
            results.append(other._log(other.searcher.search_query(parse_query(text), deeper)))
        return fuse_models(results, params.k)

    def _search_picture(
        self, image: Path | Image.Image | np.ndarray[Any, Any], params: SearchParams
    ) -> SearchResult:
        searcher = self.searcher
        if isinstance(image, np.ndarray) and image.ndim == 1:
            result = searcher.search_vector(self._unit(image), VECTOR, params)
        else:
            result = searcher.search_by_image(*self._load_image(image), params)
        return self._log(result) if params.log and not params.offset else result

    def _load_image(self, image: Path | Image.Image | np.ndarray[Any, Any]) -> tuple[Rgb, str]:
        """Return a picture as RGB uint8 (h, w, 3), and the name that is logged for it."""
        if isinstance(image, Path):
            return self._open_image(str(image)), str(image)
        from soutu.images.decode import load_rgb

        return load_rgb(image, max_pixels=self.settings.max_pixels), ARRAY

    def _open_image(self, path: str) -> Rgb:
        from soutu.images.decode import decode

        return decode(expand_user(path), max_pixels=self.settings.max_pixels, name=path).rgb

    def _unit(self, vector: np.ndarray[Any, Any]) -> Floats:
        unit: Floats = np.asarray(vector, np.float32)
        norm = float(np.linalg.norm(unit))
        dim = self.encoder.info.dim
        if unit.shape != (dim,) or not np.isfinite(norm) or norm == 0:
            raise BadQuery("query-vector", shape=unit.shape, dim=dim)
        scaled: Floats = unit / np.float32(norm)
        return scaled

    def _forget_searcher(self) -> None:
        """Let the next search read rules and lexicon again."""
        for name in ("searcher", "provenance"):
            self.__dict__.pop(name, None)

    # --- the search log ---------------------------------------------------------------------

    @property
    def search_log(self) -> SearchLog:
        """Where searches are logged, and how."""
        settings = self.settings
        key = self.home / LOG_KEY_FILE if settings.journal == "hashed" else None
        file = self.home / LOG_FILE
        return SearchLog(file, settings.journal_bytes, settings.journal_files, key)

    def replay(
        self,
        log: str | Path | None = None,
        *,
        against: str | None = None,
        k: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Replay:
        """Run logged searches again and compare; nothing is logged.

        Parameters
        ----------
        log
            A log file; None: this gallery's log.
        against
            Compare this gallery's model with another one on the logged queries instead.
        k
            Compare the first ``k`` hits.
        progress
            Called with the number of lines done.

        Raises
        ------
        BadInput
            For a log that cannot be read.
        """
        from soutu.searchlog.reader import read_records
        from soutu.searchlog.replay import ReplayState, compare, replay

        own_log = self.search_log
        _ = self.searcher  # what is wrong with it is wrong for every line
        records = read_records(own_log.files() if log is None else [Path(log)])
        own = _LogSearchers(self)
        if against is None:
            store, info, provenance = self.store, self.encoder.info, self.provenance
            with store.snapshot():
                stored, state = store.get_meta(BASELINE_KEY + info.space), store.state()
                baseline = baseline_from_json(stored).name if stored else ""
                now = ReplayState(info, state, baseline, provenance, cache(store.changes))
                return replay(records, own, now, k=k, progress=progress)
        settings = replace(self.settings, model=against)
        with Gallery(self.root, self.home, settings) as other:
            _ = other.searcher
            report = compare(records, own, _LogSearchers(other), k=k, progress=progress)
        return replace(report, against=against)

    def _log(self, result: SearchResult, **changed: object) -> SearchResult:
        """Log a search; ``changed`` are settings that differ from the gallery's.

        A search that cannot be logged (a read-only disk) is still an answer; the error is kept for
        whoever shows it.
        """
        result = replace(result, root=self.root)
        if self.settings.journal != "off":
            log, provenance = self.search_log, self.provenance
            settings = {**provenance.settings, **changed}
            try:
                log.record(result, replace(provenance, settings=settings))
            except OSError as error:
                self.log_error = error
        return result

    # --- indexing ---------------------------------------------------------------------------

    def index(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        retry: bool = False,
        rehash: bool = False,
        exclude: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
        engine: Engine | None = None,
    ) -> IndexReport:
        """Bring the index up to date with the folder.

        Parameters
        ----------
        captions
            A captions file; it is remembered and read again by later calls without one.
        encoding
            Of the captions file.
        retry
            Read also files that could not be read before and have not changed since.
        rehash
            Read every file, and not only those that look changed; what is encoded is the same.
        exclude
            Patterns, in the form of ``.gitignore``, of what this run leaves out, beside what the
            settings and ``.soutuignore`` files exclude. What is indexed already leaves the index;
            a run without them brings it back without encoding it.
        progress
            Called with the pictures done and in all.
        engine
            Embeds the pictures first, in place of this process.
        """
        from soutu.images.captions import load_captions
        from soutu.indexing.baseline import refresh_derived
        from soutu.indexing.indexer import index_folder

        self._check_root()
        given = absolute(expand_user(captions)) if captions else None
        known = {name: self._get_meta(name) for name in ("captions_file", "captions_encoding")}
        options = self._index_options(retry=retry or rehash, rehash=rehash, exclude=exclude)
        # All that can be wrong with the captions is raised before anything is written.
        loaded = load_captions(self.root, given, encoding, known)
        store = self._create_store(self.encoder.info, loaded.file, loaded.encoding)
        embedded = engine.embed_folder(self, store, options, progress) if engine else 0
        report = index_folder(
            self.root, store, self.encoder, captions=loaded.rows, options=options, progress=progress
        )
        return replace(
            report,
            encoded=report.encoded + embedded,
            unchanged=report.unchanged - embedded,
            built=refresh_derived(store, self.encoder, self.settings),
            other_files=_without(report.other_files, given or self._captions_file(), self.root),
            caption_problems=(*report.caption_problems, *loaded.problems),
            notes=(*report.notes, *loaded.notes),
        )

    def add(
        self,
        paths: Sequence[str | Path],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Index these pictures, without looking at the rest of the folder.

        Parameters
        ----------
        paths
            Absolute, or relative to the folder.
        progress
            Called with the pictures done and in all.

        Raises
        ------
        BadInput
            For a path outside the folder, or one that is no picture's.
        """
        from soutu.images.scan import ImageFile, walk
        from soutu.indexing.baseline import refresh_derived
        from soutu.indexing.indexer import index_folder

        self._check_root()
        only, excludes = self._relative_paths(paths), self._excludes()
        entries = walk(self.root, excludes=excludes)
        pictures = {entry.path for entry in entries if isinstance(entry, ImageFile)}
        if missing := next((path for path in only if path not in pictures), None):
            code = "add-excluded" if excludes.covers(missing) else "add-no-picture"
            raise BadInput(code, path=missing, folder=self.root)
        store, settings = self._create_store(self.encoder.info), self.settings
        options = self._index_options(retry=True)
        report = index_folder(
            self.root, store, self.encoder, options=options, only=only, progress=progress
        )
        return replace(report, built=refresh_derived(store, self.encoder, settings))

    def _excludes(self, run: Sequence[str] = ()) -> Excludes:
        from soutu.images.exclude import Excludes

        return Excludes(self.settings.exclude, run, self.root)

    def _index_options(
        self, *, retry: bool, rehash: bool = False, exclude: Sequence[str] = ()
    ) -> IndexOptions:
        from soutu.indexing.pipeline import IndexOptions

        settings = self.settings
        return IndexOptions(
            settings.workers or 0,
            settings.batch or 0,
            settings.max_pixels,
            retry=retry,
            rehash=rehash,
            excludes=self._excludes(exclude),
        )

    def remove(self, paths: Sequence[str | Path]) -> int:
        """Forget these pictures; return how many were indexed.

        Files are left alone, and the next ``index`` finds those that are still there.
        """
        known = self.store.files()
        indexed = [path for path in self._relative_paths(paths) if path in known]
        if indexed:
            with self.store.writer() as writer:
                writer.detach(indexed)
        return len(indexed)

    def watch(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        retry: bool = False,
        rehash: bool = False,
        exclude: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
        stop: Event | None = None,
    ) -> Iterator[IndexReport | SoutuError]:
        """Index now and whenever a picture, a folder or the captions file changes.

        Yields the report of each run, or why it failed. While another process writes, the run is
        tried again. Ends when ``stop`` is set. The rest is as for ``index``; ``retry`` and
        ``rehash`` are for the first run.

        Raises
        ------
        MissingExtra
            Without watchfiles.
        """
        from soutu.indexing.indexer import watch_changes

        self._check_root()
        file = absolute(expand_user(captions)) if captions else self._captions_file()
        due, last_error = True, ""
        for changed in watch_changes(self.root, ignored=self.home, captions=file, stop=stop):
            if isinstance(changed, SoutuError):
                yield changed
                continue
            if not (due or changed):
                continue
            try:
                report = self.index(
                    captions,
                    encoding=encoding,
                    retry=retry,
                    rehash=rehash,
                    exclude=exclude,
                    progress=progress,
                )
            except SoutuError as error:
                due = error.code == "index-locked"
                if error.code != last_error:
                    yield error
                last_error = error.code if due else ""
            else:
                due, last_error = False, ""
                captions = encoding = None  # which are remembered now
                retry = rehash = False
                yield report

    def plan(
        self, *, retry: bool = False, rehash: bool = False, exclude: Sequence[str] = ()
    ) -> FolderDiff:
        """Return what ``index`` would do now. Nothing is written, and no index is made."""
        from soutu.indexing.diff import dry_run

        self._check_root()
        options = self._index_options(retry=retry or rehash, rehash=rehash, exclude=exclude)
        if self._get_meta("root") is None:
            return dry_run(self.root, None, options=options)
        try:
            with self._store_type.open(self.location, self.encoder.info.space) as store:
                changes = dry_run(self.root, store, options=options)
        except ModelMismatch:
            with self._store_type.open(self.location) as store:
                changes = dry_run(self.root, store, other_model=True, options=options)
        others = changes.omissions.other_files
        changes.omissions.other_files = _without(others, self._captions_file(), self.root)
        return changes

    def import_embeddings(
        self,
        path: str | Path,
        *,
        form: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Index embeddings from files without encoding anything.

        They are of the model that this gallery was opened with, or that a file there names. All
        rows are checked before anything is written. Formats: ``soutu.exchange``.
        """
        from soutu.factory import open_embeddings
        from soutu.indexing.baseline import refresh_derived
        from soutu.indexing.importer import check_embeddings, import_embeddings

        self._check_root()
        embeddings, source = open_embeddings(Path(path), form, self.settings.model)
        dim = source.info.dim
        check_embeddings(embeddings, dim)
        self.close()
        self.__dict__.pop("encoder", None)
        self.model = source.model
        store = self._create_store(source.info)
        report = import_embeddings(
            self.root,
            store,
            embeddings,
            dim,
            workers=self.settings.workers or 0,
            excludes=self._excludes(),
            progress=progress,
        )
        with suppress(Missing):  # without the model, codes are built by a run that has it
            refresh_derived(store, self.encoder, self.settings)
        return report

    def export_embeddings(self, folder: str | Path, *, form: str = "npy") -> ExportReport:
        """Write what is indexed into ``folder``, as "npy", "pt" or "parquet".

        The vectors are those of the model asked for, or of the one last indexed with. A folder
        that holds anything but an earlier export is refused.
        """
        from soutu.exchange.export import export_embeddings
        from soutu.exchange.npy import EmbeddingSource

        self._require_index()
        space = self.encoder.info.space if self.settings.model else None
        with self._store_type.open(self.location, space) as store:
            source = EmbeddingSource(self.model, store.info)
            return export_embeddings(store, Path(folder), form, source)

    def _relative_paths(self, paths: Sequence[str | Path]) -> list[str]:
        relative = []
        for path in paths:
            file = absolute(self.root / path)
            if not file.is_relative_to(self.root):
                raise BadInput("add-no-picture", path=path, folder=self.root)
            relative.append(file.relative_to(self.root).as_posix())
        return relative

    def _create_store(
        self, info: ModelInfo, captions: Path | None = None, encoding: str | None = None
    ) -> VectorStore:
        """Open the index for writing; an address that was asked for is remembered.

        Model, root and captions file are stored before the run, so that a stopped one can go on.
        """
        from soutu.indexing.indexer import save_gallery_meta

        store = self._own_store
        if store is None:
            self.close()
            self._check_present_vectors(info.space)  # before the index takes the new fingerprint
            store = self._store = self._store_type.create_or_open(self.location, info)
            if self.settings.store:
                save_store_address(self.home, self.location)
        save_gallery_meta(store, self.root, self.model, captions, encoding)
        return store

    def _get_meta(self, key: str) -> str | None:
        if self._own_store is not None:
            return self._own_store.get_meta(key)
        return self._store_type.read_meta(self.location, key)

    def _require_index(self) -> None:
        """Raise before a model is looked for: without an index no model would help."""
        if self._own_store is None and not self.exists:
            raise missing_index_error(self.location, self.root)

    def _check_root(self) -> None:
        """Check that the folder can be listed and the index is its own."""
        from soutu.images.scan import check_root

        if records := self._get_meta(RECORDS):
            raise BadInput("index-of-records", home=self.home, records=records)
        check_root(self.root)
        known = self._get_meta("root")
        if not known or Path(known) == self.root:
            return
        if self.location != self.home:
            if not is_remembered(self.home, self.location):  # else the folder has been moved
                address = redacted(self.location)
                raise BadInput("store-other-root", address=address, known=known, folder=self.root)
        elif self.home.parent != self.root and not self._has_moved(Path(known)):
            raise BadInput("index-other-root", home=self.home, known=known, folder=self.root)

    def _has_moved(self, known: Path) -> bool:
        """Whether the folder that was indexed is this one: it is gone, and its files are here."""
        if known.exists():
            return False
        with self._store_type.open(self.location) as store:
            files = [*store.files().values()]
        sample = files[:: max(1, len(files) // MOVED_SAMPLE)]
        count = sum(_has_size(self.root / file.path, file.size) for file in sample)
        return 2 * count > len(sample)

    def _captions_file(self) -> Path | None:
        name = self._get_meta("captions_file")
        return self.root / name if name else None

    # --- words and maintenance --------------------------------------------------------------

    def lookup(self, text: str) -> LexiconEntry:
        """Look a text up in the lexicon, with the gallery's own words over it."""
        from soutu.query.gloss import gloss
        from soutu.query.lexicon import built_in_lexicon, load_lexicon

        file = user_lexicon(self.home)
        lexicon = load_lexicon(file) if file.is_file() else built_in_lexicon()
        tokens = lexicon.segment(normalize(repair_text(text)))
        senses = tokens[0].senses if len(tokens) == 1 else ()
        return LexiconEntry(senses, tuple(token.text for token in tokens), gloss(tokens))

    def add_word(self, word: str, english: list[str]) -> Path:
        """Teach the gallery a word; return the file it was written to."""
        from soutu.query.lexicon import add_word

        self._require_index()
        self._forget_searcher()
        file = user_lexicon(self.home)
        add_word(file, repair_text(word), [repair_text(text) for text in english])
        return file

    def info(self) -> GalleryInfo:
        """Return what this gallery holds. Needs no model."""
        from soutu.maintenance import gallery_info

        self._require_index()
        return gallery_info(self.root, self.home, self.location, self.settings)

    def compact(self) -> CompactReport:
        """Free the space of pictures, captions and vectors that are gone.

        Files that come back later are encoded again.
        """
        from soutu.maintenance import compact_gallery

        home = require_local(self.location, "compact")
        self._require_index()
        self.close()
        return compact_gallery(home, self.encode_texts, self.settings)

    def doctor(self, *, deep: bool = False) -> HealthReport:
        """Check the index for damage. Needs no model.

        Parameters
        ----------
        deep
            Read the pictures too, and compare each with what was indexed.

        Raises
        ------
        MissingIndex
            If there is none.
        BadInput
            With ``deep``, where the folder cannot be read or holds no pictures any more.
        """
        from soutu.maintenance import HealthReport, check_gallery, check_pictures

        home = require_local(self.location, "doctor")
        self.close()
        report = check_gallery(home)
        if not deep or not report.healthy:
            return report
        pictures = check_pictures(self.root, home)
        checked = {**report.checked, **pictures.checked}
        return HealthReport((*report.found, *pictures.found), checked)

    def rebuild(
        self,
        captions: str | Path | None = None,
        *,
        encoding: str | None = None,
        exclude: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> RebuildReport:
        """Make the index again from the pictures, whatever state it is in.

        A captions file is remembered, as by ``index``. What is kept:
        ``maintenance.rebuild_gallery``.
        """
        from soutu.maintenance import rebuild_gallery

        home = require_local(self.location, "index --rebuild")
        self.close()
        for name in ("model", "encoder"):
            self.__dict__.pop(name, None)
        file = absolute(expand_user(captions)) if captions else None
        report = rebuild_gallery(
            self.root,
            home,
            self.settings,
            captions=file,
            encoding=encoding,
            exclude=exclude,
            progress=progress,
        )
        self.model = report.model
        return report


def _parts(path: str, field: str) -> list[str]:
    """Return what a filter on ``field`` is compared with: for folders, all that hold the path."""
    if field == "folder":
        return [str(folder) for folder in PurePosixPath(path).parents][:-1]
    return [path.rpartition("/")[2] if field == "name" else path]


def fuse_models(results: Sequence[SearchResult], k: int) -> SearchResult:
    """Fuse results of several models by reciprocal rank, as their scores cannot be compared.

    ``score`` is the fused one; the rest of each hit, and of the result, is what the first model
    that has it says.
    """
    hits_by_id: dict[int, Hit] = {}
    rankings = []
    for result in results:
        ids = np.array([hit.id for hit in result.hits], np.int64)
        rankings.append(Ranking(ids, np.array([hit.score for hit in result.hits], np.float32)))
        for hit in result.hits:
            hits_by_id.setdefault(hit.id, hit)
    fused = reciprocal_rank(rankings)
    best = zip(fused.ids[:k].tolist(), fused.scores[:k].tolist(), strict=True)
    hits = tuple(
        replace(hits_by_id[id_], rank=rank, score=score)
        for rank, (id_, score) in enumerate(best, 1)
    )
    return replace(results[0], hits=hits, ranked_by=RRF)


@dataclass
class _LogSearchers:
    """A gallery's searcher, set as it was for a logged search.

    What names a file, a folder or a server is never taken from a log: it may be somebody else's.
    """

    gallery: Gallery
    _expanders: dict[tuple[object, ...], Expander | None] = field(default_factory=dict)

    def __call__(self, record: LogRecord) -> Searcher:
        logged = {n: record.settings[n] for n in LOGGED_SETTINGS if n in record.settings}
        if logged.get("fusion") == CHOSEN:  # no setting: the variants are logged
            del logged["fusion"]
        logged.setdefault("negatives", SUBTRACT)  # which is all that an older Soutu could
        settings = merge_settings(self.gallery.settings, logged, record.place)
        inherited = any(variant.source == INHERITED for variant in record.variants)
        key = settings.expand, settings.templates, inherited
        if key not in self._expanders:
            self._expanders[key] = build_expander(
                settings, self.gallery.home, own=self.gallery._own_expanders, inherited=inherited
            )
        options = {name: getattr(settings, name) for name in SEARCHER_SETTINGS}
        return replace(self.gallery.searcher, expander=self._expanders[key], **options)


def _without(counts: Mapping[str, int], file: Path | None, root: Path) -> Counter[str]:
    """Return how many files have each ending, the captions file left out."""
    from soutu.images.scan import suffix_of

    left = Counter(counts)
    if file is not None and file.is_file() and file.is_relative_to(root):
        suffix = suffix_of(file.name)
        left[suffix] = left.get(suffix, 1) - 1
    return +left


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _file_signature(file: Path) -> tuple[int, ...] | None:
    """Device, inode, size and mtime, which change when a file is replaced or modified."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
