"""Connections that say nothing: closed, as uvicorn by itself does only between requests."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PATIENCE = 15.0  # seconds from the first byte of a request, or a new connection, to its headers
HEADERS = 65_536  # bytes of them; the parser itself would take any number
TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request's headers do not come within ``PATIENCE``: many of them
    would use up what a server may have open (the attack is called slowloris). More than
    ``HEADERS`` bytes of them are refused (431)."""

    _waiting: asyncio.TimerHandle | None = None
    _seen = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._seen += len(data)
        if self._waiting is not None and self._seen > HEADERS and not self.transport.is_closing():
            self.transport.write(TOO_LONG)
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

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
