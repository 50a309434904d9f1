"""Both clients, against a small server that answers what the test says."""

import asyncio
import base64
import http.server
import inspect
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from soutu import AsyncClient, Client
from soutu.client import SearchOptions
from soutu.errors import BadConfig, BadImage, BadInput, BadQuery, RemoteUnavailable, SoutuError
from soutu.server.exceptions import Busy, Unauthorized, problem
from soutu.types import Term, Variant

CARD = {
    "name": "tiny", "dim": 4, "image_size": 8, "context_length": 7, "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash",
    "languages": ["zh", "en"], "license": "MIT", "space": "s", "fingerprint": "f",
}  # fmt: skip
ANSWER = {
    "query": {"raw": "灰猫", "terms": [{"kind": "text", "value": "灰猫", "weight": 1.0}],
              "filters": ["width > 1"]},
    "variants": [{"text": "灰猫", "weight": 1.0, "source": "original", "term": 0, "unused": ""}],
    "expanders": [{"name": "llm", "ms": 1.5, "proposed": 0, "fault": "no answer"}],
    "hits": [{"rank": 1, "score": 0.5, "cosine": 0.4, "confidence": 0.9, "id": 5, "path": "a.jpg",
              "also": ["b.jpg"], "caption": "猫", "width": 640, "height": 480}],
    "k": 5, "offset": 0, "more": False, "target": "images", "agreement": 0.8, "confidence": 0.9,
    "verdict": "unsure", "min_confidence": 0.1, "fusion": "auto", "correction": 0.35,
    "ranked_by": "vector", "reference": "r", "suggestions": ["name = 'a.jpg'"],
    "model": CARD, "timings": {"search_ms": 1.0},
    "index": {"generation": 3, "space": "s", "images": 1, "captions": 1},
    "vector": base64.b64encode(np.array([0, 1, 0, 0], "<f4").tobytes()).decode(),
}  # fmt: skip


@contextmanager
def serving(*answers):
    """A server that gives these answers, (status, body, headers) or a JSON value, in turn; the
    last again and again. Yields its address and what it was asked."""
    asked, left = [], list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, self.headers, body))
            answer = left.pop(0) if len(left) > 1 else left[0]
            status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Blocking:
    """An ``AsyncClient`` whose methods wait for the answer."""

    def __init__(self, *args, **options):
        self._client = AsyncClient(*args, **options)

    def __repr__(self):
        return repr(self._client)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **options: asyncio.run(method(*args, **options))


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def connect(request):
    return request.param


def refusing(fault):
    return problem(fault)["error"]["status"], problem(fault), getattr(fault, "headers", {})


def test_an_answer_is_the_same_result(connect):
    with serving(ANSWER) as (url, asked):
        result = connect(url, token="secret-token").search("灰猫", k=5, where="width > 1")
    (hit,) = result.hits
    assert (hit.path, hit.also, hit.confidence, hit.id) == ("a.jpg", ("b.jpg",), 0.9, 5)
    assert result.verdict == "unsure"
    assert result.suggestions == ("name = 'a.jpg'",)
    assert result.query.terms == (Term("text", "灰猫"),)
    assert result.query.filters == ("width > 1",)
    assert result.vector.dtype == np.float32
    assert result.vector.tolist() == [0, 1, 0, 0]
    assert result.model.languages == ("zh", "en")
    assert (result.index_state.generation, result.correction, result.k) == (3, 0.35, 5)
    assert "no answer" in str(result.expanders[0].error)
    method, path, headers, body = asked[0]
    assert (method, path) == ("POST", "/api/v1/search")
    assert headers["Authorization"] == "Bearer secret-token"
    assert json.loads(body) == {"text": "灰猫", "k": 5, "where": "width > 1", "vector": True}


def test_an_older_server_gives_no_verdict(connect):
    older = {
        name: value for name, value in ANSWER.items() if name not in ("verdict", "suggestions")
    }
    with serving(older) as (url, _):
        result = connect(url).search("灰猫")
    assert (result.verdict, result.suggestions) == (None, ())


