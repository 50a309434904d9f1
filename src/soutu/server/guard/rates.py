"""How much one address may ask for: a token bucket each (429 beyond it)."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from soutu.server.guard.refusing import client, refuse
from soutu.server.problems import TooMany

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BURST = 5.0  # seconds' worth at once
MOST = 10_000  # addresses remembered
CHEAP, PAGE = 0.02, 0.0  # what a picture or a file of the page costs, of a search
FREE = ("/", "/api/v1/health")


class Buckets:
    """``rate`` a second for each key, ``burst`` at once. The least recent keys are forgotten,
    so that many addresses cost no memory; who is forgotten begins anew."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, cost: float = 1.0) -> float:
        """0.0, and ``cost`` is taken; or the seconds after which there will be enough."""
        wait = self.wait(key, cost)
        if not wait:
            left, now = self._left[key]
            self._left[key] = (left - cost, now)
        return wait

    def wait(self, key: str, cost: float = 1.0) -> float:
        """The seconds after which there will be ``cost``; nothing is taken."""
        now = self._clock()
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        self._left[key] = left, now
        while len(self._left) > MOST:
            self._left.popitem(last=False)
        return max(0.0, cost - left) / self._rate


class Rates:
    """``rate`` searches a second for each address, 0 for any number. A picture counts a
    fiftieth: a page of results asks for that many."""

    def __init__(self, app: ASGIApp, rate: float) -> None:
        self._app = app
        self._buckets = Buckets(rate, max(1.0, rate * BURST)) if rate > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._buckets and scope["type"] == "http" and (cost := _cost(scope["path"])):
            wait = self._buckets.take(network(client(scope)), cost)
            if wait:
                fault = TooMany("guard-rate", retry_after=max(1, math.ceil(wait)))
                await refuse(fault, scope, receive, send)
                return
        await self._app(scope, receive, send)


def network(address: str) -> str:
    """What counts as one asker: an IPv4 address, or the /64 that an IPv6 address lies in."""
    try:
        known = ip_address(address.split("%")[0])
    except ValueError:
        return address
    if not isinstance(known, IPv6Address):
        return address
    return str(known.ipv4_mapped or int(known) >> 64)


def _cost(path: str) -> float:
    if path in FREE or path.startswith("/static/"):
        return PAGE
    pictures = ("/api/v1/thumbnails/", "/api/v1/images/")
    return CHEAP if path.startswith(pictures) else 1.0
