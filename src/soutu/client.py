"""The API as Python sees it: the same questions and the same results as ``Gallery``'s."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from urllib.parse import SplitResult, urlsplit

import numpy as np

from soutu import errors
from soutu.errors import BadConfig, BadImage, BadInput, RemoteUnavailable, SoutuError
from soutu.types import (
    ExpanderTrace,
    Hit,
    IndexState,
    ModelInfo,
    Query,
    SearchResult,
    Term,
    Variant,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from soutu.types import Rgb

# One question to a server, and its answer; the standard library is enough for it.


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
class HttpConnection:
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


# A server's answer as the result that ``Gallery`` would have given.


_T = TypeVar("_T")


def search_result(answer: Mapping[str, Any], url: str) -> SearchResult:
    """What ``POST /api/v1/search`` answered. RemoteUnavailable for what is no such answer."""
    try:
        return _result(answer)
    except (LookupError, TypeError, ValueError, AttributeError) as fault:
        raise RemoteUnavailable("client-answer", url=url, status=200) from fault


def _result(answer: Mapping[str, Any]) -> SearchResult:
    asked = answer["query"]
    terms = tuple(_made(Term, term) for term in asked["terms"])
    vector = np.frombuffer(base64.b64decode(answer["vector"] or ""), "<f4").astype(np.float32)
    return SearchResult(
        query=Query(str(asked["raw"]), terms, tuple(map(str, asked["filters"]))),
        variants=tuple(_made(Variant, variant) for variant in answer["variants"]),
        hits=tuple(_made(Hit, {**hit, "also": tuple(hit["also"])}) for hit in answer["hits"]),
        agreement=float(answer["agreement"]),
        fusion=str(answer["fusion"]),
        vector=vector,
        model=_made(ModelInfo, _tuples(answer["model"])),
        index_state=_made(IndexState, answer["index"]),
        target=str(answer["target"]),
        confidence=answer["confidence"],
        min_confidence=float(answer["min_confidence"]),
        correction=float(answer["correction"]),
        timings=dict(answer["timings"]),
        expanders=tuple(_ran(ran) for ran in answer["expanders"]),
        ranked_by=str(answer["ranked_by"]),
        k=int(answer["k"]),
        reference=str(answer["reference"]),
    )


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """A later server may say more than is known here."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


def _ran(said: Mapping[str, Any]) -> ExpanderTrace:
    fault = SoutuError("client-expander", message=said["fault"]) if said["fault"] else None
    return ExpanderTrace(str(said["name"]), float(said["ms"]), int(said["proposed"]), fault)


BASE = "/api/v1"


class Further(TypedDict, total=False):
    """What else a search may say: ``offset`` hits are left out (the next page), ``expand`` off
    searches for the text alone, ``variants`` are searched for instead of what would be proposed,
    ``terms`` instead of a text, ``image_id`` for pictures like an indexed one."""

    offset: int
    expand: bool
    variants: Sequence[Variant]
    terms: Sequence[Term]
    image_id: int


@dataclass(frozen=True)
class Client:
    """``Client("http://127.0.0.1:8765").search("灰猫")``. ``token``: where the server asks for one;
    ``timeout`` in seconds, for one question altogether. A busy server is asked again for as long.

    Raises what ``Gallery`` would for a wrong question (BadInput and below), and RemoteUnavailable
    where there is no answer to it. Paths in results are those of the server's gallery."""

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 30.0

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | Rgb | None = None,
        k: int = 5,
        where: str | None = None,
        min_confidence: float | None = None,
        **further: Unpack[Further],
    ) -> SearchResult:
        """The ``k`` pictures nearest to a text, or to a picture (a file here, or RGB uint8
        (h, w, 3)): ``Gallery.search``."""
        asked: dict[str, object] = {
            "text": text, "k": k, "where": where, "min_confidence": min_confidence, **further,
            "vector": True,
        }  # fmt: skip
        if "variants" in further:
            asked["variants"] = [_variant(one) for one in further["variants"]]
        if "terms" in further:
            asked["terms"] = [_term(one) for one in further["terms"]]
        asked = {name: value for name, value in asked.items() if value is not None}
        body = Body.json(asked) if image is None else Body.form(_bytes(image), request=asked)
        return search_result(self._server.ask("POST", f"{BASE}/search", body), self.url)

    def captions(self, image: str | Path | Rgb, *, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to a picture: ``Gallery.captions``."""
        body = Body.form(_bytes(image), k=k, vector=True)
        return search_result(self._server.ask("POST", f"{BASE}/captions", body), self.url)

    def stats(self) -> Mapping[str, object]:
        """What the server has, as it says it (docs/api.md)."""
        return self._server.ask("GET", f"{BASE}/stats")

    @property
    def _server(self) -> HttpConnection:
        return HttpConnection(self.url, self.token, self.timeout)


def _variant(variant: Variant) -> dict[str, object]:
    return {"text": variant.text, "weight": variant.weight, "term": variant.term}


def _term(term: Term) -> dict[str, object]:
    """The value of an image term is the picture's id."""
    known = asdict(term)
    named = {"text": term.value} if known["kind"] == "text" else {"image_id": int(term.value)}
    return {**named, "weight": term.weight}


def _bytes(image: str | Path | Rgb) -> bytes:
    if isinstance(image, (str, Path)):
        try:
            return Path(image).expanduser().read_bytes()
        except (OSError, ValueError) as fault:
            told = getattr(fault, "strerror", None) or str(fault)
            raise BadImage("client-picture", path=image, fault=told) from fault
    from io import BytesIO

    from PIL import Image

    kept = BytesIO()
    Image.fromarray(image).save(kept, "PNG")
    return kept.getvalue()
