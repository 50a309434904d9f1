"""The web page: files of the package, by their names and no others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response

from soutu.errors import BadInput
from soutu.server.exceptions import NotFound, TooLarge
from soutu.server.media import SentFile, inside, original
from soutu.server.schemas import (
    ANSWER,
    CAPTIONS,
    EXPLAINED,
    INFO,
    MOST,
    MOST_STREAMED,
    STATS,
    Answer,
    CaptionsRequest,
    Explained,
    Health,
    Id,
    ImageInfo,
    Responses,
    SearchRequest,
    Session,
    SimpleSearch,
    Stats,
    Whole,
    answers,
    streamed,
)
from soutu.server.serializers import Json, json_response, lines_response
from soutu.server.service import AppState, app_state
from soutu.types import FIELDS
from soutu.version import VERSION

# A request's parts: JSON or a form, and what else it may say.


FORM = "multipart/form-data"
_FIELDS = 8  # of a form; a page sends two
_PART = 1_000_000  # bytes of a field that is no file
SOURCES = ("text", "image_id", "terms", "image_url")


def streams(request: Request) -> bool:
    return "application/x-ndjson" in request.headers.get("accept", "")


async def form(request: Request, most: int) -> tuple[bytes, dict[str, str]]:
    """The picture in ``image``, and the other fields."""
    try:
        async with request.form(max_files=1, max_fields=_FIELDS, max_part_size=_PART) as sent:
            image = sent.get("image")
            if not isinstance(image, UploadFile):
                raise BadInput("request-no-image")
            data = await image.read(most + 1)
            fields = {name: value for name, value in sent.items() if isinstance(value, str)}
    except (MultiPartException, KeyError, ValueError, AttributeError) as fault:
        raise BadInput("request-form", error=_told(fault)) from fault
    if len(data) > most:
        raise TooLarge("request-image-large", most=most // 1_000_000)
    return data, fields


async def body(request: Request, most: int) -> tuple[SearchRequest, bytes | None]:
    """What a search is asked, and the picture that came with it."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == FORM:
        image, fields = await form(request, most)
        asked = read(fields.get("request") or "{}")
        return checked(asked, upload=True, streamed=streams(request)), image
    return checked(read(await request.body()), streamed=streams(request)), None


def read(data: str | bytes) -> SearchRequest:
    try:
        return SearchRequest.model_validate_json(data)
    except ValidationError as fault:
        raise invalid(fault.errors(include_url=False, include_context=False)) from fault


def captions_request(fields: Mapping[str, str]) -> CaptionsRequest:
    try:
        return CaptionsRequest.model_validate(fields)
    except ValidationError as fault:
        raise invalid(fault.errors(include_url=False, include_context=False)) from fault


def checked(asked: SearchRequest, *, upload: bool = False, streamed: bool = False) -> SearchRequest:
    """What a schema cannot say, or could say only in its own words."""
    given = [name for name in SOURCES if getattr(asked, name) is not None]
    if len(given) != (0 if upload else 1):
        said = ", ".join(["image"] * upload + given) or "none"
        raise BadInput("request-sources", given=said)
    most = MOST_STREAMED if streamed else MOST
    if asked.k > most:
        raise BadInput("request-k", k=asked.k, most=most)
    if asked.offset + asked.k > MOST_STREAMED:
        raise BadInput("request-depth", most=MOST_STREAMED)
    return asked