def test_all_that_can_be_asked(connect):
    with serving(ANSWER) as (url, asked):
        variants = [Variant("gray cat", 0.5, "rules", 1)]
        connect(url).search("猫", offset=5, expand=False, variants=variants, min_confidence=0.0)
        connect(url).search(terms=[Term("text", "猫"), Term("image", "3", -0.5)])
        connect(url).search(image_id=7)
        connect(url).search("猫", log=False)
    first, second, third, fourth = (json.loads(body) for *_, body in asked)
    assert first["variants"] == [{"text": "gray cat", "weight": 0.5, "term": 1}]
    assert (first["offset"], first["expand"], first["min_confidence"]) == (5, False, 0.0)
    assert second["terms"] == [{"text": "猫", "weight": 1.0}, {"image_id": 3, "weight": -0.5}]
    assert third == {"image_id": 7, "k": 5, "vector": True}
    assert fourth == {"text": "猫", "k": 5, "vector": True, "log": False}


def test_a_picture_is_sent_as_it_is(tmp_path, connect):
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartParser

    file = tmp_path / "图.jpg"
    file.write_bytes(b"\xff\xd8--picture\r\n--")
    with serving(ANSWER) as (url, asked):
        connect(url).search(image=file, k=3)
        connect(url).captions(str(file), k=2)
        connect(url).captions(np.zeros((2, 3, 3), np.uint8), log=False)

    async def parts(body):
        yield body

    def form(headers, body):
        parser = MultiPartParser(Headers(dict(headers.items())), parts(body))
        return asyncio.run(parser.parse())

    found = [form(headers, body) for *_, headers, body in asked]
    assert found[0]["image"].file.read() == found[1]["image"].file.read() == file.read_bytes()
    assert json.loads(found[0]["request"]) == {"k": 3, "vector": True}
    assert (found[1]["k"], "log" in found[1], found[2]["log"]) == ("2", False, "false")
    assert found[2]["image"].file.read().startswith(b"\x89PNG")
    assert [path for _, path, *_ in asked] == ["/api/v1/search"] + ["/api/v1/captions"] * 2
    for one in found:
        one["image"].file.close()


def test_an_error_is_the_one_a_gallery_would_raise(connect):
    with serving(refusing(BadQuery("query-k", k=0))) as (url, _), pytest.raises(BadQuery) as caught:
        connect(url).search("猫", k=0)
    assert (caught.value.code, caught.value.fields) == ("query-k", {"k": 0})


@pytest.mark.parametrize(
    "error",
    [
        {"kind": "NotThere", "code": "query-k", "fields": {"k": 0}},
        {"kind": "BadQuery", "code": "of-a-later-version", "fields": {}},
        {"kind": "BadQuery", "code": "query-k", "fields": {}},
        {"kind": "BadQuery", "code": "query-k", "fields": 7},
        {"kind": "annotations", "code": "query-k", "fields": {}},
        {"kind": 5},
        {},
    ],
)
def test_an_error_that_is_not_known_is_said_in_the_servers_words(error, connect):
    told = 400, {"error": {"message": "so and so", **error}}, {}
    with serving(told) as (url, _), pytest.raises(BadInput, match="so and so"):
        connect(url).search("猫")


def test_a_token_that_is_wrong(connect):
    refusal = refusing(Unauthorized("guard-token"))
    with serving(refusal) as (url, _), pytest.raises(RemoteUnavailable) as caught:
        connect(url, token="secret-token").search("猫")
    assert caught.value.code == "client-refused"
    assert "secret-token" not in str(caught.value) + repr(connect(url, "secret-token"))


