"""A request's body: not larger than agreed (413), and not slower (408)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from soutu.server.guard.refusing import header, refuse
from soutu.server.problems import Refused, TooLarge, TooSlow

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

GONE: Message = {"type": "http.disconnect"}


class Bodies:
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

    def _too_large(self) -> Refused:
        return TooLarge("guard-large", most=self._most // 1_000_000)


class _Body:
    def __init__(self, limits: Bodies, scope: Scope, receive: Receive, send: Send) -> None:
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

    async def _refuse(self, fault: Refused) -> Message:
        self._refused = True
        if not self._answering:
            await refuse(fault, self._scope, self._receive, self._send)
        return GONE
