"""How a server works; ``guard`` is who may ask it what."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.server.auth import SessionAuth
from soutu.server.middleware import BodyLimit, HostCheck, RateLimit, SecurityHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# What stands between the network and the API: one ASGI middleware an idea, outermost first.


@dataclass(frozen=True)
class GuardSettings:
    """``token``: who has it may ask; "" for everyone. ``hosts``: names that the server may be
    called by, beside addresses and localhost. ``rate``: searches a second that one address may ask
    for, 0 for any number. ``body_bytes`` at most, to arrive within ``body_seconds``."""

    token: str = ""
    hosts: tuple[str, ...] = ()
    rate: float = 0.0
    body_bytes: int = 25_000_000
    body_seconds: float = 30.0


def add_middleware(app: ASGIApp, guard: GuardSettings) -> ASGIApp:
    """``app`` behind all of it."""
    app = BodyLimit(app, guard.body_bytes, guard.body_seconds)
    app = RateLimit(app, guard.rate)
    app = SessionAuth(app, guard.token)
    app = HostCheck(app, guard.hosts, any_name=bool(guard.token))
    return SecurityHeaders(app)


# More threads get in each other's way: on two cores, 261 searches a second of remembered texts with
# two, 232 with three, 190 with four.
SEARCHES = os.cpu_count() or 1


@dataclass(frozen=True)
class ServerSettings:
    """``searches`` and ``pictures`` are threads for each, ``queue`` the requests that may wait for
    one, ``seconds`` what a request may take. Uploads have at most ``upload_pixels``;
    ``thumbnails`` are kept there (None: in the user's cache), ``thumbnail_bytes`` of them.
    ``fetch`` gets a picture from an address; None: none is ever asked."""

    guard: GuardSettings = field(default_factory=GuardSettings)
    searches: int = SEARCHES
    pictures: int = 4
    queue: int = 256
    seconds: float = 20.0
    upload_pixels: int = 50_000_000
    thumbnails: Path | None = None
    thumbnail_bytes: int = 1_000_000_000
    fetch: Callable[[str], bytes] | None = None
