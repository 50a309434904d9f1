"""Connections that are held open, and answers that are not taken, cost others nothing."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn

from soutu.server import media, serve
from soutu.server.middleware import add_middleware
from soutu.server.settings import GuardSettings
from tests.serving import ROOT, filled, read_answer, wait

TOKEN = "a-token-of-some-length"
SIGN_IN = b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 40\r\n\r\n"
CHUNKED = b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SEARCH = f"GET /api/v1/search?q=cat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
SERVER = """
import sys
from soutu.gallery import Gallery
from soutu.server import serve
from soutu.server.settings import GuardSettings, ServerSettings
settings = ServerSettings(GuardSettings(token=sys.argv[3]))
serve.serve(Gallery.open(sys.argv[1], mode="server"), settings,
            serve.listen("127.0.0.1", int(sys.argv[2])))
"""


def is_closed(connected, seconds=60):
    """Whether the other side ends the connection, whatever it says before."""
    connected.settimeout(seconds)
    try:
        while connected.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- A process with few files ----------------------------------------------------------------


@contextmanager
def small_server(root, files):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(root), str(port), TOKEN], env=env,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (min(files), max(files))),
    ) as process:  # fmt: skip
        try:
            wait(f"http://127.0.0.1:{port}", process)
            yield port
            process.terminate()
            assert b"Traceback" not in process.communicate(timeout=60)[1]
        finally:
            process.kill()


@pytest.mark.parametrize("files", [(200, 200), (200, 4000)])
@pytest.mark.parametrize(
    "sent", [SIGN_IN, SIGN_IN + b"{", b"", b"GET / HTTP/1.1\r\n", CHUNKED, SEARCH[:20].encode()]
)
def test_held_connections_keep_nobody_out(tmp_path, files, sent):
    root = filled(tmp_path, [f"{n}.jpg" for n in range(5)])
    with small_server(root, files) as port, ExitStack() as stack:
        for _ in range(400):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            with suppress(ConnectionError):
                held.sendall(sent)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), 60) as connected:
                connected.sendall(SEARCH.encode())
                assert read_answer(connected)[0] == 200


def test_a_client_with_a_token_is_not_closed_for_others(tmp_path):
    """It sends its body slowly, while others without a token come in hundreds."""
    root = filled(tmp_path, [f"{n}.jpg" for n in range(5)])
    body = json.dumps({"text": "cat"}).encode()
    head = f"POST /api/v1/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with small_server(root, (200, 200)) as port, ExitStack() as stack:
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
        slow.sendall(head.encode() + body[:5])
        for _ in range(400):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            with suppress(ConnectionError):
                held.sendall(SIGN_IN)
        slow.sendall(body[5:])
        assert read_answer(slow)[0] == 200


# --- In this process -------------------------------------------------------------------------


@contextmanager
def serving(app, limit=1000):
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            ready.set()

    class Protocol(serve.GuardedProtocol):
        table = serve.ConnectionTable(limit)

    def connect():
        return socket.create_connection(("127.0.0.1", port), 60)

    connect.table = Protocol.table
    config = uvicorn.Config(app, port=0, http=Protocol, log_level="critical", lifespan="off")
    server = Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    ready.wait(10)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield connect
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def answering(body=b"ok"):
    async def app(scope, receive, send):
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize("sent", [SIGN_IN, SIGN_IN + b"{", CHUNKED, CHUNKED + b"1\r\n{\r\n"])
def test_a_sign_in_that_does_not_come_is_given_up(sent):
    guarded = add_middleware(answering(), GuardSettings(token=TOKEN, body_seconds=0.2))
    with serving(guarded) as connect, connect() as connected:
        connected.sendall(sent)
        status, body = read_answer(connected)
        assert (status, json.loads(body)["error"]["code"]) == (408, "guard-slow")


def test_a_sign_in_in_pieces_is_taken():
    guarded = add_middleware(answering(), GuardSettings(token=TOKEN))
    body = json.dumps({"token": TOKEN}).encode()
    with serving(guarded) as connect, connect() as connected:
        connected.sendall(SIGN_IN.replace(b"40", b"%d" % len(body)))
        for byte in body:
            connected.sendall(bytes([byte]))
        assert connected.recv(65536).startswith(b"HTTP/1.1 204")


def trickle(connected, seconds=60):
    """Send a byte now and then; whether the other side has had enough."""
    end = time.monotonic() + seconds
    connected.settimeout(0.05)
    while time.monotonic() < end:
        try:
            connected.sendall(b"x")
            if not connected.recv(65536):
                return True
        except TimeoutError:
            pass
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHo",
    ],
)
def test_what_trickles_after_the_answer_is_cut(monkeypatch, head):
    monkeypatch.setattr(serve, "IDLE_TIMEOUT", 0.3)
    with serving(answering()) as connect, connect() as connected:
        connected.sendall(head)
        assert connected.recv(65536).startswith(b"HTTP/1.1 200")
        assert trickle(connected)


def test_the_rest_of_a_body_and_then_another_request(monkeypatch):
    with serving(answering()) as connect, connect() as connected:
        connected.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert read_answer(connected) == (200, b"ok")
        for rest in (b"a", b"bc"):
            connected.sendall(rest)
        connected.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connected) == (200, b"ok")
        monkeypatch.setattr(serve, "IDLE_TIMEOUT", 0.2)
        connected.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert read_answer(connected) == (200, b"ok")
        connected.sendall(b"abc")
        assert is_closed(connected), "it is as idle as any other"


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_who_does_not_read_is_cut(monkeypatch, close):
    """More than the system would keep for it."""
    monkeypatch.setattr(serve, "SEND_TIMEOUT", 0.3)
    with serving(answering(bytes(30_000_000))) as connect, connect() as connected:
        connected.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + close + b"\r\n")
        until(lambda: connect.table._count == 1)
        until(lambda: connect.table._count == 0)


def test_who_reads_slowly_but_steadily_is_not(monkeypatch):
    monkeypatch.setattr(serve, "SEND_TIMEOUT", 0.5)
    monkeypatch.setattr(serve, "MIN_SEND_RATE", 1000)
    size = 8_000_000
    with serving(answering(bytes(size))) as connect, connect() as connected:
        connected.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        while received < size:
            received += len(connected.recv(100_000))
            time.sleep(0.02)


def test_a_file_is_read_no_faster_than_it_is_sent(tmp_path):
    (tmp_path / "a.jpg").write_bytes(os.urandom(10 * media.CHUNK_BYTES))

    async def run():
        file = media.open_inside(tmp_path, ["a.jpg"], 1)
        chunks = file.chunks(0, file.status.st_size)
        first = await anext(chunks)
        assert (len(first), file.stream.tell()) == (media.CHUNK_BYTES, media.CHUNK_BYTES)
        rest = [chunk async for chunk in chunks]
        assert file.stream.closed
        return first + b"".join(rest)

    assert asyncio.run(run()) == (tmp_path / "a.jpg").read_bytes()


def test_the_table_closes_who_waits_longest():
    class Connection:
        def __init__(self, name):
            self.name, self.transport = name, self

        def abort(self):
            aborted.append(self.name)

    aborted = []
    table = serve.ConnectionTable(3)
    one, two, three, four, five, six = connections = [Connection(n) for n in range(6)]
    for each in connections[:3]:
        table.add(each)
    table.set_waiting(one, False)
    table.add(four)
    assert aborted == [1]
    table.remove(two)
    table.set_waiting(one, True)
    table.add(five)
    assert aborted == [1, 2]
    table.remove(three)
    for each in (one, four, five):
        table.set_waiting(each, False)
    table.add(six)
    assert aborted == [1, 2, 5], "nobody else can go"
