"""Answers that are text are compressed for those who take it; pictures never are."""

import asyncio
import gzip
import json
import shutil
import zlib

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server.app import create_server
from soutu.server.middleware import MIN_COMPRESSED_BYTES, Compression, accepts_gzip
from soutu.server.settings import ServerSettings

BASE = "/api/v1"
LONG = f"{BASE}/search?q=cat&k=30"
PAGE = ["/", "/static/main.js", "/static/app.css", f"{BASE}/openapi.json", LONG]


@pytest.fixture(scope="module")
def api(demo_indexed, tmp_path_factory):
    folder = shutil.copytree(demo_indexed, tmp_path_factory.mktemp("packed") / "photos")
    gallery = Gallery.open(folder, model="tiny", mode="server")
    with TestClient(
        create_server(gallery, ServerSettings()), base_url="http://localhost"
    ) as client:
        assert client.get(LONG).status_code == 200
        yield client


def fetch(api, path, encoding, method="GET", **headers):
    """The answer, and its body as it was sent."""
    if encoding is not None:
        headers["Accept-Encoding"] = encoding
    with api.stream(method, path, headers={"Accept-Encoding": "", **headers}) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("path", PAGE)
def test_text_is_a_third_as_long(api, path):
    plain, whole = fetch(api, path, None)
    packed, body = fetch(api, path, "gzip")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-length"] == str(len(body))
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert len(body) < len(whole) / 2
    if path != LONG:  # which says how long it took
        assert gzip.decompress(body) == whole
    assert packed.headers["content-type"] == plain.headers["content-type"]


@pytest.mark.parametrize("path", PAGE[:4])
def test_head_says_what_get_would(api, path):
    for encoding in ("gzip", "identity"):
        answer, body = fetch(api, path, encoding)
        head, nothing = fetch(api, path, encoding, "HEAD")
        assert (head.status_code, nothing) == (200, b"")
        assert head.headers["content-length"] == str(len(body))
        for name in ("content-encoding", "vary", "etag", "content-type"):
            assert head.headers.get(name) == answer.headers.get(name), name


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("GZIP", True), ("x-gzip", True), ("*", True), ("br, gzip;q=0.5", True),
     ("identity;q=0.5, gzip", True), ("gzip;q=0.001", True), ("*;q=0.1, identity;q=0", True),
     ("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("*;q=0", False), ("gzip;q=0, *", False), ("identity, gzip;q=0.5", False),
     ("gzippy", False), ("deflate;q=1, br;q=1", False)],
)  # fmt: skip
def test_what_a_client_takes(api, header, taken):
    assert accepts_gzip(header) == taken
    answer, _ = fetch(api, "/", header)
    assert ("content-encoding" in answer.headers) == taken


def test_short_answers_and_pictures_stay_as_they_are(api):
    etag = ""
    for path in (f"{BASE}/health", f"{BASE}/images/1", f"{BASE}/thumbnails/1?size=256"):
        answer, body = fetch(api, path, "gzip")
        assert (answer.status_code, "content-encoding" in answer.headers) == (200, False)
        assert answer.headers["content-length"] == str(len(body))
        etag = answer.headers.get("etag", etag)
    assert not etag.startswith("W/")
    part, body = fetch(api, f"{BASE}/images/1", "gzip", Range="bytes=0-1999")
    assert (part.status_code, len(body)) == (206, 2000)
    assert "content-encoding" not in part.headers


def test_what_the_client_has_packed_is_known_again(api):
    packed, _ = fetch(api, "/static/main.js", "gzip")
    plain, _ = fetch(api, "/static/main.js", None)
    assert packed.headers["etag"] == plain.headers["etag"]
    assert plain.headers["etag"].startswith("W/"), "the same content in other bytes"
    for etag in (packed.headers["etag"], plain.headers["etag"]):
        for encoding in ("gzip", "identity"):
            headers = {"If-None-Match": etag}
            answer, body = fetch(api, "/static/main.js", encoding, **headers)
            assert (answer.status_code, body) == (304, b"")
            assert answer.headers["vary"] == "Accept-Encoding"


def test_each_line_of_a_stream_can_be_read_as_it_comes(api):
    answer, body = fetch(api, LONG, "gzip", Accept="application/x-ndjson")
    lines = [json.loads(line) for line in gzip.decompress(body).splitlines()]
    assert (len(lines), "content-length" in answer.headers) == (31, False)

    async def app(scope, receive, send):
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for line in (b"first\n", b"second\n"):
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
    asyncio.run(Compression(app)(scope, None, send))
    reader = zlib.decompressobj(31)
    assert [reader.decompress(message["body"]) for message in sent[1:3]] == [
        b"first\n",
        b"second\n",
    ]
    assert (reader.decompress(sent[3]["body"]), reader.eof) == (b"", True)


def test_an_error_is_read_all_the_same(api):
    text = "x" * 2 * MIN_COMPRESSED_BYTES
    answer = api.get(f"{BASE}/search", params={"q": "cat", "where": f"nothing = '{text}'"})
    assert answer.json()["error"]["code"].startswith("where-")
