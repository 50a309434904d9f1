"""How a server works; ``guard`` is who may ask it what."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from soutu.server.guard import Guard

# More threads get in each other's way: on two cores, 261 searches a second of remembered texts with
# two, 232 with three, 190 with four.
SEARCHES = os.cpu_count() or 1


@dataclass(frozen=True)
class ServerSettings:
    """``searches`` and ``pictures`` are threads for each, ``queue`` the requests that may wait for
    one, ``seconds`` what a request may take. Uploads have at most ``upload_pixels``;
    ``thumbnails`` are kept there (None: in the user's cache), ``thumbnail_bytes`` of them.
    ``fetch`` gets a picture from an address; None: none is ever asked."""

    guard: Guard = field(default_factory=Guard)
    searches: int = SEARCHES
    pictures: int = 4
    queue: int = 256
    seconds: float = 20.0
    upload_pixels: int = 50_000_000
    thumbnails: Path | None = None
    thumbnail_bytes: int = 1_000_000_000
    fetch: Callable[[str], bytes] | None = None
