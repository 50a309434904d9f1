"""Send one HTTP request and read its answer, for all that asks other servers.

Every request has a deadline over connecting, TLS and the last byte of the answer: a socket's own
timeout begins again with each byte, so a server that drips would never meet it. Redirects are not
followed, proxies are not used, and no more of a body is read than was allowed. The standard library
does this in less code than httpx, whose timeouts hold for each read and whose import takes longer
than a search. Models are fetched with httpx, since that follows redirects and proxies.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from threading import Timer
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

PORTS = {"http": 80, "https": 443}


class HttpResponse(NamedTuple):
    """Status, headers by their names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RequestError(Exception):
    """A request that got no answer; the text says why in one line, the cause is the exception."""


class DeadlineExceeded(RequestError):
    """The answer was not complete by the deadline."""


def split_url(url: str) -> SplitResult:
    """Split an http or https address.

    Raises
    ------
    ValueError
        For any other address, and for one with a user name or with characters that do not belong
        into a request line.
    """
    target = urlsplit(url)
    plain = url.isascii() and url.isprintable() and " " not in url and "@" not in target.netloc
    if not plain or target.scheme not in PORTS or not target.hostname or target.port == 0:
        raise ValueError("no http address")
    return target


def split_base_url(url: str) -> SplitResult:
    """Split an address to which paths are added; ValueError also for a query or a fragment."""
    target = split_url(url)
    if target.query or target.fragment:
        raise ValueError("no base address")
    return target


def send_request(
    method: str,
    target: SplitResult,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    deadline: float,
    max_bytes: int,
    address: str | None = None,
) -> HttpResponse:
    """Send a request to ``target`` and read the answer.

    Parameters
    ----------
    target
        As ``split_url`` returns it; its path and query are asked for.
    deadline
        On ``time.monotonic()``, for everything from connecting to the last byte.
    max_bytes
        Of the answer's body. A longer one is cut to a byte more, so that callers can tell.
    address
        The IP address to connect to instead of looking the host up. The ``Host`` header and the
        name that TLS verifies are still those of ``target``.

    Raises
    ------
    DeadlineExceeded
        Where the deadline passed before all was there.
    RequestError
        For whatever else went wrong on the way; a status is never an error.
    """
    # 15 ms that those who find their answer in a cache need not pay.
    import ssl
    from http.client import HTTPConnection, HTTPException, IncompleteRead

    host, port = target.hostname or "", target.port or PORTS[target.scheme]
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    try:
        with closing(HTTPConnection(host, port)) as connection:
            connection.default_port = PORTS[target.scheme]  # which the header Host leaves out
            connected = socket.create_connection((address or host, port), _seconds_left(deadline))
            connection.sock = connected
            if target.scheme == "https":
                connection.sock = ssl.create_default_context().wrap_socket(
                    connected, server_hostname=host, do_handshake_on_connect=False
                )
            watch = Timer(_seconds_left(deadline), _cut, [connection.sock])
            watch.daemon = True
            watch.start()
            try:
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.do_handshake()
                connection.request(method, path, body, dict(headers))
                with closing(connection.getresponse()) as response:
                    answer = response.read(max_bytes + 1)
                    if response.length and len(answer) <= max_bytes:
                        raise IncompleteRead(answer, response.length)
            finally:
                watch.cancel()
        if time.monotonic() >= deadline:  # a body without a length ends where it was cut
            raise TimeoutError("timed out")
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a name that IDNA refuses
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        late = time.monotonic() >= deadline
        raise (DeadlineExceeded if late else RequestError)(reason) from error
    fields = {name.lower(): value for name, value in response.getheaders()}
    return HttpResponse(response.status, fields, answer)


def encode_form(fields: Mapping[str, str | bytes]) -> tuple[str, bytes]:
    """Encode a multipart form; return its content type and body. Bytes are sent as files."""
    boundary = secrets.token_hex(16)
    body = b""
    for name, value in fields.items():
        file = f'; filename="{name}"' if isinstance(value, bytes) else ""
        data = value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def _seconds_left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
