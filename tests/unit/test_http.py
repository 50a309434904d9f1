"""One request: its deadline, its limits, and which addresses are any."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from soutu.http import (
    DeadlineExceeded,
    RequestError,
    encode_form,
    send_request,
    split_base_url,
    split_url,
)


@contextmanager
def answering(*chunks, pause=0.0):
    """A server that sends these bytes to whoever asks; yields its port and what it was sent."""
    listener, received, done = socket.create_server(("127.0.0.1", 0)), [], threading.Event()

    def answer():
        connection, _ = listener.accept()
        with connection:
            received.append(connection.recv(65536))
            for chunk in chunks:
                try:
                    connection.sendall(chunk)
                except OSError:  # the other side has given up
                    return
                done.wait(pause)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        done.set()
        thread.join()
        listener.close()


def get(url, seconds=5.0, max_bytes=1000, **options):
    deadline = time.monotonic() + seconds
    return send_request(
        "GET", split_url(url), {}, deadline=deadline, max_bytes=max_bytes, **options
    )


def test_an_answer_with_its_headers():
    with answering(b"HTTP/1.1 418 No\r\nRetry-After: 3\r\n\r\nabc") as (port, received):
        response = get(f"http://127.0.0.1:{port}/a?b=c")
    assert (response.status, response.headers["retry-after"], response.body) == (418, "3", b"abc")
    assert received[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")


def test_the_host_stays_where_an_address_is_given():
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (port, received):
        get(f"http://pictures.example:{port}/", address="127.0.0.1")
    assert f"Host: pictures.example:{port}\r\n".encode() in received[0]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 100],  # ends where the connection does
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 100],
        [b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 90],
        [b""] * 100,
    ],
    ids=["endless", "body", "headers", "silent"],
)
def test_a_deadline_holds_for_the_whole_answer(chunks):
    with answering(*chunks, pause=0.1) as (port, _):
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            get(f"http://127.0.0.1:{port}/", seconds=0.3)
        assert time.monotonic() - begin < 5  # all of it would take 9 seconds


def test_a_longer_body_is_cut_to_a_byte_more():
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000) as (port, _):
        assert len(get(f"http://127.0.0.1:{port}/", max_bytes=10).body) == 11


@pytest.mark.parametrize(
    "answer", [b"", b"220 mail.example\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
def test_what_is_no_whole_answer_is_an_error_with_a_reason(answer):
    with answering(answer) as (port, _), pytest.raises(RequestError, match=r"^\w+: \S") as caught:
        get(f"http://127.0.0.1:{port}/")
    assert not isinstance(caught.value, DeadlineExceeded)


def test_a_name_that_cannot_be_looked_up_is_an_error():
    with pytest.raises(RequestError):
        get(f"http://{'a' * 70}.example/")


@pytest.mark.parametrize("url", ["", "x", "ftp://x", "http://", "http://a@x", "http://x:0/",
                                 "http://x:99999/", "http://x/ y", "http://[::1"])  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError):  # noqa: PT011
        split_url(url)
    assert split_url("https://x:8/y?z").port == 8
    for base in ("http://x/?a", "http://x/#a"):
        with pytest.raises(ValueError, match="base"):
            split_base_url(base)


def test_a_form_is_read_as_it_was_written():
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartParser

    content_type, body = encode_form({"image": b"\xff--\r\n", "k": "5"})

    async def parts():
        yield body

    form = asyncio.run(MultiPartParser(Headers({"Content-Type": content_type}), parts()).parse())
    assert form["k"] == "5"
    assert form["image"].file.read() == b"\xff--\r\n"
    form["image"].file.close()
