"""A middleware's own answer: the same JSON shape as every route's."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from soutu.server.problems import Refused, language_of, problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def refuse(fault: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with ``fault``, in the language that was asked for."""
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("lang", [""])[0]
    lang = asked if asked in ("zh", "en") else language_of(header(scope, "accept-language"))
    answer = JSONResponse(problem(fault, lang), fault.status, fault.headers)
    await answer(scope, receive, send)


def header(scope: Scope, name: str) -> str:
    """A request header, "" where it was not sent."""
    return Headers(scope=scope).get(name, "")


def client(scope: Scope) -> str:
    """The address that asks."""
    known = scope.get("client")
    return str(known[0]) if known else ""
