"""How much may be asked for, and how large and slow a request may be."""

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from soutu.server.middleware import BodyLimit, TokenBuckets, add_middleware, client_network
from soutu.server.settings import GuardSettings


async def echo(request: Request):
    return PlainTextResponse(str(len(await request.body())))


def app():
    paths = ("/", "/api/v1/search", "/api/v1/thumbnails/1")
    return Starlette(routes=[Route(path, echo, methods=["GET", "POST"]) for path in paths])


def asking(guard):
    return TestClient(add_middleware(app(), guard), base_url="http://127.0.0.1")


def code(answer):
    assert answer.json()["error"]["status"] == answer.status_code
    return answer.json()["error"]["code"]


# --- rates -----------------------------------------------------------------------------------


def test_a_bucket_fills_again():
    now = [0.0]
    buckets = TokenBuckets(rate=2.0, burst=3.0, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == 0.5
    now[0] = 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_many_addresses_cost_no_memory():
    buckets = TokenBuckets(1.0, 1.0)
    for n in range(12_000):
        buckets.take(str(n))
    assert len(buckets._buckets) == 10_000


def test_searches_are_limited_and_pictures_hardly():
    client = asking(GuardSettings(rate=1.0))
    statuses = [client.get("/api/v1/search").status_code for _ in range(7)]
    assert statuses[:5] == [200] * 5
    assert 429 in statuses
    answer = client.get("/api/v1/search")
    assert code(answer) == "guard-rate"
    assert answer.headers["retry-after"] == "1"
    client = asking(GuardSettings(rate=1.0))
    assert {client.get("/api/v1/thumbnails/1").status_code for _ in range(100)} == {200}
    assert {client.get("/").status_code for _ in range(100)} == {200}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("testclient", "testclient", True),
    ],
)
def test_who_counts_as_one(one, other, same):
    networks = {client_network({"client": (address, 1)}) for address in (one, other)}
    assert (len(networks) == 1) is same


# --- bodies ----------------------------------------------------------------------------------


def test_a_body_that_is_too_large_by_its_own_word():
    client = asking(GuardSettings(body_bytes=1_000_000))
    assert client.post("/api/v1/search", content=b"x" * 1_000_000).text == "1000000"
    answer = client.post("/api/v1/search", content=b"x" * 1_000_001)
    assert (answer.status_code, code(answer)) == (413, "guard-large")


def test_a_body_that_does_not_say_how_large_it_is():
    client = asking(GuardSettings(body_bytes=1_000_000))
    answer = client.post("/api/v1/search", content=(b"x" * 1000 for _ in range(2000)))
    assert (answer.status_code, code(answer)) == (413, "guard-large")
    answer = client.post("/api/v1/search", content=iter([b"x" * 1000] * 1000))
    assert answer.text == "1000000"


def driven(messages, seconds):
    """What is sent by an app that reads all of its body, where ``messages`` arrive."""
    sent = []

    async def receive():
        message = messages.pop(0)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/search", "headers": []}
    scope |= {"query_string": b"lang=zh"}

    async def run():
        await asyncio.wait_for(BodyLimit(guarded_app, 100, seconds)(scope, receive, send), 5)

    guarded_app = app()
    asyncio.run(run())
    return sent


def test_a_body_that_does_not_come():
    part = {"type": "http.request", "body": b"x", "more_body": True}
    sent = driven([part, part, None], 0.05)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "guard-slow"
    assert len(sent) == 2


def test_a_body_that_comes_in_time():
    last = {"type": "http.request", "body": b"yz"}
    sent = driven([{"type": "http.request", "body": b"x", "more_body": True}, last], 5)
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"3")


def test_a_client_that_leaves():
    sent = driven([{"type": "http.disconnect"}], 5)
    assert not any(message.get("status") == 200 for message in sent)
