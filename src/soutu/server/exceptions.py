"""What every route answers where something is wrong: a status, and one JSON shape.

    {"error": {"status": 400, "kind": "BadQuery", "code": "query-k", "message": "...",
               "fields": {...}}}

``kind`` and ``code`` are for programs and stay the same; ``message`` is in the language that was
asked for.
"""

from __future__ import annotations

from typing import ClassVar

from soutu.errors import (
    BadConfig,
    BadInput,
    IndexCorrupt,
    Missing,
    MissingExtra,
    ModelMismatch,
    RemoteUnavailable,
    SoutuError,
)

# The first that an error is one of.
STATUSES: tuple[tuple[type[SoutuError], int], ...] = (
    (BadConfig, 503),  # the server's own settings and rules
    (BadInput, 400),
    (MissingExtra, 501),
    (Missing, 503),
    (ModelMismatch, 503),
    (IndexCorrupt, 503),
    (RemoteUnavailable, 502),
)


class HttpError(SoutuError):
    """A request that is not answered, for a reason that lies in the request or in how busy the
    server is. A field ``retry_after`` says after how many seconds to try again."""

    status: ClassVar[int] = 400

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the answer."""
        known = {"Retry-After": str(self.fields["retry_after"])} if self.retries else {}
        return known | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    @property
    def retries(self) -> bool:
        return "retry_after" in self.fields


class Unauthorized(HttpError):
    status = 401


class Forbidden(HttpError):
    status = 403


class NotFound(HttpError):
    status = 404


class NotAllowed(HttpError):
    """A method that this route does not have."""

    status = 405


class TooSlow(HttpError):
    """The request took too long to arrive."""

    status = 408


class TooLarge(HttpError):
    status = 413


class MisdirectedRequest(HttpError):
    """Asked of a host that this server is not."""

    status = 421


class TooManyRequests(HttpError):
    status = 429


class HeadersTooLarge(HttpError):
    """More headers than anybody needs."""

    status = 431


class Busy(HttpError):
    status = 503


class TimedOut(HttpError):
    """The answer took too long."""

    status = 504


def status_of(fault: SoutuError) -> int:
    """The HTTP status of ``fault``; 500 for one that is no fault of the request's."""
    if isinstance(fault, HttpError):
        return fault.status
    return next((status for kind, status in STATUSES if isinstance(fault, kind)), 500)


def problem(fault: SoutuError, lang: str = "en") -> dict[str, object]:
    """The body of the answer to a request that met ``fault``."""
    fields = {name: _plain(value) for name, value in fault.fields.items()}
    known = {"status": status_of(fault), "kind": type(fault).__name__, "code": fault.code}
    return {"error": {**known, "message": fault.message(lang), "fields": fields}}


def language_of(accepted: str) -> str:
    """ "zh" or "en", whichever an Accept-Language header names first."""
    for part in accepted.split(","):
        tag = part.split(";")[0].strip().lower()
        if tag[:2] in ("zh", "en"):
            return tag[:2]
    return "en"


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
