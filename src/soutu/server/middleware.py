"""Guard the API: an ASGI middleware for each check between the network and the routes."""

from __future__ import annotations

import asyncio
import json
import math
import time
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import JSONResponse, Response

from soutu.server.auth import (
    COOKIE_SECONDS,
    Revocations,
    cookie_name,
    is_token,
    is_valid_cookie,
    sign_cookie,
)
from soutu.server.exceptions import (
    Busy,
    Forbidden,
    HttpError,
    MisdirectedRequest,
    NotAllowed,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unauthorized,
    parse_qualities,
    problem,
    request_language,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from soutu.server.metrics import Metrics
    from soutu.server.settings import GuardSettings

API = "/api/v1"
STATIC = "/static/"
SESSION = f"{API}/session"
PUBLIC = ("/", f"{API}/health")
"""What asks for no token and counts against no rate; the page itself tells nothing of the gallery,
and has to be there to ask for the token."""
IMAGES = (f"{API}/thumbnails/", f"{API}/images/")
IMAGE_COST = 0.02  # searches: a page of results asks for that many
BURST_SECONDS = 5.0  # of an address's rate, at once
TOKEN_TRIES, TRIES_PER_SECOND = 10, 0.2  # of wrong tokens from one address
MAX_BUCKETS = 10_000  # addresses remembered
MAX_SIGN_IN_BYTES = 4096
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
ADMIT = "soutu.admit"
"""An extension of the scope: what a connection's protocol offers to keep it till it is answered."""
IS_HEAD = "soutu.is_head"  # in the scope of a HEAD that is answered as GET
DISCONNECT: Message = {"type": "http.disconnect"}
COMPRESSIBLE = (
    "application/json", "application/x-ndjson", "application/manifest+json", "text/html",
    "text/css", "text/javascript", "text/plain", "image/svg+xml",
)  # fmt: skip
MIN_COMPRESSED_BYTES = 1000  # less fits into one packet anyhow
GZIP_LEVEL, GZIP_FORMAT = 5, 31  # level 9 takes eight times as long, for 2 % less
THREAD_BYTES = 32_768  # from which on the event loop does not wait for zlib
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def add_middleware(app: ASGIApp, guard: GuardSettings) -> ASGIApp:
    """Put ``app`` behind all checks; ``SecurityHeaders`` is the outermost."""
    app = RateLimit(app, guard.rate)
    app = SessionAuth(app, guard.token, Revocations(guard.revocations))
    app = BodyLimit(app, guard.body_bytes, guard.body_seconds)  # that of a sign-in, too
    app = HostCheck(app, guard.hosts, any_host=bool(guard.token))
    app = SecurityHeaders(app)
    return ProxyHeaders(app, guard.proxies) if guard.proxies else app


class Middleware(ABC):
    """Passes HTTP requests to ``_handle``; an HttpError that it raises is the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or answer with the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._handle(scope, receive, send)
        except HttpError as error:
            await _refuse(error, scope, receive, send)

    @abstractmethod
    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or have the app answer it."""


class ProxyHeaders(Middleware):
    """Believes what proxies that are trusted say of who asks, and whether over TLS.

    Each adds the address that it was asked from at the end of ``X-Forwarded-For``: the last that is
    no trusted proxy's is the client's; what stands before it, the client may have made up.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        super().__init__(app)
        self._networks = [ip_network(proxy, strict=False) for proxy in proxies]

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = _parse_address(str(scope["client"][0])) if scope.get("client") else None
        if client is not None and self._is_trusted(client):
            headers = Headers(scope=scope)
            for entry in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
                address = _parse_address(entry.strip())
                if address is None:
                    break
                client = address
                if not self._is_trusted(address):
                    break
            scheme = headers.get("x-forwarded-proto", "").split(",")[-1].strip().lower()
            scope = {**scope, "client": (str(client), 0)}
            scope["scheme"] = scheme if scheme in ("http", "https") else scope["scheme"]
        await self._app(scope, receive, send)

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


class SecurityHeaders(Middleware):
    """Tells the browser with every answer: nothing from elsewhere, nowhere else."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        api = scope["path"].startswith("/api/")
        is_answering = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_answering
            if message["type"] == "http.response.start":
                is_answering = True
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = API_POLICY if api else PAGE_POLICY
                headers.update(SECURITY_HEADERS)
                # Results belong to who asked; a route that knows better has set it.
                headers.setdefault("Cache-Control", "no-store" if api else "no-cache")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            if not is_answering:
                error = Busy("server-stopping", retry_after=5)
                await _refuse(error, scope, receive, send_with_headers)


class HostCheck(Middleware):
    """Refuses requests that a page of another site makes, and those for another host's name.

    A browser says whose page asks: ``Sec-Fetch-Site``, ``Origin``. A name that another site points
    here would make its pages ours (DNS rebinding). An address cannot be pointed anywhere, so any
    will do. ``any_host``: a token is asked for, which such a page has not.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), *, any_host: bool = False) -> None:
        super().__init__(app)
        self._any_host = any_host
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 and (hosts or scope.get("http_version") == "1.1"):
            raise HttpError("guard-hosts", count=len(hosts))  # whoever stands between read another
        host, origin = headers.get("host", ""), headers.get("origin", "")
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            name = ""
        if not self._any_host and not self._is_own_name(name):
            raise MisdirectedRequest("guard-host", host=host[:100])
        # A person may follow a link from another site to the page.
        link = (
            scope["method"] == "GET"
            and scope["path"] == "/"
            and headers.get("sec-fetch-dest") == "document"
            and headers.get("sec-fetch-mode") == "navigate"
        )
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not link:
            raise Forbidden("guard-site")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            raise Forbidden("guard-site")
        await self._app(scope, receive, send)

    def _is_own_name(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


class SessionAuth(Middleware):
    """Lets through who shows the token, or the cookie that ``POST /api/v1/session`` gave for it."""

    def __init__(self, app: ASGIApp, token: str, revocations: Revocations) -> None:
        super().__init__(app)
        self._token, self._revocations = token, revocations
        self._tries = TokenBuckets(TRIES_PER_SECOND, TOKEN_TRIES)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == SESSION:
            with suppress(ClientDisconnect):
                response = await self._session(Request(scope, receive))
                await response(scope, receive, send)
            return
        if not (path in PUBLIC or path.startswith(STATIC) or self._is_signed_in(scope)):
            raise Unauthorized("guard-token")
        if self._token:
            _admit(scope)
        await self._app(scope, receive, send)

    async def _session(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._sign_in(request)
        if request.method == "DELETE":
            if self._token and (cookie := self._valid_cookie(request.scope)):
                self._revocations.add(cookie)
            response = Response(status_code=204)
            name = cookie_name(_port(request.scope))
            response.delete_cookie(name, path="/", httponly=True, samesite="strict")
            return response
        if request.method not in ("GET", "HEAD"):
            method, allow = request.method[:20], "DELETE, GET, HEAD, POST"
            raise NotAllowed("guard-session-method", method=method, allow=allow)
        auth = "token" if self._token else "none"
        return JSONResponse({"auth": auth, "signed_in": self._is_signed_in(request.scope)})

    async def _sign_in(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_SIGN_IN_BYTES:
                raise TooLarge("guard-sign-in-large", most=MAX_SIGN_IN_BYTES)
        try:
            token = json.loads(body)["token"]
        except (ValueError, LookupError, TypeError, RecursionError):
            token = None
        if not isinstance(token, str):
            raise HttpError("guard-sign-in")
        response = Response(status_code=204)
        if self._token:
            self._check_token(token, request.scope)
            cookie = sign_cookie(self._token, int(time.time()) + COOKIE_SECONDS)
            name, secure = cookie_name(_port(request.scope)), request.url.scheme == "https"
            response.set_cookie(
                name, cookie, COOKIE_SECONDS, path="/", httponly=True, samesite="strict",
                secure=secure,
            )  # fmt: skip
        return response

    def _is_signed_in(self, scope: Scope) -> bool:
        if not self._token:
            return True
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self._check_token(token.strip(), scope)
            return True
        return bool(self._valid_cookie(scope))

    def _valid_cookie(self, scope: Scope) -> str:
        """Return the cookie of a session that goes on, "" for none."""
        cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
        cookie = cookies.get(cookie_name(_port(scope)), "")
        is_valid = is_valid_cookie(cookie, self._token) and cookie not in self._revocations
        return cookie if is_valid else ""

    def _check_token(self, token: str, scope: Scope) -> None:
        """Let the right token in, always; of wrong ones, an address may send so many.

        An address may be that of a proxy, or a household's: who guesses there keeps nobody out.
        """
        if is_token(token, self._token):
            return
        network = client_network(scope)
        if wait := self._tries.take(network):
            raise TooManyRequests("guard-tries", retry_after=math.ceil(wait))
        raise Unauthorized("guard-token-wrong")


class RateLimit(Middleware):
    """``rate`` searches a second for each address, 0 for any number."""

    def __init__(self, app: ASGIApp, rate: float) -> None:
        super().__init__(app)
        self._buckets = TokenBuckets(rate, max(1.0, rate * BURST_SECONDS)) if rate > 0 else None

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if self._buckets and path not in PUBLIC and not path.startswith(STATIC):
            cost = IMAGE_COST if path.startswith(IMAGES) else 1.0
            if wait := self._buckets.take(client_network(scope), cost):
                raise TooManyRequests("guard-rate", retry_after=max(1, math.ceil(wait)))
        await self._app(scope, receive, send)


class TokenBuckets:
    """``rate`` a second for each key, ``burst`` at once.

    The least recent keys are forgotten, so that many addresses cost no memory; one that is
    forgotten starts with a full bucket.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take ``cost`` and return 0, or the seconds after which there will be enough."""
        wait = self.wait(key, cost)
        if not wait:
            left, now = self._buckets[key]
            self._buckets[key] = (left - cost, now)
        return wait

    def wait(self, key: str, cost: float = 1.0) -> float:
        """Return the seconds after which there will be ``cost``; nothing is taken."""
        now = self._clock()
        left, since = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        self._buckets[key] = left, now
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return max(0.0, cost - left) / self._rate


class BodyLimit(Middleware):
    """At most ``max_bytes`` of body, all within ``seconds`` (413, 408).

    Nothing is buffered: the app reads as it comes, and where it goes too far, sees the client gone
    while the client is told why.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        super().__init__(app)
        self._max_bytes, self._seconds = max_bytes, seconds

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise self._too_large()
        if not length and "transfer-encoding" not in Headers(scope=scope):
            _admit(scope)
        size, deadline = 0, 0.0  # counted from when the app begins to read
        complete = refused = answering = False

        async def limited_receive() -> Message:
            nonlocal size, deadline, complete
            if refused:
                return DISCONNECT
            if complete:
                return await receive()
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + self._seconds
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - now))
            except asyncio.TimeoutError:
                return await refuse(TooSlow("guard-slow", seconds=f"{self._seconds:g}"))
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if complete:
                _admit(scope)
            return message if size <= self._max_bytes else await refuse(self._too_large())

        async def refuse(error: HttpError) -> Message:
            nonlocal refused
            refused = True
            if not answering:
                await _refuse(error, scope, receive, send)
            return DISCONNECT

        async def limited_send(message: Message) -> None:
            nonlocal answering
            if not refused:
                answering = True
                await send(message)

        with suppress(ClientDisconnect):  # nobody is there to be told
            await self._app(scope, limited_receive, limited_send)

    def _too_large(self) -> HttpError:
        return TooLarge("guard-large", most=self._max_bytes // 1_000_000)


class HeadRequests(Middleware):
    """Answers HEAD as GET would be, without the body."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET", IS_HEAD: True}, receive, send_head)


class Compression(Middleware):
    """Compresses text for clients that take gzip: JSON, the page and its files, no pictures.

    A stream is flushed with each chunk, so that no line of it waits for the next.
    """

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        takes_gzip = accepts_gzip(",".join(Headers(scope=scope).getlist("accept-encoding")))
        start: Message = {}
        compressor: zlib._Compress | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start, compressor
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_text = headers.get("content-type", "").partition(";")[0] in COMPRESSIBLE
                if is_text or message["status"] == 304:  # which says what 200 would have said
                    headers.add_vary_header("Accept-Encoding")
                if is_text and takes_gzip:
                    start = message  # its length is not known yet
                else:
                    await send(message)
                return
            if start:
                body, more = message.get("body", b""), message.get("more_body", False)
                if more or len(body) >= MIN_COMPRESSED_BYTES:
                    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_FORMAT)
                    message = await _compress(compressor, message)
                    headers = MutableHeaders(scope=start)
                    headers["Content-Encoding"] = "gzip"
                    del headers["Content-Length"]
                    if not more:
                        headers["Content-Length"] = str(len(message["body"]))
                    if (etag := headers.get("etag")) and not etag.startswith("W/"):
                        headers["ETag"] = f"W/{etag}"  # other bytes, the same content
                await send(start)
                start = {}
            elif compressor:
                message = await _compress(compressor, message)
            await send(message)

        await self._app(scope, receive, send_compressed)


async def _compress(compressor: zlib._Compress, message: Message) -> Message:
    more = message.get("more_body", False)

    def work() -> bytes:
        data = compressor.compress(message.get("body", b""))
        return data + compressor.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)

    is_long = len(message.get("body", b"")) >= THREAD_BYTES
    return {**message, "body": await asyncio.to_thread(work) if is_long else work()}


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header takes gzip, and not rather nothing of the kind."""
    qualities = dict(parse_qualities(header))
    anything = qualities.get("*", 0.0)
    gzip = max(qualities.get("gzip", anything), qualities.get("x-gzip", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


class RequestMetrics(Middleware):
    """Counts each request by its route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()

        def count(status: int) -> None:
            # A template (``/api/v1/images/{id}``): paths that clients make up would stay for good.
            route = getattr(scope.get("route"), "path_format", None) or "other"
            if route != "other" and scope["path"].startswith(API) and API not in route:
                route = API + route
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        except ClientDisconnect:
            raise
        except Exception:  # which Starlette answers further out
            count(500)
            raise


def client_network(scope: Scope) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    client = scope.get("client")
    address = str(client[0]) if client else ""
    known = _parse_address(address)
    if not isinstance(known, IPv6Address):
        return address if known is None else str(known)
    return str(int(known) >> 64)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as proxies write it: with a port or without, IPv4 within IPv6 as IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.split("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _port(scope: Scope) -> int | None:
    server = scope.get("server")
    return server[1] if server else None


def _admit(scope: Scope) -> None:
    extension = scope.get("extensions", {}).get(ADMIT)
    if extension:
        extension["call"]()


async def _refuse(error: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in the JSON shape of every route, in the language that was asked for."""
    language = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("lang", [""])[0]
    accepted = Headers(scope=scope).get("accept-language", "")
    body = problem(error, request_language(language, accepted))
    await JSONResponse(body, error.status, error.headers)(scope, receive, send)