def invalid(errors: Sequence[Any]) -> BadInput:
    """The first of pydantic's complaints, where it is and what it says."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path"))
    return BadInput("request-invalid", place=place or "body", error=first["msg"])


def _told(fault: Exception) -> str:
    return " ".join(str(fault).split())[:200] or type(fault).__name__


# Searches: by text, by picture, by what is indexed; captions; why something was found.


search_router = APIRouter()
UPLOAD = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "string", "format": "binary"}},
}
SEARCH_BODY: Any = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/SearchRequest"}},
            "multipart/form-data": {
                "schema": {
                    **UPLOAD,
                    "properties": {
                        **UPLOAD["properties"],  # type: ignore[dict-item]
                        "request": {
                            "type": "string",
                            "description": "the same JSON, without what is searched for",
                        },
                    },
                }
            },
        },
    }
}
CAPTIONS_BODY: Any = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    **UPLOAD,
                    "properties": {
                        **UPLOAD["properties"],  # type: ignore[dict-item]
                        **CaptionsRequest.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}
_K = Annotated[Whole, Query(ge=1, le=MOST)]


@search_router.get("/search", response_model=Answer, responses=streamed(ANSWER))
async def search(request: Request, said: Annotated[SimpleSearch, Query()]) -> Response:
    """The pictures nearest to a text, or to an indexed picture."""
    asked = checked(said.asked(), streamed=streams(request))
    here = app_state(request)
    return _answered(request, await here.search(lambda: here.desk.search(asked), asked))


@search_router.post(
    "/search", response_model=Answer, responses=streamed(ANSWER), openapi_extra=SEARCH_BODY
)
async def search_for(request: Request) -> Response:
    """All of it: weighted terms, chosen variants, an uploaded picture."""
    here = app_state(request)
    asked, upload = await body(request, here.settings.guard.body_bytes)
    if asked.image_url is not None:
        upload = await _fetched(here, asked.image_url)
    return _answered(request, await here.search(lambda: here.desk.search(asked, upload), asked))


async def _fetched(here: AppState, url: str) -> bytes:
    fetch = here.settings.fetch
    if fetch is None:
        raise BadInput("server-no-fetch")
    return await here.picture(lambda: fetch(url))


@search_router.get("/captions", response_model=Answer, responses=answers(CAPTIONS))
async def captions(request: Request, image_id: Id, k: _K = 5) -> Response:
    """The gallery's captions nearest to an indexed picture."""
    here = app_state(request)
    return json_response(await here.search(lambda: here.desk.captions(image_id, k)))


@search_router.post(
    "/captions", response_model=Answer, responses=answers(CAPTIONS), openapi_extra=CAPTIONS_BODY
)
async def captions_for(request: Request) -> Response:
    """The gallery's captions nearest to an uploaded picture."""
    here = app_state(request)
    image, fields = await form(request, here.settings.guard.body_bytes)
    asked = captions_request(fields)

    def work() -> Json:
        return here.desk.captions(image, asked.k, vector=asked.vector)

    return json_response(await here.search(work))


@search_router.get("/explain", response_model=Explained, responses=answers(EXPLAINED))
async def explain(
    request: Request, q: Annotated[str, Query(max_length=2000, examples=["灰猫"])], k: _K = 5
) -> Response:
    """How a query was understood, what each variant finds, and what makes up each score."""
    here = app_state(request)
    return json_response(await here.search(lambda: here.desk.explain(q, k)))


def _answered(request: Request, answer: Json) -> Response:
    return lines_response(answer) if streams(request) else json_response(answer)


# Pictures and what is known of them, by id.


images_router = APIRouter()
_ID = Annotated[Whole, Path(ge=0, lt=2**63, examples=[5])]
_SAME: Responses = {304: {"description": "what the client has is still right"}}
_IMAGE: Responses = {200: {"content": {"image/*": {}}, "description": "the picture"}, **_SAME}
_THUMBNAIL: Responses = {
    200: {"content": {"image/webp": {}}, "description": "the thumbnail"}, **_SAME
}  # fmt: skip
FOR_GOOD = "private, max-age=31536000, immutable"


@images_router.get("/images/{id}", response_class=Response, responses=_IMAGE)
async def image(request: Request, id: _ID, download: bool = False) -> Response:
    """The picture's file; kinds that browsers do not show as WebP."""
    here = app_state(request)

    def work() -> tuple[SentFile, str]:
        file = inside(here.gallery.root, here.desk.row(id).paths, id)
        return original(file, here.gallery.config.max_pixels), file.name

    sent, name = await here.picture(work)
    shown = quote(name.encode("utf-8", "surrogateescape"), safe="")
    how = "attachment" if download else "inline"
    headers = {"Content-Disposition": f"{how}; filename*=UTF-8''{shown}"}
    return _sent(request, sent, {**headers, "Cache-Control": "private, no-cache"})


@images_router.get("/images/{id}/info", response_model=ImageInfo, responses=answers(INFO))
async def info(request: Request, id: _ID) -> Response:
    """Paths, captions, size, time taken."""
    here = app_state(request)
    return json_response(await here.search(lambda: _info(here, id)))


