"""Search a gallery that ``soutu serve`` serves, with the questions and results of ``Gallery``."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar

import numpy as np

from soutu import errors
from soutu.errors import BadConfig, BadImage, BadInput, RemoteUnavailable, SoutuError
from soutu.fs import expand_user
from soutu.http import RequestError, encode_form, send_request, split_base_url
from soutu.i18n import current_language
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

API = "/api/v1"
MAX_ANSWER_BYTES = 500_000_000
_BUSY, _REFUSED = (429, 503), (401, 403)
_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True)
class Client:
    """A server: ``Client("http://127.0.0.1:8765").search("灰猫")``.

    Parameters
    ----------
    url
        As ``soutu serve`` prints it. Redirects are not followed, proxies are not used.
    token
        Where the server asks for one; never shown.
    timeout
        Seconds for one question altogether. A busy server is asked again for as long.

    Notes
    -----
    Methods raise what ``Gallery`` would for a wrong question (BadInput and below), BadConfig for a
    URL or token that cannot be used, and RemoteUnavailable where no answer comes. Paths in results
    are those of the server's gallery.
    """

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
        offset: int = 0,
        expand: bool = True,
        variants: Sequence[Variant] | None = None,
        terms: Sequence[Term] | None = None,
        image_id: int | None = None,
        log: bool = True,
    ) -> SearchResult:
        """Search for pictures as ``Gallery.search`` does.

        Parameters
        ----------
        text, image, terms, image_id
            One of them: a text, a picture (a file here, or RGB uint8 of shape (h, w, 3)), weighted
            terms of a query (the value of an image term is the picture's id), or an indexed
            picture's id.
        offset
            Leave out as many hits: the next page.
        expand
            False searches for the text alone.
        variants
            What to search for instead of what would be proposed.
        log
            False: the server does not write the search into the gallery's log.
        """
        request: dict[str, object] = {
            "text": text, "k": k, "where": where, "min_confidence": min_confidence,
            "offset": offset or None, "expand": None if expand else False,
            "variants": None if variants is None else [
                {"text": variant.text, "weight": variant.weight, "term": variant.term}
                for variant in variants
            ],
            "terms": None if terms is None else [_term_fields(term) for term in terms],
            "image_id": image_id, "vector": True, "log": None if log else False,
        }  # fmt: skip
        data = json.dumps({name: value for name, value in request.items() if value is not None})
        body = ("application/json", data.encode())
        if image is not None:
            body = encode_form({"image": _image_bytes(image), "request": data})
        return _parse_result(self._request("POST", f"{API}/search", body), self.url)

    def captions(self, image: str | Path | Rgb, *, k: int = 5, log: bool = True) -> SearchResult:
        """Find the ``k`` captions nearest to a picture, as ``Gallery.captions`` does."""
        fields: dict[str, str | bytes] = {
            "image": _image_bytes(image),
            "k": str(k),
            "vector": "true",
        }
        body = encode_form(fields if log else {**fields, "log": "false"})
        return _parse_result(self._request("POST", f"{API}/captions", body), self.url)

    def stats(self) -> Mapping[str, object]:
        """Return what the server says of its gallery, index and model (docs/api.md)."""
        return self._request("GET", f"{API}/stats")

    def _request(
        self, method: str, path: str, body: tuple[str, bytes] = ("", b"")
    ) -> dict[str, object]:
        """Return the JSON object that the server answers; raise the error that it answers."""
        try:
            target = split_base_url(self.url)
        except ValueError:
            raise BadConfig("client-url") from None
        if not (self.token.isascii() and self.token.isprintable()):
            raise BadConfig("client-token")
        target = target._replace(path=target.path.rstrip("/") + path)
        content_type, data = body
        headers = {"Accept": "application/json", "Accept-Language": current_language()}
        headers |= {"Content-Type": content_type} if data else {}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                response = send_request(
                    method, target, headers, data or None, deadline=deadline,
                    max_bytes=MAX_ANSWER_BYTES,
                )  # fmt: skip
            except RequestError as error:
                reason = str(error)
                raise RemoteUnavailable("client-unreachable", url=self.url, error=reason) from error
            seconds = response.headers.get("retry-after", "")
            left = deadline - time.monotonic()
            if response.status not in _BUSY or not seconds.isdecimal() or float(seconds) >= left:
                break
            time.sleep(float(seconds))
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        raise self._error(response.status, answer)

    def _error(self, status: int, answer: object) -> SoutuError:
        problem = answer.get("error") if isinstance(answer, dict) else None
        problem = problem if isinstance(problem, dict) else {}
        message = str(problem.get("message", ""))
        if status in _REFUSED:
            return RemoteUnavailable("client-refused", url=self.url, message=message)
        if not message:
            return RemoteUnavailable("client-answer", url=self.url, status=status)
        if status in (400, 404, 413):
            return _restore_error(problem) or BadInput("client-said", message=message)
        return RemoteUnavailable("client-failed", url=self.url, status=status, message=message)


class SearchOptions(TypedDict, total=False):
    """The keywords of ``Client.search``."""

    image: str | Path | Rgb | None
    k: int
    where: str | None
    min_confidence: float | None
    offset: int
    expand: bool
    variants: Sequence[Variant] | None
    terms: Sequence[Term] | None
    image_id: int | None
    log: bool


class AsyncClient:
    """``Client`` for asyncio: ``await AsyncClient("http://127.0.0.1:8765").search("灰猫")``.

    Parameters are those of ``Client``. Each question waits in a thread of the event loop's default
    executor, so as many run at once as that has threads; one that is cancelled ends by itself,
    after ``timeout`` at the latest.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        self._client = Client(url, token, timeout)

    def __repr__(self) -> str:
        """Show the address, never the token."""
        return f"Async{self._client!r}"

    async def search(
        self, text: str | None = None, **options: Unpack[SearchOptions]
    ) -> SearchResult:
        """Search for pictures: ``Client.search``."""
        return await _in_thread(self._client.search, text, **options)

    async def captions(
        self, image: str | Path | Rgb, *, k: int = 5, log: bool = True
    ) -> SearchResult:
        """Find the captions nearest to a picture: ``Client.captions``."""
        return await _in_thread(self._client.captions, image, k=k, log=log)

    async def stats(self) -> Mapping[str, object]:
        """Return what the server says of itself: ``Client.stats``."""
        return await _in_thread(self._client.stats)


async def _in_thread(function: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs) -> _T:
    from asyncio import to_thread  # which a command that asks a server need not load

    return await to_thread(function, *args, **options)


def _term_fields(term: Term) -> dict[str, object]:
    value = {"text": term.value} if term.kind == "text" else {"image_id": int(term.value)}
    return {**value, "weight": term.weight}


def _image_bytes(image: str | Path | Rgb) -> bytes:
    if isinstance(image, (str, Path)):
        try:
            return expand_user(image).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadImage("client-picture", path=image, error=reason) from error
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _restore_error(problem: Mapping[str, Any]) -> BadInput | None:
    """Restore the error that a gallery here would have raised, where this version knows it.

    It can be caught as such, and speaks the language of this side.
    """
    kind = getattr(errors, str(problem.get("kind")), None)
    try:
        if isinstance(kind, type) and issubclass(kind, BadInput):
            error = kind(str(problem["code"]), **problem["fields"])
            error.message()
            return error
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return None


def _parse_result(answer: Mapping[str, Any], url: str) -> SearchResult:
    """Return the result that ``Gallery`` would have given; RemoteUnavailable for any other."""
    try:
        query = answer["query"]
        terms = tuple(_build(Term, term) for term in query["terms"])
        model = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in answer["model"].items()
        }
        vector = np.frombuffer(base64.b64decode(answer["vector"] or ""), "<f4")
        return SearchResult(
            query=Query(str(query["raw"]), terms, tuple(map(str, query["filters"]))),
            variants=tuple(_build(Variant, variant) for variant in answer["variants"]),
            hits=tuple(_build(Hit, {**hit, "also": tuple(hit["also"])}) for hit in answer["hits"]),
            agreement=float(answer["agreement"]),
            fusion=str(answer["fusion"]),
            vector=vector.astype(np.float32),
            model=_build(ModelInfo, model),
            index_state=_build(IndexState, answer["index"]),
            target=str(answer["target"]),
            confidence=answer["confidence"],
            verdict=answer.get("verdict"),  # an older server has none
            min_confidence=float(answer["min_confidence"]),
            correction=float(answer["correction"]),
            timings=dict(answer["timings"]),
            expanders=tuple(_parse_trace(trace) for trace in answer["expanders"]),
            ranked_by=str(answer["ranked_by"]),
            k=int(answer["k"]),
            reference=str(answer["reference"]),
            suggestions=tuple(map(str, answer.get("suggestions", ()))),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RemoteUnavailable("client-answer", url=url, status=200) from error


def _build(kind: type[_T], values: Mapping[str, Any]) -> _T:
    # A later server may say more than is known here.
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def _parse_trace(trace: Mapping[str, Any]) -> ExpanderTrace:
    error = SoutuError("client-expander", message=trace["fault"]) if trace["fault"] else None
    return ExpanderTrace(str(trace["name"]), float(trace["ms"]), int(trace["proposed"]), error)
