"""One question to a server, and its answer; the standard library is enough for it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from soutu import errors
from soutu.errors import BadConfig, BadInput, RemoteUnavailable, SoutuError

LONGEST = 500_000_000  # bytes of an answer
AGAIN = (429, 503)
_TOKEN = (401, 403)


@dataclass(frozen=True)
class Body:
    kind: str
    data: bytes

    @classmethod
    def json(cls, value: object) -> Body:
        return cls("application/json", json.dumps(value).encode())

    @classmethod
    def form(cls, image: bytes, **fields: object) -> Body:
        """A picture, and fields beside it: texts as they are, all else as JSON."""
        edge = secrets.token_hex(16)
        parts = [b'form-data; name="image"; filename="image"\r\n\r\n' + image]
        for name, value in fields.items():
            said = value if isinstance(value, str) else json.dumps(value)
            parts.append(f'form-data; name="{name}"\r\n\r\n{said}'.encode())
        head = f"--{edge}\r\nContent-Disposition: ".encode()
        data = b"".join(head + part + b"\r\n" for part in parts) + f"--{edge}--\r\n".encode()
        return cls(f"multipart/form-data; boundary={edge}", data)


@dataclass(frozen=True)
class Server:
    """``url`` as it was typed: ``http://127.0.0.1:8765``. ``token`` is never shown. Redirects are
    not followed, so that it goes nowhere else; proxies are not used."""

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 30.0

    def ask(self, method: str, path: str, body: Body | None = None) -> dict[str, object]:
        """The JSON object that it answers. Raises the error that it answers, BadConfig for a URL
        or token that is none, RemoteUnavailable where no answer comes."""
        target = self._target()
        deadline = time.monotonic() + self.timeout
        while True:
            status, wait, data = self._once(target, method, path, body, deadline)
            left = deadline - time.monotonic()
            if status not in AGAIN or wait is None or wait >= left:
                break
            time.sleep(wait)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        raise self._fault(status, answer)

    def _target(self) -> SplitResult:
        try:
            target = urlsplit(self.url)
            usable = target.scheme in ("http", "https") and target.hostname and target.port != 0
        except ValueError:
            raise BadConfig("client-url") from None
        odd = "@" in target.netloc or target.query or target.fragment
        if not usable or odd or not self.url.isascii() or not self.url.isprintable():
            raise BadConfig("client-url")
        if not (self.token.isascii() and self.token.isprintable()):
            raise BadConfig("client-token")
        return target

    def _once(
        self, target: SplitResult, method: str, path: str, body: Body | None, deadline: float
    ) -> tuple[int, float | None, bytes]:
        """Status, seconds after which to ask again (None: it does not say), body."""
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = body.kind
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        kind = HTTPSConnection if target.scheme == "https" else HTTPConnection
        left = max(0.001, deadline - time.monotonic())
        try:
            with closing(kind(target.hostname or "", target.port, timeout=left)) as connection:
                asked = target.path.rstrip("/") + path
                connection.request(method, asked, body.data if body else None, headers)
                with closing(connection.getresponse()) as answer:
                    after = answer.getheader("Retry-After", "")
                    data = answer.read(LONGEST)
        except (OSError, HTTPException) as fault:
            told = " ".join(f"{type(fault).__name__}: {fault}".split())
            raise RemoteUnavailable("client-unreachable", url=self.url, fault=told) from fault
        return answer.status, float(after) if after.isdecimal() else None, data

    def _fault(self, status: int, answer: object) -> SoutuError:
        told = _error(answer)
        message = str(told.get("message", ""))
        if status in _TOKEN:
            return RemoteUnavailable("client-refused", url=self.url, message=message)
        if not message:
            return RemoteUnavailable("client-answer", url=self.url, status=status)
        if status in (400, 404, 413):
            return _rebuilt(told) or BadInput("client-said", message=message)
        return RemoteUnavailable("client-failed", url=self.url, status=status, message=message)


def _error(answer: object) -> Mapping[str, Any]:
    told = answer.get("error") if isinstance(answer, dict) else None
    return told if isinstance(told, dict) else {}


def _rebuilt(told: Mapping[str, Any]) -> BadInput | None:
    """The very error that a gallery here would have raised, where this version knows it: it can be
    caught as such, and speaks the language of this side."""
    kind = getattr(errors, str(told.get("kind")), None)
    try:
        if isinstance(kind, type) and issubclass(kind, BadInput):
            fault = kind(str(told["code"]), **told["fields"])
            fault.message()
            return fault
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return None
