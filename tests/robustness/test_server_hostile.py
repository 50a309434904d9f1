"""Hostile requests, each with the answer it gets (docs/safety.md has the table); and the server
serves on. A process of its own, with times short enough to wait for."""

import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.cases.test_image_bombs import with_scans
from tests.serving import ROOT, filled, read_answer, wait

SERVER = """
import sys
from soutu.gallery import Gallery
from soutu.server import serve
from soutu.server.settings import GuardSettings, ServerSettings
serve.IDLE_TIMEOUT = 1.0
guard = GuardSettings(body_seconds=1.0)
serve.serve(Gallery.open(sys.argv[1], mode="server"), ServerSettings(guard),
            serve.listen("127.0.0.1", int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = filled(tmp_path_factory.mktemp("hostile"), [f"{n}.jpg" for n in range(30)])
    (root.parent / "secret.jpg").write_bytes(b"kept to itself")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", SERVER, str(root), str(port)]
    log = root / "log"
    with log.open("wb") as kept, subprocess.Popen(command, env=env, stderr=kept) as process:
        try:
            wait(f"http://127.0.0.1:{port}", process)
            yield port
            assert process.poll() is None
            assert b"Traceback" not in log.read_bytes()
        finally:
            process.terminate()


def ask(port, *parts, seconds=30):
    """Send ``parts`` and read until the other side has no more: status and body; 0 where it closed
    the connection without a word."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connected:
        # It may have answered already, and listen no more.
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connected.sendall(part)
        return read_answer(connected)


def get(path, *headers):
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: 127.0.0.1", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(path, body, kind=b"application/json", *headers, length=None):
    lines = [
        b"POST " + path + b" HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: " + kind,
        b"Content-Length: %d" % (len(body) if length is None else length), *headers,
    ]  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def upload(data):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data
    return post(SEARCH, body + b"\r\n--x--\r\n", b"multipart/form-data; boundary=x")


