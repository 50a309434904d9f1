"""Running the server until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soutu.errors import BadInput, MissingExtra
from soutu.gallery import Gallery
from soutu.server.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

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
        raise BadInput("server-port", host=host, port=port, fault=told) from fault
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
        from soutu.server.patience import PatientProtocol
    except ImportError as fault:
        raise MissingExtra("server-extra") from fault

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ready and not self.should_exit:
                ready()

    config = uvicorn.Config(
        create_server(gallery, settings),
        http=PatientProtocol,
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
    with _heeding(server), threadpool_limits(1, user_api="blas"):
        server.run(sockets=[taken])


@contextmanager
def _heeding(server: uvicorn.Server) -> Iterator[None]:
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
