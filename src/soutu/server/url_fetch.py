"""A picture from an address that a request names; only where the server was told to.

What a server can reach is more than what the asker can: its own ports, the router, the cloud's
metadata. So only public addresses are asked, and what is checked is what is connected to: the
name is looked up once, and a redirect is checked as the first address was.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from threading import Timer
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from soutu.errors import BadInput, RemoteUnavailable
from soutu.version import VERSION

REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address lies in its last 32 bits

Address: TypeAlias = "IPv4Address | IPv6Address"
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(where[4][0]) for where in found]


def is_public(address: Address) -> bool:
    """Whether it is on the internet, also once a gateway has unpacked it."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner and not is_public(inner):
            return False
    return address.is_global and not address.is_multicast


@dataclass(frozen=True)
class Fetcher:
    """Fetches at most ``most`` bytes within ``seconds``, redirects and all. ``admits`` says which
    addresses may be asked, ``ports`` at which port for each scheme."""

    most: int = 20_000_000
    seconds: float = 10.0
    admits: Callable[[Address], bool] = is_public
    resolve: Resolve = resolve
    ports: tuple[int, ...] = tuple(PORTS.values())

    def __call__(self, url: str) -> bytes:
        """What is at ``url``. BadInput for one that may not or cannot be asked, or holds too much;
        RemoteUnavailable where it does not answer."""
        deadline = time.monotonic() + self.seconds
        for _ in range(REDIRECTS + 1):
            target = _target(url, self.ports)
            try:
                found = self._ask(target, deadline)
            except (OSError, HTTPException, ValueError) as fault:
                slow = time.monotonic() >= deadline
                told = "too slow" if slow else type(fault).__name__
                raise RemoteUnavailable("fetch-failed", host=target.hostname, fault=told) from fault
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise BadInput("fetch-redirects", most=REDIRECTS)

    def _ask(self, target: SplitResult, deadline: float) -> bytes | str:
        """The body, or where it has moved to."""
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        with closing(self._connected(target, deadline)) as connection:
            watch = Timer(max(0.001, deadline - time.monotonic()), _cut, [connection.sock])
            watch.daemon = True
            watch.start()
            try:
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.do_handshake()
                asking = {"Accept": "image/*", "User-Agent": f"soutu/{VERSION}"}
                connection.request("GET", path, headers=asking)
                with closing(connection.getresponse()) as answer:
                    moved = answer.getheader("Location")
                    if answer.status in (301, 302, 303, 307, 308) and moved:
                        return moved
                    return self._body(answer, target)
            finally:
                watch.cancel()

    def _body(self, answer: HTTPResponse, target: SplitResult) -> bytes:
        if answer.status != 200:
            raise BadInput("fetch-status", host=target.hostname, status=answer.status)
        body = answer.read(self.most + 1)
        if len(body) > self.most:
            raise BadInput("fetch-large", host=target.hostname, most=self.most // 1_000_000)
        if answer.length:  # cut short
            raise HTTPException
        return body

    def _connected(self, target: SplitResult, deadline: float) -> HTTPConnection:
        """To an address that was checked, whatever the name means a moment later."""
        host, port = target.hostname or "", target.port or PORTS[target.scheme]
        addresses = self.resolve(host, port)
        if not addresses or not all(self.admits(ip_address(one)) for one in addresses):
            raise BadInput("fetch-private", host=host)
        left = max(0.001, deadline - time.monotonic())
        raw = socket.create_connection((addresses[0], port), left)
        connection = HTTPConnection(host, port)
        connection.sock = raw
        if target.scheme == "https":
            try:
                context = ssl.create_default_context()
                # The handshake waits until there is a watch over the whole time.
                connection.sock = context.wrap_socket(
                    raw, server_hostname=host, do_handshake_on_connect=False
                )
            except (OSError, ValueError):
                raw.close()
                raise
        return connection


def _target(url: str, ports: Sequence[int]) -> SplitResult:
    try:
        target = urlsplit(url)
        port = target.port or PORTS.get(target.scheme)
    except ValueError:
        raise BadInput("fetch-url") from None
    plain = url.isascii() and url.isprintable() and " " not in url and "@" not in target.netloc
    if not plain or not target.hostname or port not in ports or target.scheme not in PORTS:
        raise BadInput("fetch-url")
    return target


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