def png(width, height, *chunks):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    whole = [*chunks, (b"IDAT", zlib.compress(b"\0" * 1_000_000, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*one) for one in whole)


def bomb_text():
    """A PNG whose note of a few kilobytes unpacks to 100 MB."""
    note = b"a\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    return png(400, 400, (b"zTXt", note))


def bomb_gif():
    """A GIF that claims 65,535 × 65,535 pixels."""
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0" \
        + struct.pack("<HH", 65535, 65535) + b"\0\x02\x02D\x01\0;"  # fmt: skip


def zipped():
    kept = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", b"\0" * 50_000_000)
    return kept.getvalue()


SEARCH, SESSION = b"/api/v1/search", b"/api/v1/session"
CHUNKED = (
    b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/json\r\n\r\n"
)
HOSTILE = {
    "path with .. (encoded) as an id": (lambda: [get(b"/api/v1/images/..%2f..%2fsecret.jpg")], 404),
    "path with .. in the address": (lambda: [get(b"/api/v1/images/../../../etc/passwd")], 404),
    "an id that is no number": (lambda: [get(b"/api/v1/thumbnails/1;ls")], 400),
    "an id of 5,000 digits": (lambda: [get(b"/api/v1/images/" + b"9" * 5000)], 400),
    "a page file outside of the page": (lambda: [get(b"/static/..%2f..%2f__init__.py")], 404),
    "a file of the server in a query": (lambda: [get(SEARCH + b"?q=%2Fetc%2Fpasswd")], 400),
    "a NUL in the address": (lambda: [get(b"/static/app.css%00.png")], 404),
    "bytes that are no UTF-8 in the address": (lambda: [get(SEARCH + b"?q=%ff%fe")], 200),
    "bytes that are no UTF-8 in the body": (lambda: [post(SEARCH, b'{"text": "\xff\xfe"}')], 400),
    "half a surrogate in the body": (lambda: [post(SEARCH, b'{"text": "\\ud800"}')], 400),
    "JSON 100,000 levels deep": (lambda: [post(SEARCH, b"[" * 100_000)], 400),
    "a number without end": (lambda: [post(SEARCH, b'{"text":"a","k":1e400}')], 400),
    "a million terms": (
        lambda: [post(SEARCH, b'{"terms":[' + b'{"text":"a"},' * 10**6 + b'{"text":"a"}]}')], 413),
    "a filter that tries SQL": (
        lambda: [post(SEARCH, b'{"text":"a","where":"name = \'\'; drop table images"}')], 400),
    "a filter 100 levels deep": (
        lambda: [post(SEARCH, b'{"text":"a","where":"' + b"(" * 5000 + b'"}')], 400),
    "a PNG of 10⁹ pixels": (lambda: [upload(png(40_000, 25_000))], 400),
    "a GIF of 4 · 10⁹ pixels": (lambda: [upload(bomb_gif())], 400),
    "a PNG whose note unpacks to 100 MB": (lambda: [upload(bomb_text())], 200),
    "a JPEG of 500 scans": (lambda: [upload(with_scans(500))], 400),
    "a PNG of a million empty chunks": (
        lambda: [upload(png(400, 400, *[(b"IDAT", b"")] * 10**6))], 400),
    "texts of 600,000 characters": (
        lambda: [post(SEARCH, json.dumps({"terms": [{"text": "x" * 18_000}] * 32}).encode())], 400),
    "a zip of 50 MB of nothing": (lambda: [upload(zipped())], 400),
    "an SVG with a script": (lambda: [upload(b"<svg onload='alert(1)'/>")], 400),
    "a packed body": (lambda: [post(SEARCH, zlib.compress(b"x" * 10**7), b"application/json",
                                    b"Content-Encoding: deflate")], 400),
    "a body of 100 MB, as it says": (
        lambda: [post(SEARCH, b"", length=100_000_000), *[b"x" * 10**6] * 100], 413),
    "a body of 100 MB in pieces": (
        lambda: [CHUNKED, *[b"f4240\r\n" + b"x" * 10**6 + b"\r\n"] * 100, b"0\r\n\r\n"], 413),
    "a body that stops halfway": (lambda: [post(SEARCH, b'{"text": ', length=1000)], 408),
    "a sign-in that stops halfway": (lambda: [post(SESSION, b"{", length=40)], 408),
    "a request that stops in its headers": (lambda: [b"GET / HTTP/1.1\r\nHost: 127"], 0),
    "a connection that says nothing": (lambda: [b""], 0),
    "headers of 100 kB": (lambda: [get(b"/", b"X-A: " + b"y" * 100_000)], 431),
    "what is no HTTP": (lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20], 400),
    "another site's page": (lambda: [post(SEARCH, b"{}", b"text/plain",
                                          b"Origin: https://evil.example")], 403),
    "a name that is pointed here": (
        lambda: [get(b"/", b"").replace(b"127.0.0.1", b"evil.example")], 421),
    "a method that there is not": (lambda: [get(SEARCH).replace(b"GET", b"PATCH")], 405),
    "an address to fetch from inside": (
        lambda: [post(SEARCH, b'{"image_url":"http://169.254.169.254/latest/meta-data"}')], 400),
}  # fmt: skip


def serves_on(port):
    status, body = ask(port, get(SEARCH + b"?q=cat"))
    assert status == 200
    assert b'"hits":[{' in body


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_answered(server, name):
    made, wanted = HOSTILE[name]
    status, body = ask(server, *made())
    assert status == wanted, body[:500]
    for word in (b"Traceback", b"kept to itself", b"root:", b"<script", str(ROOT).encode()):
        assert word not in body
    serves_on(server)


def test_a_thousand_at_once(server):
    """All are answered: with results, or with when to come again."""
    with ThreadPoolExecutor(250) as pool:
        waves = pool.map(
            lambda n: ask(server, get(SEARCH + b"?q=cat%d" % n), seconds=60), range(1000)
        )
        statuses = [status for status, _ in waves]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 250
    opened = [socket.create_connection(("127.0.0.1", server), 60) for _ in range(1000)]
    try:
        for number, one in enumerate(opened):
            one.sendall(get(SEARCH + b"?q=dog%d" % number))
        heads = [one.recv(65536) for one in opened]
    finally:
        for one in opened:
            one.close()
    found = [int(head.split()[1]) for head in heads]
    assert set(found) <= {200, 503}
    refused = next((head for head in heads if b" 503 " in head[:20]), None)
    assert refused is None or b"retry-after" in refused.lower()
    serves_on(server)


def test_the_table_in_the_documentation_is_this_one():
    text = (ROOT / "docs" / "safety.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| (\d+|closed)[^|]*\|$", text, re.M))
    wanted = {name: str(status or "closed") for name, (_, status) in HOSTILE.items()}
    assert rows == wanted
