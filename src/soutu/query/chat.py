"""One question to a server that speaks OpenAI's ``chat/completions``: Ollama, llama.cpp, vLLM, a
paid one. The standard library is enough for it; proxies are not used, redirects not followed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Timer
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from soutu.config import on_this_machine
from soutu.errors import BadConfig, RemoteUnavailable

if TYPE_CHECKING:
    from http.client import HTTPConnection

LONGEST = 1_000_000  # bytes of an answer
_REFORMULATE = (400, 422)  # how servers refuse a field that they do not know
_STATUS = {401: "llm-refused", 403: "llm-refused", 404: "llm-nowhere", 429: "llm-busy"}


@dataclass(frozen=True)
class Endpoint:
    """``url`` is what ``/chat/completions`` is added to, ``timeout`` the seconds that a question
    may take altogether. ``key`` is sent as a bearer token; it is never shown."""

    url: str
    model: str
    timeout: float = 5.0
    key: str = field(default="", repr=False)


def complete(
    endpoint: Endpoint, messages: Sequence[Mapping[str, str]], schema: Mapping[str, object]
) -> str:
    """What the model answers to ``messages``, asked to keep to a JSON ``schema`` (and to JSON
    where the server knows no schemas). Whether it does is for the caller to check. Raises BadConfig
    for an endpoint that cannot be used, RemoteUnavailable for a server at fault."""
    target = _checked(endpoint)
    deadline = time.monotonic() + endpoint.timeout
    asked = {"model": endpoint.model, "messages": list(messages), "stream": False}
    strict = {"type": "json_schema", "json_schema": dict(schema)}
    first = {**asked, "temperature": 0, "max_tokens": 500, "response_format": strict}
    status, data = _post(endpoint, target, first, deadline)
    if status in _REFORMULATE:
        plainer = {**asked, "response_format": {"type": "json_object"}}
        status, data = _post(endpoint, target, plainer, deadline)
    if status != 200:
        raise RemoteUnavailable(_STATUS.get(status, "llm-status"), url=endpoint.url, status=status)
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        content = None
    if len(data) > LONGEST or not isinstance(content, str):
        raise RemoteUnavailable("llm-envelope", url=endpoint.url)
    return content


def _checked(endpoint: Endpoint) -> SplitResult:
    """No fault shows the key, or an address that has a password in it."""
    url, key = endpoint.url, endpoint.key
    try:
        target = urlsplit(url)
        usable = target.scheme in ("http", "https") and target.hostname and target.port != 0
    except ValueError:
        raise BadConfig("llm-url") from None
    odd = "@" in target.netloc or target.query or target.fragment or " " in url
    if not usable or odd or not url.isascii() or not url.isprintable():
        raise BadConfig("llm-url")
    if not endpoint.model:
        raise BadConfig("llm-model", url=url)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadConfig("llm-key")
    if key and target.scheme == "http" and not on_this_machine(url):
        raise BadConfig("llm-key-plain", url=url)
    return target


def _post(
    endpoint: Endpoint, target: SplitResult, body: Mapping[str, object], deadline: float
) -> tuple[int, bytes]:
    """Status and body; of a longer one, a byte more than ``LONGEST``."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    path = f"{target.path.rstrip('/')}/chat/completions"
    from http.client import HTTPException  # 15 ms that a cached answer need not pay

    try:
        with _connected(target, deadline) as connection:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            status, data = response.status, response.read(LONGEST + 1)
    except (OSError, HTTPException) as fault:
        _check_time(endpoint, deadline)
        told = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise RemoteUnavailable("llm-unreachable", url=endpoint.url, fault=told) from fault
    _check_time(endpoint, deadline)
    return status, data


def _check_time(endpoint: Endpoint, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise RemoteUnavailable("llm-slow", url=endpoint.url, seconds=f"{endpoint.timeout:g}")


@contextmanager
def _connected(target: SplitResult, deadline: float) -> Iterator[HTTPConnection]:
    """A connection that is cut at the deadline: a socket's own timeout begins anew with every
    byte, and a server that sends one now and then would never run into it."""
    from http.client import HTTPConnection, HTTPSConnection

    kind = HTTPSConnection if target.scheme == "https" else HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=_left(deadline))
    try:
        connection.connect()
        watch = Timer(_left(deadline), _cut, [connection.sock])
        watch.daemon = True
        watch.start()
        try:
            yield connection
        finally:
            watch.cancel()
    finally:
        connection.close()


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
