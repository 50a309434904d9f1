"""Answer errors: every route has one JSON shape for them, and a status.

    {"error": {"status": 400, "kind": "BadQuery", "code": "query-k", "message": "...",
               "fields": {...}}}

``kind`` and ``code`` are for programs and stay the same; ``message`` is in the language that was
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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

STATUSES: tuple[tuple[type[SoutuError], int], ...] = (
    (BadConfig, 503),  # the server's own settings and rules
    (BadInput, 400),
    (MissingExtra, 501),
    (Missing, 503),
    (ModelMismatch, 503),
    (IndexCorrupt, 503),
    (RemoteUnavailable, 502),
)
"""The status of an error is that of the first class that it belongs to."""


class HttpError(SoutuError):
    """A request that is not answered, because of the request or of how busy the server is.

    A field ``retry_after`` says after how many seconds to try again.
    """

    status: ClassVar[int] = 400

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        retry = self.fields.get("retry_after")
        headers = {} if retry is None else {"Retry-After": str(retry)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class Unauthorized(HttpError):
    """No token, or a wrong one."""

    status = 401


class Forbidden(HttpError):
    """A page of another site asks."""

    status = 403


class NotFound(HttpError):
    """Nothing is there."""

    status = 404


class NotAllowed(HttpError):
    """A method that this route does not have; the field ``allow`` lists those that it has."""

    status = 405

    @property
    def headers(self) -> dict[str, str]:
        """Say which methods there are."""
        return {"Allow": str(self.fields["allow"])}


class TooSlow(HttpError):
    """The request took too long to arrive."""

    status = 408


class Conflict(HttpError):
    """The index is no longer the one that is asked for."""

    status = 409


class TooLarge(HttpError):
    """The request is too large."""

    status = 413


class RangeNotSatisfiable(HttpError):
    """A part of a file that it does not have."""

    status = 416

    @property
    def headers(self) -> dict[str, str]:
        """Say how much there is."""
        return {"Content-Range": f"bytes */{self.fields['size']}"}


class MisdirectedRequest(HttpError):
    """Asked of a host that this server is not."""

    status = 421


class TooManyRequests(HttpError):
    """The client asks too often."""

    status = 429


class HeadersTooLarge(HttpError):
    """The headers are too large."""

    status = 431


class Busy(HttpError):
    """The server cannot answer now."""

    status = 503


class TimedOut(HttpError):
    """The answer took too long."""

    status = 504


def status_of(error: SoutuError) -> int:
    """Return the HTTP status of an error; 500 for one that is not the request's."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def problem(error: SoutuError, language: str = "en") -> dict[str, object]:
    """Return the body of the answer to a request that met ``error``."""
    fields = {name: _plain(value, language) for name, value in error.fields.items()}
    known = {"status": status_of(error), "kind": type(error).__name__, "code": error.code}
    return {"error": {**known, "message": error.message(language), "fields": fields}}


def _plain(value: object, language: str) -> object:
    """Return a field as JSON has it; one that is an error itself, in words."""
    if isinstance(value, SoutuError):
        return value.message(language)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def request_language(chosen: str, accepted: str) -> str:
    """Return "zh" or "en": as ``chosen``, or which an Accept-Language header prefers."""
    if chosen in ("zh", "en"):
        return chosen
    best, highest = "en", 0.0
    for tag, quality in parse_qualities(accepted):
        language = tag.partition("-")[0]
        if language in ("zh", "en") and quality > highest:
            best, highest = language, quality
    return best


def parse_qualities(header: str) -> Iterator[tuple[str, float]]:
    """Yield what an Accept header lists, in lower case, and how much it is preferred, 0 to 1."""
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            match = re.fullmatch(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", parameter)
            quality = float(match[1]) if match else quality
        yield name, quality
