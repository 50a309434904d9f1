"""Connections that say nothing, or never stop."""

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress

import uvicorn

from soutu.server import serve


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})  # fmt: skip
        await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving():
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            ready.set()

    config = uvicorn.Config(app, port=0, http=serve.GuardedProtocol, log_level="critical",
                            lifespan="off", timeout_keep_alive=30)  # fmt: skip
    server = Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def answer(port, *sent):
    with socket.create_connection(("127.0.0.1", port), 5) as connected:
        for part in sent:
            connected.sendall(part)
        return connected.recv(10_000)


def test_silence_and_half_a_request_are_ended(monkeypatch):
    monkeypatch.setattr(serve, "IDLE_TIMEOUT", 0.2)
    with serving() as port:
        for sent in (b"", b"GET / HTTP/1.1\r\nHo"):
            with suppress(ConnectionResetError):
                assert answer(port, sent) == b""


def test_a_request_and_the_next_on_the_same_connection(monkeypatch):
    monkeypatch.setattr(serve, "IDLE_TIMEOUT", 1.0)
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving() as port, socket.create_connection(("127.0.0.1", port), 5) as connected:
        for _ in range(2):
            connected.sendall(whole)
            received = b""
            while not received.endswith(b"ok"):
                received += connected.recv(10_000)
            assert received.startswith(b"HTTP/1.1 200")
        connected.sendall(whole[:10])  # half of a third
        with suppress(ConnectionResetError):
            assert connected.recv(10_000) == b""


def test_headers_without_end():
    with serving() as port:
        many = b"GET / HTTP/1.1\r\n" + b"X-A: " + b"y" * 70_000
        assert answer(port, many).startswith(b"HTTP/1.1 431")
        assert answer(port, b"GET / HTTP/1.1\r\nX-A: " + b"y" * 30_000 + b"\r\n\r\n").startswith(
            b"HTTP/1.1 200"
        )
