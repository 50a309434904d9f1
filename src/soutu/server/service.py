"""Search one gallery for many requests at once: what the routes call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import TypeVar

from starlette.responses import Response

from soutu.errors import BadInput, SoutuError
from soutu.gallery import ARRAY, MAX_COMPARED, Gallery
from soutu.indexing.pipeline import ROOM
from soutu.models.batching import BatchingEncoder, TextPrefetcher, shut_down
from soutu.models.bundle import cache_folder
from soutu.query.parser import (
    IMAGE,
    INDEXED,
    TEXT,
    format_query,
    parse_query,
    parse_terms,
    parse_where,
)
from soutu.search.searcher import PreparedQuery, Searcher, SearchParams
from soutu.server.decode_pool import DecodePool
from soutu.server.exceptions import Busy, Conflict, NotFound, TimedOut
from soutu.server.media import GalleryFile, ThumbnailCache
from soutu.server.metrics import Metrics
from soutu.server.schemas import ImageQuery, SearchRequest
from soutu.server.serializers import (
    Json,
    explanation_json,
    format_cursor,
    json_response,
    list_json,
    ndjson_response,
    parse_cursor,
    result_json,
)
from soutu.server.settings import ServerSettings
from soutu.store.base import FILTER_DEADLINE, ImageRow, listing_key
from soutu.types import IndexState, Query, Rgb, SearchResult, Term, Variant

MAX_UPLOADS = 32  # that wait, up to 25 MB each
CLOSE_SECONDS = 1.0  # that searches have to end in
_T = TypeVar("_T")
logger = logging.getLogger(__name__)


class SearchService:
    """One gallery, with threads that search it and threads that read its pictures.

    The model is loaded beside the first requests, which wait for it. Where that fails, the next
    request tries again.
    """

    def __init__(self, gallery: Gallery, settings: ServerSettings) -> None:
        self.gallery, self.settings = gallery, settings
        queue, seconds = settings.queue, settings.seconds
        self.search_executor = SearchExecutor("search", settings.search_threads, queue, seconds)
        # A page asks for a screenful of thumbnails at once, and for the next one while it waits.
        self.image_executor = SearchExecutor("image", settings.image_threads, queue * 4, seconds)
        # What clients send or have fetched, and the server's own state: each keeps to itself, so
        # that a picture that takes long holds up nobody but others who send pictures.
        self.upload_executor = SearchExecutor(
            "upload", settings.upload_threads, MAX_UPLOADS, seconds
        )
        self.fetch_executor = SearchExecutor("fetch", settings.image_threads, MAX_UPLOADS, seconds)
        self.status_executor = SearchExecutor("status", 1, queue, seconds)
        self.decoders = DecodePool()
        self.prefetch = TextPrefetcher(lambda texts: gallery.encoder.encode_texts(texts))
        folder = settings.thumbnails or cache_folder() / "thumbnails"
        self.thumbnails = ThumbnailCache(folder, settings.thumbnail_bytes, self.to_webp)
        self.metrics = Metrics(self)
        self.started = time.monotonic()
        self.is_ready, self.is_idle = False, True
        self._warm_up_lock = Lock()
        self._warm_up_error: Exception | None = None

    def start(self) -> None:
        """Load the model while nobody waits for it; tell the log where that fails."""

        def load() -> None:
            try:
                self._warm_up()
                if self.settings.warm_decoder:
                    self.decoders.warm_up()
            except SoutuError as error:
                logger.error("%s", error)
            except Exception:
                logger.exception("the gallery cannot be opened")

        loader = ThreadPoolExecutor(1, "warm-up")
        loader.submit(load)
        loader.shutdown(wait=False)

    def close(self) -> None:
        """Let searches end, then close the gallery; what takes too long is left behind."""
        end = time.monotonic() + CLOSE_SECONDS
        self.decoders.close()
        executors = (self.prefetch, self.search_executor, self.image_executor, self.upload_executor,
                     self.fetch_executor, self.status_executor)  # fmt: skip
        busy = [each for each in executors if not each.close(max(0.0, end - time.monotonic()))]
        self.is_idle = not busy
        if self.is_idle:
            self.gallery.close()

    def check_health(self) -> None:
        """Raise what keeps the gallery from being searched."""
        if not self.is_ready:
            raise self._warm_up_error or Busy("server-starting", retry_after=1)
        self.gallery.store.state()

    async def search(
        self, request: SearchRequest, upload: bytes | None = None, *, stream: bool = False
    ) -> Response:
        """Answer a search; ``upload`` is a picture to search by."""
        searcher: Searcher | None = None
        prepared: PreparedQuery | None = None
        picture = None if upload is None else await self._decode(upload)
        upload = None

        async def prefetch() -> None:
            nonlocal searcher, prepared
            terms = request.terms or ()
            if picture is not None or not (self.is_ready and (request.text is not None or terms)):
                return
            # Neither the index nor another server or model is asked on the event loop.
            if any(term.image_id is not None for term in terms):
                return
            with suppress(SoutuError):  # the search will raise it again
                params, query = self._params(request), self._query(request)
                searcher, encoder = self.gallery.searcher, self.gallery.encoder
                if params.expand and not searcher.expands_locally:
                    return
                prepared = searcher.prepare(query, params)
                if isinstance(encoder, BatchingEncoder):
                    await self.prefetch(encoder.unknown(prepared.texts))

        def work() -> Response:
            self.gallery.reload_if_changed()
            if prepared is not None and self.gallery.searcher is searcher:
                result = self.gallery.run(prepared)
            else:
                result = self._search(request, picture)
            generation = result.index_state.generation
            if request.generation not in (None, generation):
                raise Conflict("request-generation", requested=request.generation, now=generation)
            answer = self._answer(result, request.offset, vector=request.vector)
            return ndjson_response(answer) if stream else json_response(answer)

        return await self.run(work, prefetch)

    async def list_images(self, query: ImageQuery) -> Response:
        """Answer with a page of pictures that a filter admits, the last taken first."""
        text = (query.where or "").strip()
        where = parse_where(text) if text else None
        after = None if query.cursor is None else parse_cursor(query.cursor)

        def work() -> Response:
            self.gallery.reload_if_changed()
            store = self.gallery.store
            with store.snapshot():
                state = store.state()
                total = state.images if where is None else store.count_images(where)
                rows = store.list_images(query.k + 1, where, after)
                more, rows = len(rows) > query.k, rows[: query.k]
                admitted = rows if where is None else store.images([row.id for row in rows], where)
            answer = list_json(
                admitted,
                total=total,
                cursor=format_cursor(listing_key(rows[-1])) if more else None,
                suggestions=[] if total else self._suggest(text, state),
                state=state,
            )
            return json_response(answer)

        return await self.run(work)

    async def captions(
        self, image: int | bytes, k: int, *, vector: bool = False, log: bool = True
    ) -> Response:
        """Answer with the captions nearest to an indexed picture, or to an uploaded one."""
        picture = await self._decode(image) if isinstance(image, bytes) else image

        def work() -> Response:
            self.gallery.reload_if_changed()
            if not isinstance(picture, int):
                result = self.gallery.captions(picture, k=k, log=log)
            else:
                path = self.image_row(picture).paths[0]
                result = self.gallery.captions_of(path, k=k, log=log)
            return json_response(self._answer(result, vector=vector))

        return await self.run(work)

    async def explain(self, text: str, k: int, *, log: bool = True) -> Response:
        """Answer with how a query was understood, and what makes up each score."""

        def work() -> Response:
            self.gallery.reload_if_changed()
            explanation = self.gallery.explain(_parse(text), k=k, log=log)
            return json_response(explanation_json(explanation, self._answer(explanation.result)))

        return await self.run(work)

    async def run(
        self, work: Callable[[], _T], first: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """Run ``work`` in a thread that searches, once the gallery is open."""
        return await self.search_executor(lambda: self._run_when_open(work), first)

    async def run_image(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in a thread that reads pictures, once the gallery is open."""
        return await self.image_executor(lambda: self._run_when_open(work))

    async def fetch(self, url: str) -> bytes:
        """Return the picture at an address; BadInput where none is ever asked."""
        fetch = self.settings.fetch
        if fetch is None:
            raise BadInput("server-no-fetch")
        return await self.fetch_executor(lambda: fetch(url))

    async def check_state(self, work: Callable[[], _T]) -> _T:
        """Run ``work``, which tells how the server is, beside all searches."""
        return await self.status_executor(work)

    def to_webp(self, file: GalleryFile, side: int, quality: int) -> bytes:
        """Return a file of the gallery as WebP; BadImage as ``decode``."""
        return self.decoders.webp(
            file.read(),
            file.path.name,
            side=side,
            quality=quality,
            max_pixels=self.gallery.settings.max_pixels,
            seconds=self.settings.convert_seconds,
        )

    def image_row(self, image_id: int) -> ImageRow:
        """Return the row of an image that has a path; NotFound for all others."""
        try:
            (row,) = self.gallery.store.images([image_id])
        except (KeyError, OverflowError):
            row = None
        if row is None or not row.paths:
            raise NotFound("server-no-image", id=image_id)
        return row

    def _run_when_open(self, work: Callable[[], _T]) -> _T:
        self._warm_up()
        FILTER_DEADLINE.set(time.monotonic() + self.settings.filter_seconds)
        return work()

    def _warm_up(self) -> None:
        """Open the gallery and load its model, if that is not done."""
        if self.is_ready:
            return
        with self._warm_up_lock:
            if self.is_ready:
                return
            try:
                self.gallery.searcher.encoder.encode_texts(["a photo"])
                self.gallery.reload_if_changed()
            except Exception as error:
                self._warm_up_error = error
                raise
            self._warm_up_error, self.is_ready = None, True

    def _params(self, request: SearchRequest) -> SearchParams:
        variants = request.variants and tuple(
            Variant(variant.text, variant.weight, term=variant.term) for variant in request.variants
        )
        return SearchParams(
            request.k,
            request.offset,
            request.where,
            request.min_confidence,
            None if request.variants is None else variants or (),
            request.expand,
            request.log,
        )

    def _search(self, request: SearchRequest, picture: Rgb | None) -> SearchResult:
        params = self._params(request)
        if picture is None:
            return self.gallery.search_query(self._query(request), params)
        if not request.terms:
            return self.gallery.search_query(picture, params)
        query = self._query(request, Term(IMAGE, ARRAY))
        return self.gallery.run(self.gallery.searcher.prepare(query, params), picture)

    def _query(self, request: SearchRequest, *upload: Term) -> Query:
        if request.text is not None:
            return _parse(request.text)
        terms = [*upload]
        if request.image_id is not None:
            terms.append(Term(INDEXED, self.image_row(request.image_id).paths[0]))
        for term in request.terms or ():
            if term.query is not None:
                parsed = _of_gallery(parse_terms(term.query))
                terms += [replace(each, weight=each.weight * term.weight) for each in parsed]
            elif term.image_id is not None:
                terms.append(Term(INDEXED, self.image_row(term.image_id).paths[0], term.weight))
            else:
                terms.append(Term(TEXT, term.text or "", term.weight))
        raw = format_query(tuple(terms))  # the log has it as it could have been typed
        parse_query(raw)  # raises where no term speaks for anything
        return Query(raw, tuple(terms))

    def _suggest(self, where: str, state: IndexState) -> list[str]:
        """Return what a filter that admits nothing may have meant.

        A client may ask for it again and again: not where it would take long.
        """
        return self.gallery.nearest_names(where) if where and state.images <= MAX_COMPARED else []

    async def _decode(self, upload: bytes) -> Rgb:
        def work() -> Rgb:
            info, settings = self.gallery.encoder.info, self.settings
            return self.decoders.fit(
                upload,
                info,
                min_side=int(ROOM * info.image_size),
                max_pixels=settings.upload_pixels,
                seconds=settings.decode_seconds,
            )

        return await self.upload_executor(lambda: self._run_when_open(work))

    def _answer(self, result: SearchResult, offset: int = 0, *, vector: bool = False) -> Json:
        store = self.gallery.searcher.store
        ids = [hit.id for hit in result.hits] if result.target == "images" else []
        try:
            rows = {row.id: row for row in store.images(ids)}
        except KeyError:  # compacted a moment ago
            rows = {}
        more, suggestions = False, list[str]()
        state, filters = result.index_state, result.query.filters
        if filters and not result.hits and not store.count_images(parse_where(filters[0])):
            suggestions = self._suggest(filters[0], state)
        if len(result.hits) == result.k:
            total = state.images if result.target == "images" else state.captions
            if result.target == "images" and filters:
                total = store.count_images(parse_where(filters[0]))
            more = offset + result.k < total
        return result_json(
            result, rows, offset=offset, more=more, vector=vector, suggestions=suggestions
        )


