"""Connections that say nothing: closed, as uvicorn by itself does only between requests."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from soutu.journal import to_json
from soutu.server.problems import Refused, TooMuch, problem

PATIENCE = 15.0  # seconds from the first byte of a request, or a new connection, to its headers
HEADERS = 65_536  # bytes of them; the parser itself would take any number


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request's headers do not come within ``PATIENCE``: many of them
    would use up what a server may have open (the attack is called slowloris). More than
    ``HEADERS`` bytes of them are refused (431)."""

    _waiting: asyncio.TimerHandle | None = None
    _seen = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiting is not None:  # no header is whole yet that could be counted
            self._seen += len(data)
            if self._seen > HEADERS and not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._seen += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._seen > HEADERS:
            raise ValueError  # to the parser, which gives up and has it answered below
        self._stop()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Also where there are too many headers; in the shape of all other refusals."""
        self._stop()
        long = self._seen > HEADERS
        fault: Refused = (
            TooMuch("guard-headers", most=HEADERS // 1024) if long else Refused("guard-http")
        )
        body = to_json(problem(fault)).encode()
        phrase = HTTPStatus(fault.status).phrase
        head = (
            f"HTTP/1.1 {fault.status} {phrase}\r\nContent-Type: application/json\r\n"
            f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._seen = 0
        self._waiting = self.loop.call_later(PATIENCE, self.transport.abort)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
