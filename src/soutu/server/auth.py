"""Who may ask: a bearer token for programs, a cookie for the page that the token was given to."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from soutu.errors import BadConfig
from soutu.server.exceptions import HttpError, NotAllowed, TooLarge, TooManyRequests, Unauthorized
from soutu.server.middleware import TokenBuckets, client, header, network, refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# The token that a server asks for: from a file, or from the environment.


VARIABLE = "SOUTU_TOKEN"
SHORTEST, MAX_TOKEN_LENGTH = 16, 500
LOCALHOST = "localhost"


def token_for(
    host: str,
    file: Path | None = None,
    *,
    open_to_all: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """The token of a server at ``host``; "" for none, which beyond this machine must be said
    (``open_to_all``). A ``file`` that is not there is made, with a new token, for its owner alone.
    Raises BadConfig for a token that is none, and where one is needed."""
    if open_to_all:
        return ""
    if file is not None:
        return _checked(_from_file(file), str(file))
    if given := environment.get(VARIABLE, ""):
        return _checked(given, VARIABLE)
    if is_loopback(host):
        return ""
    raise BadConfig("token-needed", host=host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    with suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host == LOCALHOST


def _from_file(file: Path) -> str:
    try:
        with suppress(FileExistsError):
            _make(file)
        if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadConfig("token-open", file=file)
        with file.open(encoding="utf-8") as opened:
            return opened.read(MAX_TOKEN_LENGTH + 2).rstrip("\r\n")
    except (OSError, ValueError) as fault:
        told = getattr(fault, "strerror", None) or str(fault)
        raise BadConfig("token-file", file=file, error=told) from fault


def _make(file: Path) -> None:
    """Written whole before it has its name: another server that starts now reads all of it."""
    if file.exists():
        raise FileExistsError
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(secrets.token_urlsafe(24) + "\n")
        os.link(beside, file)  # unlike a rename, never over one that is there by now
    finally:
        beside.unlink()


def _checked(token: str, place: str) -> str:
    sound = token.isascii() and token.isprintable() and " " not in token
    if not sound or not SHORTEST <= len(token) <= MAX_TOKEN_LENGTH:
        raise BadConfig("token-form", place=place)
    return token


PATH = "/api/v1/session"
COOKIE = "soutu_session"
LASTS = 30 * 24 * 3600  # seconds
# The page itself tells nothing of the gallery, and has to be there to ask for the token.
OPEN = ("/", "/api/v1/health")
MAX_FORM_LENGTH = 4096  # bytes of a sign-in


class SessionAuth:
    """Lets through who shows ``token``, or the cookie that ``POST /api/v1/session`` gave for it.
    The cookie is an expiry and its HMAC under the token: nothing is kept here, so it is good at
    every server with this token, and a new token ends all sessions."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()
        self._tries = TokenBuckets(0.2, 10)  # wrong tokens from one address: ten, then one in 5 s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path in OPEN or path.startswith("/static/"):
            await self._app(scope, receive, send)
            return
        try:
            if path == PATH:
                answer = await self._session(Request(scope, receive))
                await answer(scope, receive, send)
                return
            if not self._signed_in(scope):
                raise Unauthorized("guard-token")
        except HttpError as fault:
            await refuse(fault, scope, receive, send)
            return
        except ClientDisconnect:
            return
        await self._app(scope, receive, send)

    async def _session(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._sign_in(request)
        if request.method == "DELETE":
            answer = Response(status_code=204)
            answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
            return answer
        if request.method not in ("GET", "HEAD"):
            raise NotAllowed("guard-session-method", method=request.method[:20])
        auth = "token" if self._token else "none"
        return JSONResponse({"auth": auth, "signed_in": self._signed_in(request.scope)})

    async def _sign_in(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_LENGTH:
                raise TooLarge("guard-sign-in-large", most=MAX_FORM_LENGTH)
        try:
            given = json.loads(body)["token"]
        except (ValueError, LookupError, TypeError, RecursionError):
            given = None
        if not isinstance(given, str):
            raise HttpError("guard-sign-in")
        answer = Response(status_code=204)
        if self._token:
            self._check(given, request.scope)
            secure = request.url.scheme == "https"
            value = self._sealed(int(time.time()) + LASTS)
            answer.set_cookie(
                COOKIE, value, LASTS, path="/", secure=secure, httponly=True, samesite="strict"
            )
        return answer

    def _signed_in(self, scope: Scope) -> bool:
        if not self._token:
            return True
        kind, _, given = header(scope, "authorization").partition(" ")
        if kind.lower() != "bearer":
            return self._is_sealed(_cookie(scope))
        self._check(given.strip(), scope)
        return True

    def _check(self, given: str, scope: Scope) -> None:
        """Whoever has guessed wrong too often is not told whether the next guess is right."""
        asker = network(client(scope))
        if wait := self._tries.wait(asker):
            raise TooManyRequests("guard-tries", retry_after=math.ceil(wait))
        if not self._is_token(given):
            self._tries.take(asker)
            raise Unauthorized("guard-token-wrong")

    def _is_token(self, given: str) -> bool:
        """In the same time, however much of it is right, and however long it is."""
        sides = (hashlib.sha256(side).digest() for side in (_bytes(given), self._token))
        return hmac.compare_digest(*sides)

    def _sealed(self, expires: int) -> str:
        seal = hmac.new(self._token, f"{COOKIE}:{expires}".encode(), hashlib.sha256)
        return f"{expires}.{seal.hexdigest()}"

    def _is_sealed(self, cookie: str) -> bool:
        expires = cookie.partition(".")[0]
        if not (expires.isascii() and expires.isdecimal() and len(expires) < 20):
            return False
        sealed = self._sealed(int(expires))
        return hmac.compare_digest(_bytes(cookie), sealed.encode()) and int(expires) > time.time()


def _cookie(scope: Scope) -> str:
    try:
        kept = SimpleCookie(header(scope, "cookie")).get(COOKIE)
    except CookieError:
        return ""
    return kept.value if kept else ""


def _bytes(given: str) -> bytes:
    return given.encode("utf-8", "surrogatepass")