class SearchExecutor:
    """A fixed set of threads for what is not for the event loop.

    Each thread keeps a connection to the index open, so a pool that grows and shrinks would leave
    them behind.

    Parameters
    ----------
    queue
        Requests that may wait; beyond them, Busy.
    seconds
        After them, TimedOut. What has begun then goes on, and still counts.
    """

    def __init__(self, name: str, threads: int, queue: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._max_pending, self._seconds = threads + queue, seconds
        self._lock, self.pending = Lock(), 0

    async def __call__(
        self, work: Callable[[], _T], first: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """Return what ``work`` returns; ``first`` is awaited before it takes a thread."""
        with self._lock:
            if self.pending >= self._max_pending:
                raise Busy("server-busy", retry_after=1)
            self.pending += 1
        submitted = False

        async def run() -> _T:
            nonlocal submitted
            if first is not None:
                await first()
            future = self._pool.submit(work)
            submitted = True
            future.add_done_callback(self._release)
            return await asyncio.wrap_future(future)

        try:
            return await asyncio.wait_for(run(), self._seconds)
        except asyncio.TimeoutError:
            raise TimedOut("server-slow", seconds=f"{self._seconds:g}") from None
        finally:
            if not submitted:
                self._release()

    def close(self, seconds: float = 20.0) -> bool:
        """Wait for what runs, drop what waits; return whether all has ended in time."""
        return shut_down(self._pool, seconds)

    def _release(self, _: object = None) -> None:
        with self._lock:
            self.pending -= 1


def _parse(text: str) -> Query:
    """Parse a query whose pictures are the gallery's: a client names no files of the server."""
    query = parse_query(text)
    return replace(query, terms=_of_gallery(query.terms))


def _of_gallery(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(
        replace(term, kind=INDEXED, value=term.value.removeprefix("./"))
        if term.kind == IMAGE
        else term
        for term in terms
    )
