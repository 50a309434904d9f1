"""Fetch a picture from an address that a request names; only where the server was told to.

What a server can reach is more than what the client can: its own ports, the router, the cloud's
metadata. So only public addresses are asked, and what is checked is what is connected to: the
name is looked up once, and a redirect is checked as the first address was.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import urljoin

from soutu.errors import BadInput, RemoteUnavailable
from soutu.http import PORTS, DeadlineExceeded, RequestError, send_request, split_url
from soutu.version import VERSION

MAX_REDIRECTS = 3
HEADERS = {"Accept": "image/*", "User-Agent": f"soutu/{VERSION}"}
GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that was ever assigned; the rest means other things
NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address lies in its last 32 bits
ISATAP = (0x5EFE, 0x0200_5EFE)  # likewise, behind these

Address: TypeAlias = "IPv4Address | IPv6Address"


def is_public(address: Address) -> bool:
    """Whether an address is on the internet, also once a gateway has unpacked it."""
    if isinstance(address, IPv6Address):
        last = IPv4Address(int(address) & 0xFFFFFFFF)
        if address.ipv4_mapped or address in NAT64:
            return is_public(last)
        inner = address.sixtofour or (last if int(address) >> 32 & 0xFFFFFFFF in ISATAP else None)
        if address not in GLOBAL_UNICAST or (inner and not is_public(inner)):
            return False
    return address.is_global and not address.is_multicast


def resolve(host: str, port: int) -> list[str]:
    """Look up the addresses of ``host``."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in addresses]


@dataclass(frozen=True)
class UrlFetcher:
    """Fetches up to ``max_bytes`` within ``seconds``, redirects and all.

    Parameters
    ----------
    is_allowed
        Which addresses may be asked.
    resolve
        Looks up the addresses of a host for a port.
    ports
        Those that may be asked.
    """

    max_bytes: int = 20_000_000
    seconds: float = 10.0
    is_allowed: Callable[[Address], bool] = is_public
    resolve: Callable[[str, int], Sequence[str]] = resolve
    ports: tuple[int, ...] = tuple(PORTS.values())

    def __call__(self, url: str) -> bytes:
        """Fetch what is at ``url``.

        Raises
        ------
        BadInput
            For an address that may not or cannot be asked, or holds too much.
        RemoteUnavailable
            Where it does not answer.
        """
        deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = split_url(url)
                port = target.port or PORTS[target.scheme]
            except ValueError:
                raise BadInput("fetch-url") from None
            if port not in self.ports:
                raise BadInput("fetch-url")
            host = target.hostname or ""
            try:
                address = self._public_address(host, port)
                response = send_request(
                    "GET", target, HEADERS, deadline=deadline, max_bytes=self.max_bytes,
                    address=address,
                )  # fmt: skip
            except (RequestError, OSError, ValueError) as error:
                late = isinstance(error, DeadlineExceeded)
                reason = "too slow" if late else type(error.__cause__ or error).__name__
                raise RemoteUnavailable("fetch-failed", host=host, error=reason) from error
            location = response.headers.get("location")
            if response.status in (301, 302, 303, 307, 308) and location:
                url = urljoin(url, location)
                continue
            if response.status != 200:
                raise BadInput("fetch-status", host=host, status=response.status)
            if len(response.body) > self.max_bytes:
                raise BadInput("fetch-large", host=host, most=self.max_bytes // 1_000_000)
            return response.body
        raise BadInput("fetch-redirects", most=MAX_REDIRECTS)

    def _public_address(self, host: str, port: int) -> str:
        """Look ``host`` up once: what is checked is connected to, whatever it means later."""
        addresses = self.resolve(host, port)
        if not addresses or not all(self.is_allowed(ip_address(each)) for each in addresses):
            raise BadInput("fetch-private", host=host)
        return addresses[0]
