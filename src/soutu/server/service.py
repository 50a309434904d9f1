"""What all routes share: the gallery, the threads, the thumbnails, the counts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeVar

from starlette.requests import Request

from soutu.errors import SoutuError
from soutu.gallery import Gallery
from soutu.images.decode import decode
from soutu.models.batching import BatchingEncoder
from soutu.models.catalog import cache_folder
from soutu.query.parser import IMAGE, INDEXED, TEXT, format_query, parse_query, parse_where
from soutu.search.searcher import SearchParams
from soutu.server.exceptions import Busy, NotFound, TimedOut
from soutu.server.media import Thumbnails
from soutu.server.metrics import Metrics
from soutu.server.schemas import SearchRequest, TermInput
from soutu.server.serializers import Json, explained, plain
from soutu.server.settings import ServerSettings
from soutu.store.base import ImageRow
from soutu.types import Query, Rgb, SearchResult, Term, Variant

# Work that is not for the event loop: a fixed set of threads, a bounded queue, a time limit.


_T = TypeVar("_T")


class SearchExecutor:
    """``threads`` of its own: each keeps a connection to the index open, so a pool that grows and
    shrinks would leave them behind. Beyond ``queue`` waiting requests, Busy; after ``seconds``,
    TimedOut (what has begun then goes on, and still counts)."""

    def __init__(self, name: str, threads: int, queue: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._most, self._seconds = threads + queue, seconds
        self._lock, self.pending = Lock(), 0

    async def __call__(
        self, work: Callable[[], _T], first: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """What ``work`` returns; ``first`` is awaited before it takes a thread."""
        with self._lock:
            if self.pending >= self._most:
                raise Busy("server-busy", retry_after=1)
            self.pending += 1
        counted = False

        async def done() -> _T:
            nonlocal counted
            if first is not None:
                await first()
            future = self._pool.submit(work)
            counted = True
            future.add_done_callback(self._done)
            return await asyncio.wrap_future(future)

        try:
            return await asyncio.wait_for(done(), self._seconds)
        except asyncio.TimeoutError:
            raise TimedOut("server-slow", seconds=f"{self._seconds:g}") from None
        finally:
            if not counted:
                self._done()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, _: object = None) -> None:
        with self._lock:
            self.pending -= 1


# What waiting searches will ask the model for, encoded together before they take a thread.
#
# A text alone takes as long as three of 32 (ViT-B/32 in int8 on two cores: 3.3 ms), and only as
# many meet as there are threads that search, which are few because more get in each other's way.
# Those that wait here need no thread to meet.


MOST = 64  # texts at once: who comes first need not wait for all who come later


class TextPrefetcher:
    """Calls ``encode`` in a thread of its own, with all the texts that came while it worked at the
    last ones. It is for ``encode`` to remember what it did; a fault is not told: whoever asks for
    that text again meets it. To be called from one event loop."""

    def __init__(self, encode: Callable[[Sequence[str]], object]) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._waiting: deque[tuple[Sequence[str], asyncio.Future[None]]] = deque()
        self._busy = False

    async def __call__(self, texts: Sequence[str]) -> None:
        """Returns once ``texts`` have been encoded, or could not be."""
        if not texts:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, done))
        self._begin()
        await done

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        if self._busy:
            return
        taken: list[asyncio.Future[None]] = []
        texts: list[str] = []
        while self._waiting and (not texts or len(texts) + len(self._waiting[0][0]) <= MOST):
            more, done = self._waiting.popleft()
            if not done.cancelled():
                texts += more
                taken.append(done)
        if not taken:
            return
        self._busy = True
        loop = taken[0].get_loop()

        def over(_: Future[object]) -> None:
            loop.call_soon_threadsafe(self._over, taken)

        self._pool.submit(self._encode, texts).add_done_callback(over)

    def _over(self, taken: Sequence[asyncio.Future[None]]) -> None:
        self._busy = False
        for done in taken:
            if not done.cancelled():
                done.set_result(None)
        self._begin()


# Where requests become searches: what they may name, and what is looked up for the answer.


class SearchService:
    """Over one gallery; everything here may be called by many threads at once."""

    def __init__(self, gallery: Gallery, upload_pixels: int) -> None:
        self.gallery, self._pixels = gallery, upload_pixels

    def search(self, asked: SearchRequest, upload: bytes | None = None) -> Json:
        """The answer to ``asked``; ``upload``: a picture to search by."""
        self.gallery.notice()
        query: Query | Rgb = self._picture(upload) if upload is not None else self._query(asked)
        asking = self._asking(asked)
        found = self.gallery.find(query, asking)
        return self._plain(found, asked.offset, vector=asked.vector)

    def texts(self, asked: SearchRequest) -> list[str]:
        """What ``search`` will have the model encode that is not remembered, where that can be told
        at once and without a look into the index. Never raises: what is wrong, ``search`` says."""
        encoder = self.gallery.encoder
        terms = asked.terms or ()
        if not isinstance(encoder, BatchingEncoder) or any(
            one.image_id is not None for one in terms
        ):
            return []
        if asked.text is None and not terms:
            return []
        try:
            found = self.gallery.searcher.texts(self._query(asked), self._asking(asked))
        except SoutuError:
            return []
        return encoder.unknown(found)

    def captions(self, picture: int | bytes, k: int, *, vector: bool = False) -> Json:
        """The captions nearest to an indexed picture, or to an uploaded one."""
        self.gallery.notice()
        if isinstance(picture, bytes):
            found = self.gallery.captions(self._picture(picture), k=k)
        else:
            found = self.gallery.captions_of(self.row(picture).paths[0], k=k)
        return self._plain(found, 0, vector=vector)

    def explain(self, text: str, k: int) -> Json:
        self.gallery.notice()
        explanation = self.gallery.explain(_indexed(parse_query(text)), k=k)
        return explained(explanation, self._plain(explanation.result, 0))

    def row(self, id_: int) -> ImageRow:
        """The row of an image that has a path. NotFound for all others."""
        try:
            (row,) = self.gallery.store.images([id_])
        except (KeyError, OverflowError):
            row = None
        if row is None or not row.paths:
            raise NotFound("server-no-image", id=id_)
        return row

    def _asking(self, asked: SearchRequest) -> SearchParams:
        variants = asked.variants and tuple(
            Variant(one.text, one.weight, term=one.term) for one in asked.variants
        )
        return SearchParams(
            asked.k,
            asked.offset,
            asked.where,
            self.gallery.threshold(asked.min_confidence),
            None if asked.variants is None else variants or (),
            asked.expand,
        )

    def _query(self, asked: SearchRequest) -> Query:
        if asked.text is not None:
            return _indexed(parse_query(asked.text))
        if asked.image_id is not None:
            return parse_as([Term(INDEXED, self.row(asked.image_id).paths[0])])
        made = [self._term(term) for term in asked.terms or ()]
        # What is written to the log reads as what could have been typed.
        return parse_as(made)

    def _term(self, term: TermInput) -> Term:
        if term.image_id is None:
            return Term(TEXT, term.text or "", term.weight)
        return Term(INDEXED, self.row(term.image_id).paths[0], term.weight)

    def _picture(self, upload: bytes) -> Rgb:
        return decode(upload, max_pixels=self._pixels, name="(upload)").rgb

    def _plain(self, found: SearchResult, offset: int, *, vector: bool = False) -> Json:
        store = self.gallery.store
        ids = [hit.id for hit in found.hits] if found.target == "images" else []
        try:
            rows = {row.id: row for row in store.images(ids)}
        except KeyError:  # compacted a moment ago
            rows = {}
        more = len(found.hits) == found.k and offset + found.k < self._admitted(found)
        return plain(found, rows, {"offset": offset, "more": more, "vector": vector})

    def _admitted(self, found: SearchResult) -> int:
        state = found.index_state
        if found.target == "captions":
            return state.captions
        filters = found.query.filters
        return self.gallery.store.count_images(parse_where(filters[0])) if filters else state.images


def parse_as(terms: Sequence[Term]) -> Query:
    """A query of these terms, in the words that say them; BadQuery where none speaks for
    anything."""
    raw = format_query(tuple(terms))
    parse_query(raw)
    return Query(raw, tuple(terms))


def _indexed(query: Query) -> Query:
    """``query``, whose pictures are those of the gallery: no file is opened by a name that came
    from elsewhere."""
    terms = tuple(
        replace(term, kind=INDEXED, value=term.value.removeprefix("./"))
        if term.kind == IMAGE
        else term
        for term in query.terms
    )
    return replace(query, terms=terms)


_R = TypeVar("_R")
log = logging.getLogger(__name__)


@dataclass
class Warmup:
    """The model is loaded beside the first requests, which wait for it. ``fault`` is why it could
    not be; the next that asks tries again."""

    gallery: Gallery
    fault: Exception | None = None
    ready: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        """Open the gallery, if that is not done; raises what speaks against it."""
        if self.ready:
            return
        with self._lock:
            if self.ready:
                return
            try:
                encoder = self.gallery.searcher.encoder
                encoder.encode_texts(["a photo"])
                self.gallery.notice()
            except Exception as fault:
                self.fault = fault
                raise
            self.fault, self.ready = None, True


class AppState:
    def __init__(self, gallery: Gallery, settings: ServerSettings) -> None:
        self.gallery, self.settings = gallery, settings
        self.desk = SearchService(gallery, settings.upload_pixels)
        self.opening = Warmup(gallery)
        seconds, queue = settings.seconds, settings.queue
        self.searches = SearchExecutor("search", settings.searches, queue, seconds)
        self.ahead = TextPrefetcher(lambda texts: gallery.encoder.encode_texts(texts))
        # A page asks for a screenful of thumbnails at once, and for the next one while it waits.
        self.pictures = SearchExecutor("picture", settings.pictures, queue * 4, seconds)
        folder = settings.thumbnails or cache_folder() / "thumbnails"
        pixels = gallery.config.max_pixels
        self.thumbnails = Thumbnails(folder, settings.thumbnail_bytes, pixels)
        self.metrics = Metrics(self)
        self.begun = time.monotonic()

    async def search(self, work: Callable[[], _R], asked: SearchRequest | None = None) -> _R:
        """``work`` in a thread that searches, once the gallery is open; what it will have the model
        encode, where it is to search for what was ``asked``, is encoded before."""

        def opened() -> _R:
            self.opening()
            return work()

        async def first() -> None:
            if asked is not None and self.opening.ready:
                await self.ahead(self.desk.texts(asked))

        return await self.searches(opened, first)

    async def picture(self, work: Callable[[], _R]) -> _R:
        def opened() -> _R:
            self.opening()
            return work()

        return await self.pictures(opened)

    def begin(self) -> None:
        """Load the model while nobody waits for it; a fault is told to whoever asks, and at once to
        who started the server."""
        loader = ThreadPoolExecutor(1, "opening")
        loader.submit(self._begin)
        loader.shutdown(wait=False)

    def _begin(self) -> None:
        try:
            self.opening()
        except SoutuError as fault:
            log.error("%s", fault)
        except Exception:
            log.exception("the gallery cannot be opened")

    def health(self) -> None:
        """Raises while the gallery is not open, or cannot be read any more."""
        if not self.opening.ready:
            raise self.opening.fault or Busy("server-starting", retry_after=1)
        self.gallery.store.state()

    def close(self) -> None:
        self.ahead.close()
        self.searches.close()
        self.pictures.close()
        self.gallery.close()


def app_state(request: Request) -> AppState:
    found: AppState = request.app.state.context
    return found