def test_a_busy_server_is_asked_again_for_as_long_as_there_is_time(connect):
    busy = refusing(Busy("guard-rate", retry_after=0))
    with serving(busy, busy, ANSWER) as (url, asked):
        assert connect(url).search("猫").hits
        assert len(asked) == 3
    later = refusing(Busy("guard-rate", retry_after=60))
    with serving(later) as (url, asked):
        with pytest.raises(RemoteUnavailable) as caught:
            connect(url, timeout=2).search("猫")
        assert (caught.value.code, len(asked)) == ("client-failed", 1)


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", [], {}, {**ANSWER, "hits": [{}]}, {**ANSWER, "model": None},
               {**ANSWER, "vector": "abc"}, b"[" * 100_000]
)  # fmt: skip
def test_what_is_no_answer(answer, connect):
    with serving((200, answer, {})) as (url, _), pytest.raises(RemoteUnavailable) as caught:
        connect(url).search("猫")
    assert caught.value.code == "client-answer"


def test_redirects_are_not_followed_and_nobody_is_there(connect):
    moved = 302, b"", {"Location": "http://127.0.0.1:1/"}
    with serving(moved) as (url, asked), pytest.raises(RemoteUnavailable):
        connect(url, token="secret-token").search("猫")
    assert len(asked) == 1
    with pytest.raises(RemoteUnavailable) as caught:
        connect(url).search("猫")
    assert caught.value.code == "client-unreachable"


@pytest.mark.parametrize("url", ["", "photos", "ftp://x", "http://", "http://a:b@c", "http://x:0",
                                 "http://x:99999", "http://x/?a", "http://例"])  # fmt: skip
def test_an_address_that_is_none(url, connect):
    with pytest.raises(BadConfig):
        connect(url).search("猫")


def test_a_token_that_cannot_be_sent_and_a_picture_that_cannot_be_read(tmp_path, connect):
    with pytest.raises(BadConfig):
        connect("http://127.0.0.1:1", token="a\nb").search("猫")
    with pytest.raises(BadImage):
        connect("http://127.0.0.1:1").search(image=tmp_path / "none.jpg")
    assert issubclass(BadImage, SoutuError)


def test_the_command_line_asks_a_server(soutu, monkeypatch):
    with serving(ANSWER) as (url, asked):
        code, out, _ = soutu("search", "灰猫", "--server", url, "--no-expand", "-k", 3)
        assert (code, "a.jpg" in out, "猫" in out) == (0, True, True)
        assert json.loads(asked[-1][3])["expand"] is False
        monkeypatch.setenv("SOUTU_SERVER", url)
        monkeypatch.setenv("SOUTU_TOKEN", "token-of-the-environment")
        assert soutu("search", "灰猫", "--paths-only")[1] == "a.jpg\n"
        assert asked[-1][2]["Authorization"] == "Bearer token-of-the-environment"
        assert json.loads(soutu("search", "灰猫", "--json")[1])["hits"][0]["path"] == "a.jpg"
        code, _, err = soutu("search", "灰猫", "--fusion", "mean", "--model", "tiny")
        assert (code, "--fusion" in err, "--model" in err) == (2, True, True)
    assert soutu("search", "灰猫", "--server", url)[0] == 6
    nothing = {**ANSWER, "hits": [], "confidence": 0.05}
    with serving(nothing) as (url, _):
        code, _, err = soutu("search", "火箭", "--server", url)
        assert (code, "Nothing here matches" in err) == (1, True)


def test_many_questions_at_once():
    async def search(client):
        return await asyncio.gather(*(client.search("灰猫", k=k) for k in range(1, 5)))

    with serving(ANSWER) as (url, asked):
        results = asyncio.run(search(AsyncClient(url)))
    assert [result.hits[0].path for result in results] == ["a.jpg"] * 4
    assert sorted(json.loads(body)["k"] for *_, body in asked) == [1, 2, 3, 4]


def test_both_clients_have_the_same_methods_and_parameters():
    def methods(kind):
        return {name for name in vars(kind) if not name.startswith("_")} - {
            "url",
            "token",
            "timeout",
        }

    assert methods(Client) == methods(AsyncClient)
    names = [name for name in inspect.signature(Client.search).parameters if name != "self"]
    assert ["text", *SearchOptions.__annotations__] == names
