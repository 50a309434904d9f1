"""Run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from soutu.errors import BadInput
from soutu.gallery import Gallery
from soutu.searchlog.record import to_json
from soutu.server.app import create_app
from soutu.server.exceptions import HeadersTooLarge, HttpError, problem
from soutu.server.middleware import ADMIT, add_middleware
from soutu.server.service import SearchService
from soutu.server.settings import ServerSettings

MAX_CONNECTIONS = 4096
RESERVED_FILES = 128  # for the index, decoders, and connections that are not counted yet
ACCEPT_BATCH, BACKLOG = 32, 2048  # connections taken at a time, and that the system lets wait
SEND_TIMEOUT, MIN_SEND_RATE = 15.0, 4_000  # seconds; bytes a second
IDLE_TIMEOUT = 15.0  # seconds from the first byte of a request, or a new connection, to its headers
MAX_HEADER_BYTES = 65_536  # the parser itself would take any number
KEEP_ALIVE, GRACE = 15, 3  # seconds: between requests, and to finish what is going on


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
) -> bool:
    """Answer at ``listener`` until SIGINT or SIGTERM.

    ``on_ready`` is called once it does. Returns whether all work has ended: a search that does not
    within ``GRACE`` is left in its thread, which would keep Python from ending.
    """
    app = create_app(gallery, settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listener.listen(BACKLOG)  # which was set to how many are taken at a time
            if on_ready and not self.should_exit:
                on_ready()

    class Protocol(GuardedProtocol):
        table = ConnectionTable(_connection_limit())

    server = Server(
        uvicorn.Config(
            add_middleware(app, settings.guard),
            http=Protocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=ACCEPT_BATCH,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
    )
    # Searches have threads of their own. Those of BLAS, which wait at full speed for the next small
    # product, took half of the machine from them.
    with _graceful_signals(server), threadpool_limits(1, user_api="blas"):
        server.run(sockets=[listener])
    service: SearchService = app.state.service
    return service.is_idle


def _connection_limit() -> int:
    """Return how many connections there may be, after raising what the system allows."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    needed = MAX_CONNECTIONS + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(16, min(MAX_CONNECTIONS, soft - RESERVED_FILES))


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


class ConnectionTable:
    """Counts connections, and knows those that may be closed to make room for others.

    They are those of clients that have shown no right to be answered yet: half a request, no token,
    or nothing at all. Many of them would use up what a process may have open.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0
        self._waiting: dict[GuardedProtocol, None] = {}  # in order: the first waits longest

    def add(self, connection: GuardedProtocol) -> None:
        """Count a connection; where there are too many, abort the one that waits longest."""
        self._count += 1
        self._waiting[connection] = None
        if self._count > self._limit:
            first = next(iter(self._waiting))
            del self._waiting[first]
            first.transport.abort()

    def remove(self, connection: GuardedProtocol) -> None:
        """Forget a connection."""
        self._count -= 1
        self._waiting.pop(connection, None)

    def set_waiting(self, connection: GuardedProtocol, is_waiting: bool) -> None:
        """Say whether a connection may be closed."""
        self._waiting.pop(connection, None)
        if is_waiting:
            self._waiting[connection] = None


class GuardedProtocol(HttpToolsProtocol):
    """Ends connections that hold the server up; no client has to be patient with another.

    Closed are those whose request's headers do not come within ``IDLE_TIMEOUT`` (many would use up
    what a server may have open; the attack is called slowloris), those that do not take their
    answer (``MIN_SEND_RATE``), and those that wait longest where there are too many. More than
    ``MAX_HEADER_BYTES`` of headers are refused (431). uvicorn by itself closes only those that are
    idle between requests.
    """

    table = ConnectionTable(MAX_CONNECTIONS)
    _timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request from now on."""
        super().connection_made(transport)
        self._start_timer()
        self.table.add(self)

    def data_received(self, data: bytes) -> None:
        """Count what may be headers."""
        super().data_received(data)
        if self._timer is not None:  # no header is complete yet that could be counted
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("")
        elif self.cycle is None or self.cycle.response_complete:
            # The rest of a body that nobody reads: uvicorn has just stopped its own clock for it.
            self._start_timer()

    def on_message_begin(self) -> None:
        """Wait for the headers from now on."""
        super().on_message_begin()
        self._start_timer()
        if not self.flow.write_paused:
            self._stop_send_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Stop waiting, or refuse too many headers."""
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError  # to the parser, which gives up and has it answered below
        self._stop_timer()
        self.scope["extensions"] = {ADMIT: {"call": self._admit}}
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take the rest of this answer."""
        super().on_response_complete()
        self.table.set_waiting(self, not self.transport.is_closing())
        self._watch_sending()

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

    def pause_writing(self) -> None:
        """Begin to watch how fast the client takes what the app is held back for."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """Stop watching."""
        super().resume_writing()
        self._stop_send_timer()
        if self.cycle is None or self.cycle.response_complete:
            self._watch_sending()  # the rest

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        self._stop_send_timer()
        self.table.remove(self)
        super().connection_lost(exc)

    def _admit(self) -> None:
        """Keep the connection until its request is answered: it may ask."""
        self.table.set_waiting(self, False)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._header_bytes = 0
        self._timer = self.loop.call_later(IDLE_TIMEOUT, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_sending(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._send_timer is None:
            self._send_timer = self.loop.call_later(SEND_TIMEOUT, self._check_sending, left)

    def _check_sending(self, before: int) -> None:
        self._send_timer = None
        left = self.transport.get_write_buffer_size()
        if left and left > before - MIN_SEND_RATE * SEND_TIMEOUT:
            self.transport.abort()
        else:
            self._watch_sending()

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
