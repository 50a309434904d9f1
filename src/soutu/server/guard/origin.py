"""Whose page is asking. Other sites' pages may not, whatever name they give this server."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from soutu.server.guard.refusing import header, refuse
from soutu.server.problems import Forbidden, Misdirected, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL = "localhost"


class Origin:
    """Refuses requests that a page of another site makes (a browser says so: ``Sec-Fetch-Site``,
    ``Origin``), and those for a host name that is not this server's: a name that another site
    points here would make its pages ours (DNS rebinding). An address cannot be pointed anywhere,
    so any will do. ``any_name``: a token is asked for, which such a page has not."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), *, any_name: bool = False) -> None:
        self._app, self._any = app, any_name
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault:
            await refuse(fault, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> Refused | None:
        host = header(scope, "host")
        name = _name(host)
        if not self._any and not self._known(name):
            return Misdirected("guard-host", host=host[:100])
        if header(scope, "sec-fetch-site") in ("cross-site", "same-site") and not _opened(scope):
            return Forbidden("guard-site")
        origin = header(scope, "origin")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            return Forbidden("guard-site")
        return None

    def _known(self, name: str) -> bool:
        if name == LOCAL or name.endswith("." + LOCAL) or name in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _opened(scope: Scope) -> bool:
    """A person who follows a link from another site to the page."""
    there = scope["method"] == "GET" and header(scope, "sec-fetch-dest") == "document"
    return there and header(scope, "sec-fetch-mode") == "navigate" and scope["path"] == "/"


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
