"""Running the server until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from soutu.errors import BadInput, MissingExtra
from soutu.gallery import Gallery
from soutu.searchlog.record import to_json
from soutu.server.exceptions import HeadersTooLarge, HttpError, problem
from soutu.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

# Connections that say nothing: closed, as uvicorn by itself does only between requests.


IDLE_TIMEOUT = 15.0  # seconds from the first byte of a request, or a new connection, to its headers
HEADERS = 65_536  # bytes of them; the parser itself would take any number


class IdleTimeoutProtocol(HttpToolsProtocol):
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
        fault: HttpError = (
            HeadersTooLarge("guard-headers", most=HEADERS // 1024)
            if long
            else HttpError("guard-http")
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
        self._waiting = self.loop.call_later(IDLE_TIMEOUT, self.transport.abort)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


KEEP_ALIVE, GRACE = 15, 5  # seconds: between requests, and to finish what is going on


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any that is free. BadInput where it cannot."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen(2048)
        except OSError:
            taken.close()
            raise
    except (OSError, OverflowError, UnicodeError) as fault:
        told = getattr(fault, "strerror", None) or str(fault)
        raise BadInput("server-port", host=host, port=port, error=told) from fault
    return taken


def serve(
    gallery: Gallery,
    settings: ServerSettings,
    taken: socket.socket,
    ready: Callable[[], None] | None = None,
) -> None:
    """Answer at ``taken`` until SIGINT or SIGTERM; ``ready`` is called once it does. MissingExtra
    without the extra ``server``."""
    try:
        import uvicorn
        from threadpoolctl import threadpool_limits

        from soutu.server.app import create_server
    except ImportError as fault:
        raise MissingExtra("server-extra") from fault

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ready and not self.should_exit:
                ready()

    config = uvicorn.Config(
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
    server = Server(config)
    # Searches have threads of their own. Those of BLAS, which wait at full speed for the next small
    # product, took half of the machine from them.
    with _graceful_signals(server), threadpool_limits(1, user_api="blas"):
        server.run(sockets=[taken])


@contextmanager
def _graceful_signals(server: uvicorn.Server) -> Iterator[None]:
    """uvicorn stops when it is told to, and then raises the signal again, which would end the
    process before it has said so. Here, to be told to stop is no fault."""

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