@images_router.get("/thumbnails/{id}", response_class=Response, responses=_THUMBNAIL)
async def thumbnail(
    request: Request,
    id: _ID,
    size: Annotated[Literal["256", "512", "1024"], Query()] = "512",
    v: Annotated[str | None, Query(max_length=40, description="may be kept for good")] = None,
) -> Response:
    """Upright, its longer side at most ``size`` pixels."""
    here = app_state(request)
    known, side = request.headers.get("if-none-match", ""), int(size)

    def work() -> SentFile:
        file = inside(here.gallery.root, here.desk.row(id).paths, id)
        etag = here.thumbnails.etag(file, side)
        if etag in known:
            return SentFile(b"", "image/webp", etag)
        return here.thumbnails.get(file, side)

    sent = await here.picture(work)
    return _sent(request, sent, {"Cache-Control": FOR_GOOD if v else "private, no-cache"})


def _sent(request: Request, sent: SentFile, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": f'"{sent.etag}"', "X-Content-Type-Options": "nosniff"}
    if sent.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(sent.data, media_type=sent.kind, headers=headers)


def _info(here: AppState, id_: int) -> dict[str, object]:
    row = here.desk.row(id_)
    try:
        size: int | None = inside(here.gallery.root, row.paths, id_).stat().st_size
    except (NotFound, OSError):
        size = None
    tags: dict[str, str] = {}
    for caption in reversed(here.gallery.store.captions_of(id_)):  # of two, the first one's count
        tags |= caption.tags
    return {
        "id": row.id, "paths": row.paths, "captions": row.captions, "width": row.width,
        "height": row.height, "taken": row.taken, "tags": tags, "size": size,
    }  # fmt: skip


# The server itself: is it well, what does it have, what has it done.


about_router = APIRouter()
metrics_router = APIRouter()
SESSION: Json = {"auth": "none", "signed_in": True}
COUNTS: Responses = {
    200: {"content": {"text/plain": {"example": "soutu_ready 1.0\n"}}, "description": "the counts"}
}


@about_router.get("/health", response_model=Health, responses=answers({"status": "ok"}))
async def health(request: Request) -> Response:
    """200 once searches can be answered, 503 before."""
    here = app_state(request)
    if not here.opening.ready:
        here.health()  # which does not wait behind those who wait for the model
    await here.searches(here.health)
    return json_response({"status": "ok"})


@about_router.get("/stats", response_model=Stats, responses=answers(STATS))
async def stats(request: Request) -> Response:
    """The gallery, the index, the model, and what the page can offer."""
    here = app_state(request)
    return json_response(await here.search(lambda: _stats(here)))


@about_router.get("/session", response_model=Session, responses=answers(SESSION))
async def session() -> Response:
    """Whether a token is asked for, and whether it was shown (``guard/session.py`` answers)."""
    return json_response(SESSION)


@metrics_router.get("/metrics", response_class=Response, responses=COUNTS)
async def metrics(request: Request) -> Response:
    """Counters and gauges for Prometheus."""
    here = app_state(request)
    return Response(await here.searches(here.metrics.text), media_type=here.metrics.media_type)


def _stats(here: AppState) -> Json:
    info = here.gallery.info()
    return {
        "name": info.root.name,
        "version": VERSION,
        "uptime": round(time.monotonic() - here.begun, 1),
        "model": vars(info.model),
        "index": vars(info.state),
        "codes": {
            kind: {
                "recipe": one.recipe, "target": one.target, "vectors": one.slots,
                "levels": [asdict(level) for level in one.levels],
            }
            for kind, one in info.promises.items()
        },
        "yardstick": asdict(info.yardstick) if info.yardstick else None,
        "min_confidence": here.gallery.threshold(None),
        "features": {
            "image_url": here.settings.fetch is not None,
            "captions": info.state.captions > 0,
            "where_fields": list(FIELDS),
        },
    }  # fmt: skip


page_router = APIRouter(include_in_schema=False)
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Content, kind and ETag of each."""
    found = {}
    for file in (resources.files("soutu") / "server" / "static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind:
            data = file.read_bytes()
            found[file.name] = data, kind, f'"{blake2b(data, digest_size=12).hexdigest()}"'
    return found


@page_router.get("/")
async def page(request: Request) -> Response:
    return _file(request, "index.html")


@page_router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in files():
        raise NotFound("server-nowhere", path=request.url.path[:200])
    data, kind, etag = files()[name]
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(data, media_type=kind, headers={"ETag": etag})
