"""A request's body: not larger than agreed (413), and not slower (408)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from soutu.server.exceptions import (
    Forbidden,
    HttpError,
    MisdirectedRequest,
    TooLarge,
    TooManyRequests,
    TooSlow,
    language_of,
    problem,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A middleware's own answer: the same JSON shape as every route's.


async def refuse(fault: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with ``fault``, in the language that was asked for."""
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("lang", [""])[0]
    lang = asked if asked in ("zh", "en") else language_of(header(scope, "accept-language"))
    answer = JSONResponse(problem(fault, lang), fault.status, fault.headers)
    await answer(scope, receive, send)


def header(scope: Scope, name: str) -> str:
    """A request header, "" where it was not sent."""
    return Headers(scope=scope).get(name, "")


def client(scope: Scope) -> str:
    """The address that asks."""
    known = scope.get("client")
    return str(known[0]) if known else ""


# What every answer tells the browser: nothing from elsewhere, nowhere else.


API = "/api/"
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# Nothing that the API answers is a page: should a browser take a picture for one, it does nothing.
API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox"
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        api = scope["path"].startswith(API)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = API_POLICY if api else PAGE_POLICY
                for name, value in ALWAYS.items():
                    headers[name] = value
                # What was found is the asker's own; a route that knows better has said so.
                headers.setdefault("Cache-Control", "no-store" if api else "no-cache")
            await send(message)

        await self._app(scope, receive, with_headers)


# Whose page is asking. Other sites' pages may not, whatever name they give this server.


LOCAL = "localhost"


class HostCheck:
    """Refuses requests that a page of another site makes (a browser says so: ``Sec-Fetch-Site``,
    ``Origin``), and those for a host name that is not this server's: a name that another site
    points here would make its pages ours (DNS rebinding). An address cannot be pointed anywhere,
    so any will do. ``any_name``: a token is asked for, which such a page has not."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), *, any_name: bool = False) -> None:
        self._app, self._any = app, any_name
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault:
            await refuse(fault, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> HttpError | None:
        host = header(scope, "host")
        name = _name(host)
        if not self._any and not self._known(name):
            return MisdirectedRequest("guard-host", host=host[:100])
        if header(scope, "sec-fetch-site") in ("cross-site", "same-site") and not _opened(scope):
            return Forbidden("guard-site")
        origin = header(scope, "origin")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            return Forbidden("guard-site")
        return None

    def _known(self, name: str) -> bool:
        if name == LOCAL or name.endswith("." + LOCAL) or name in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _opened(scope: Scope) -> bool:
    """A person who follows a link from another site to the page."""
    there = scope["method"] == "GET" and header(scope, "sec-fetch-dest") == "document"
    return there and header(scope, "sec-fetch-mode") == "navigate" and scope["path"] == "/"


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


# How much one address may ask for: a token bucket each (429 beyond it).


BURST = 5.0  # seconds' worth at once
MOST = 10_000  # addresses remembered
CHEAP, PAGE = 0.02, 0.0  # what a picture or a file of the page costs, of a search
FREE = ("/", "/api/v1/health")


class TokenBuckets:
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


class RateLimit:
    """``rate`` searches a second for each address, 0 for any number. A picture counts a
    fiftieth: a page of results asks for that many."""

    def __init__(self, app: ASGIApp, rate: float) -> None:
        self._app = app
        self._buckets = TokenBuckets(rate, max(1.0, rate * BURST)) if rate > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._buckets and scope["type"] == "http" and (cost := _cost(scope["path"])):
            wait = self._buckets.take(network(client(scope)), cost)
            if wait:
                fault = TooManyRequests("guard-rate", retry_after=max(1, math.ceil(wait)))
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


GONE: Message = {"type": "http.disconnect"}


class BodyLimit:
    """``most`` bytes, all within ``seconds``. Nothing is kept here: the app reads as it comes,
    and where it goes too far, sees the client gone while the client is told why."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = header(scope, "content-length")
        if length.isdecimal() and int(length[:20]) > self._most:
            await refuse(self._too_large(), scope, receive, send)
            return
        body = _Body(self, scope, receive, send)
        with suppress(ClientDisconnect):  # which there is nobody to tell about
            await self._app(scope, body.receive, body.send)

    def _too_large(self) -> HttpError:
        return TooLarge("guard-large", most=self._most // 1_000_000)


class _Body:
    def __init__(self, limits: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits, self._scope, self._receive, self._send = limits, scope, receive, send
        self._read, self._deadline = 0, 0.0
        self._whole = self._refused = self._answering = False

    async def receive(self) -> Message:
        if self._refused:
            return GONE
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._left())
        except asyncio.TimeoutError:
            seconds = f"{self._limits._seconds:g}"
            return await self._refuse(TooSlow("guard-slow", seconds=seconds))
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._limits._most:
            return await self._refuse(self._limits._too_large())
        return message

    async def send(self, message: Message) -> None:
        if not self._refused:
            self._answering = True
            await self._send(message)

    def _left(self) -> float:
        """Seconds until all of it must be here, counted from when the app begins to read."""
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._limits._seconds
        return max(0.0, self._deadline - now)

    async def _refuse(self, fault: HttpError) -> Message:
        self._refused = True
        if not self._answering:
            await refuse(fault, self._scope, self._receive, self._send)
        return GONE
