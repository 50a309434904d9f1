"""Run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from soutu.errors import BadInput
from soutu.gallery import Gallery
from soutu.searchlog.record import to_json
from soutu.server.app import create_server
from soutu.server.exceptions import HeadersTooLarge, HttpError, problem
from soutu.server.settings import ServerSettings

IDLE_TIMEOUT = 15.0  # seconds from the first byte of a request, or a new connection, to its headers
MAX_HEADER_BYTES = 65_536  # the parser itself would take any number
KEEP_ALIVE, GRACE = 15, 5  # seconds: between requests, and to finish what is going on


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free. BadInput where it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput("server-port", host=host, port=port, error=reason) from error
    return listener


def serve(
    gallery: Gallery,
    settings: ServerSettings,
    listener: socket.socket,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Answer at ``listener`` until SIGINT or SIGTERM; ``on_ready`` is called once it does."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_ready and not self.should_exit:
                on_ready()

    server = Server(
        uvicorn.Config(
            create_server(gallery, settings),
            http=IdleTimeoutProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
    )
    # Searches have threads of their own. Those of BLAS, which wait at full speed for the next small
    # product, took half of the machine from them.
    with _graceful_signals(server), threadpool_limits(1, user_api="blas"):
        server.run(sockets=[listener])


@contextmanager
def _graceful_signals(server: uvicorn.Server) -> Iterator[None]:
    """Stop without an error: uvicorn would raise the signal again, which ends the process."""

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class IdleTimeoutProtocol(HttpToolsProtocol):
    """Closes a connection whose request's headers do not come within ``IDLE_TIMEOUT``.

    Many of them would use up what a server may have open (the attack is called slowloris); uvicorn
    by itself closes only those that are idle between requests. More than ``MAX_HEADER_BYTES`` of
    headers are refused (431).
    """

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request from now on."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Count what may be headers."""
        super().data_received(data)
        if self._timer is not None:  # no header is complete yet that could be counted
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Wait for the headers from now on."""
        super().on_message_begin()
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Stop waiting, or refuse too many headers."""
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError  # to the parser, which gives up and has it answered below
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or has too many headers, in the shape of all refusals."""
        self._stop_timer()
        error = HttpError("guard-http")
        if self._header_bytes > MAX_HEADER_BYTES:
            error = HeadersTooLarge("guard-headers", most=MAX_HEADER_BYTES // 1024)
        body = to_json(problem(error)).encode()
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._header_bytes = 0
        self._timer = self.loop.call_later(IDLE_TIMEOUT, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
