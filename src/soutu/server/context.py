"""What all routes share: the gallery, the threads, the thumbnails, the counts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from soutu.assemble import cache_folder
from soutu.errors import SoutuError
from soutu.gallery import Gallery
from soutu.server.ahead import Ahead
from soutu.server.desk import Desk
from soutu.server.files import Thumbnails
from soutu.server.metrics import Metrics
from soutu.server.problems import Busy
from soutu.server.schemas import SearchRequest
from soutu.server.settings import ServerSettings
from soutu.server.work import Work

_T = TypeVar("_T")
log = logging.getLogger(__name__)


@dataclass
class Opening:
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


class Context:
    def __init__(self, gallery: Gallery, settings: ServerSettings) -> None:
        self.gallery, self.settings = gallery, settings
        self.desk = Desk(gallery, settings.upload_pixels)
        self.opening = Opening(gallery)
        seconds, queue = settings.seconds, settings.queue
        self.searches = Work("search", settings.searches, queue, seconds)
        self.ahead = Ahead(lambda texts: gallery.encoder.encode_texts(texts))
        # A page asks for a screenful of thumbnails at once, and for the next one while it waits.
        self.pictures = Work("picture", settings.pictures, queue * 4, seconds)
        folder = settings.thumbnails or cache_folder() / "thumbnails"
        pixels = gallery.config.max_pixels
        self.thumbnails = Thumbnails(folder, settings.thumbnail_bytes, pixels)
        self.metrics = Metrics(self)
        self.begun = time.monotonic()

    async def search(self, work: Callable[[], _T], asked: SearchRequest | None = None) -> _T:
        """``work`` in a thread that searches, once the gallery is open; what it will have the model
        encode, where it is to search for what was ``asked``, is encoded before."""

        def opened() -> _T:
            self.opening()
            return work()

        async def first() -> None:
            if asked is not None and self.opening.ready:
                await self.ahead(self.desk.texts(asked))

        return await self.searches(opened, first)

    async def picture(self, work: Callable[[], _T]) -> _T:
        def opened() -> _T:
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


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
