"""Answer each path of the API and of the page."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import asdict
from difflib import get_close_matches
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import compile_path

from soutu.errors import BadInput
from soutu.server.exceptions import NotFound, RangeNotSatisfiable, TooLarge
from soutu.server.media import (
    BROWSER_TYPES,
    MAX_WEBP_SIDE,
    ORIGINAL_QUALITY,
    WEBP,
    GalleryFile,
    MediaFile,
    open_inside,
)
from soutu.server.middleware import API, COMPRESSIBLE, IS_HEAD
from soutu.server.schemas import (
    EXAMPLES,
    MAX_HITS,
    MAX_QUERY_LENGTH,
    MAX_STREAMED_HITS,
    CaptionsRequest,
    ExplainAnswer,
    Health,
    HitCount,
    ImageId,
    ImageInfo,
    ImageList,
    ImageQuery,
    Responses,
    SearchAnswer,
    SearchQuery,
    SearchRequest,
    Session,
    Stats,
    describe_answer,
)
from soutu.server.serializers import JSON, NDJSON, Json, json_response
from soutu.server.service import SearchService
from soutu.types import FIELDS
from soutu.version import VERSION

LANGUAGES = ("en", "zh")
FORM = "multipart/form-data"
MAX_FORM_FIELDS = 8  # a page sends two
MAX_FIELD_BYTES = MAX_JSON_BYTES = 1_000_000  # of a field that is no file, of a body without
QUERY_FIELDS = ("text", "image_id", "terms", "image_url")
_M = TypeVar("_M", bound=BaseModel)

search_router = APIRouter(tags=["search"])
images_router = APIRouter(tags=["pictures"])
about_router = APIRouter(tags=["server"])
metrics_router = APIRouter(tags=["server"])
page_router = APIRouter(include_in_schema=False)


def _service(request: Request) -> SearchService:
    service: SearchService = request.app.state.service
    return service


async def check_parameters(request: Request) -> None:
    """Refuse parameters that a route does not have: a misspelt filter would not filter."""
    names = _parameter_names(request.scope["route"])
    for name in request.query_params:
        if name not in names:
            near = get_close_matches(name, names, 1)
            if near:
                raise BadInput("request-parameter-near", name=name[:100], near=near[0])
            raise BadInput("request-parameter", name=name[:100], names=", ".join(names))
    if request.query_params.get("lang", "en") not in LANGUAGES:
        error = BadInput("value-choice", choices=" | ".join(LANGUAGES))
        raise BadInput("request-invalid", place="lang", error=error)


def _parameter_names(route: APIRoute) -> list[str]:
    names: list[str] = []
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += kind.model_fields
        else:
            names.append(field.alias)
    return [*names, "lang"]


@cache
def _method_table() -> list[tuple[re.Pattern[str], set[str]]]:
    routers = [(API, search_router), (API, images_router), (API, about_router)]
    table: dict[str, set[str]] = {}
    for prefix, router in (*routers, ("", metrics_router), ("", page_router)):
        for route in router.routes:
            if isinstance(route, APIRoute):
                table.setdefault(prefix + route.path, set()).update(route.methods or ())
    return [(compile_path(path)[0], methods) for path, methods in table.items()]


def allowed_methods(path: str) -> str:
    """Return the methods of a path as the header Allow lists them."""
    methods = {each for pattern, some in _method_table() if pattern.match(path) for each in some}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


# Searches: by text, by picture, by what is indexed; captions; why something was found.


def _describe_form(**fields: Any) -> Json:  # noqa: ANN401
    image = {"type": "string", "format": "binary"}
    return {"schema": {"type": "object", "required": ["image"],
                       "properties": {"image": image, **fields}}}  # fmt: skip


SEARCH_BODY: Json = {
    "application/json": {"schema": {"$ref": "#/components/schemas/SearchRequest"}},
    FORM: _describe_form(
        request={
            "type": "string",
            "description": "the same JSON, with terms beside the picture or nothing",
        }
    ),
}
CAPTIONS_BODY: Json = {FORM: _describe_form(**CaptionsRequest.model_json_schema()["properties"])}


def _describe_body(content: Json) -> Json:
    return {"requestBody": {"required": True, "content": content}}


@search_router.get(
    "/search",
    operation_id="search",
    response_model=SearchAnswer,
    responses=describe_answer("search", streamed=True),
)
async def search(request: Request, query: Annotated[SearchQuery, Query()]) -> Response:
    """Find the pictures nearest to a text, or to an indexed picture."""
    fields = query.model_dump(exclude={"q"})
    body = SearchRequest.model_construct(text=query.q, **fields)
    stream = _wants_stream(request)
    _check_search(body, stream=stream)
    return await _service(request).search(body, stream=stream)


@search_router.post(
    "/search",
    operation_id="searchByRequest",
    response_model=SearchAnswer,
    responses=describe_answer("search", streamed=True),
    openapi_extra=_describe_body(SEARCH_BODY),
)
async def search_for(request: Request) -> Response:
    """Search by weighted terms, chosen variants or an uploaded picture."""
    service, stream = _service(request), _wants_stream(request)
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    upload: bytes | None = None
    if content_type == FORM:
        upload, fields = await _read_form(request, service.settings.guard.body_bytes)
        body = _parse(SearchRequest, fields.get("request") or "{}")
    else:
        body = _parse(SearchRequest, await _read_json(request))
    _check_search(body, upload=upload is not None, stream=stream)
    if body.image_url is not None:
        upload = await service.fetch(body.image_url)
    return await service.search(body, upload, stream=stream)


@search_router.get(
    "/captions",
    operation_id="getCaptions",
    response_model=SearchAnswer,
    responses=describe_answer("captions"),
)
async def captions(
    request: Request, image_id: ImageId, k: Annotated[HitCount, Query()] = 5, log: bool = True
) -> Response:
    """Find the gallery's captions nearest to an indexed picture."""
    return await _service(request).captions(image_id, k, log=log)


@search_router.post(
    "/captions",
    operation_id="getCaptionsOfUpload",
    response_model=SearchAnswer,
    responses=describe_answer("captions"),
    openapi_extra=_describe_body(CAPTIONS_BODY),
)
async def captions_for(request: Request) -> Response:
    """Find the gallery's captions nearest to an uploaded picture."""
    service = _service(request)
    image, fields = await _read_form(request, service.settings.guard.body_bytes)
    options = _parse(CaptionsRequest, fields)
    return await service.captions(image, options.k, vector=options.vector, log=options.log)


@search_router.get(
    "/explain",
    operation_id="explain",
    response_model=ExplainAnswer,
    responses=describe_answer("explain"),
)
async def explain(
    request: Request,
    q: Annotated[str, Query(max_length=2000, examples=["灰猫"])],
    k: Annotated[HitCount, Query()] = 5,
    log: bool = True,
) -> Response:
    """Explain how a query was understood, what each variant finds, and each score."""
    return await _service(request).explain(q, k, log=log)


def _wants_stream(request: Request) -> bool:
    return NDJSON in request.headers.get("accept", "")


async def _read_json(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge("guard-large", most=MAX_JSON_BYTES // 1_000_000)
    return body


async def _read_form(request: Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Return the picture in ``image``, and the other fields."""
    limits = {"max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    try:
        async with request.form(max_files=1, **limits) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise BadInput("request-no-image")
            data = await image.read(max_bytes + 1)
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
    except (MultiPartException, KeyError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput("request-form", error=reason) from error
    if len(data) > max_bytes:
        raise TooLarge("request-image-large", most=max_bytes // 1_000_000)
    return data, fields


def _parse(kind: type[_M], data: str | bytes | dict[str, str]) -> _M:
    try:
        if isinstance(data, dict):
            return kind.model_validate(data)
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False)) from error


# Pydantic's kinds of errors, by the message that words them.
VALIDATION_ERRORS = {
    "value-missing": ("missing",),
    "value-unknown": ("extra_forbidden",),
    "value-json": ("json_invalid",),
    "value-object": ("model_type", "model_attributes_type", "dict_type"),
    "value-list": ("list_type",),
    "value-integer": ("int_parsing", "int_parsing_size", "int_type", "int_from_float"),
    "value-number": ("float_parsing", "float_type", "finite_number"),
    "value-boolean": ("bool_parsing", "bool_type"),
    "value-text": ("string_type", "string_unicode"),
    "value-choice": ("literal_error",),
    "value-least": ("greater_than_equal",),
    "value-most": ("less_than_equal",),
    "value-above": ("greater_than",),
    "value-below": ("less_than",),
    "value-short": ("string_too_short",),
    "value-long": ("string_too_long",),
    "value-few": ("too_short",),
    "value-many": ("too_long",),
    "value-term": ("term_source",),
    "value-weight": ("weight_zero",),
}
MESSAGE_OF = {kind: code for code, kinds in VALIDATION_ERRORS.items() for kind in kinds}


def invalid_request(errors: Any) -> BadInput:  # noqa: ANN401
    """Return the first of pydantic's complaints: where it is, and what it says in our words."""
    first = errors[0]
    kind, limits = first["type"], first.get("ctx", {})
    # Within the body, a number is where JSON cannot be read.
    place = [str(part) for part in first["loc"] if part not in ("query", "body", "path")]
    fields = {name: limits[name] for name in ("ge", "le", "gt", "lt") if name in limits}
    fields |= {name.removesuffix("_length"): limits[name] for name in limits if "_length" in name}
    if kind == "json_invalid":
        place, (line, column) = [], re.findall(r"[0-9]+", str(limits["error"]))[-2:]
        fields = {"line": line, "column": column}
    if kind == "literal_error":
        fields = {"choices": " | ".join(re.findall("'(.*?)'", limits["expected"]))}
    error = BadInput(MESSAGE_OF.get(kind, "value-invalid"), **fields)
    return BadInput("request-invalid", place=".".join(place) or "body", error=error)


def _check_search(body: SearchRequest, *, upload: bool = False, stream: bool = False) -> None:
    """Check what a schema cannot say, or could say only in its own words."""
    given = [name for name in QUERY_FIELDS if getattr(body, name) is not None]
    if given not in ([], ["terms"]) if upload else len(given) != 1:
        names = ", ".join(["image"] * upload + given) or "none"
        raise BadInput("request-sources", given=names)
    terms, variants = body.terms or (), body.variants or ()
    texts = [body.text, *(each.text for each in (*terms, *variants)), *(t.query for t in terms)]
    length = sum(len(text or "") for text in texts)
    if length > MAX_QUERY_LENGTH:
        raise BadInput("request-texts", length=length, most=MAX_QUERY_LENGTH)
    limit = MAX_STREAMED_HITS if stream else MAX_HITS
    if body.k > limit:
        raise BadInput("request-k", k=body.k, most=limit)
    if body.offset + body.k > MAX_STREAMED_HITS:
        raise BadInput("request-depth", most=MAX_STREAMED_HITS)


# Pictures and what is known of them, by id.


PathId = Annotated[ImageId, Path(examples=[5])]


def _describe_media(media_type: str, description: str) -> Responses:
    return {
        200: {"content": {media_type: {}}, "description": description},
        304: {"description": "what the client has is still right"},
    }


@images_router.get(
    "/images",
    operation_id="listImages",
    response_model=ImageList,
    responses=describe_answer("images"),
)
async def list_images(request: Request, query: Annotated[ImageQuery, Query()]) -> Response:
    """List pictures, all or those that a filter admits, the last taken first."""
    return await _service(request).list_images(query)


@images_router.get(
    "/images/{id}",
    operation_id="getImage",
    response_class=Response,
    responses=_describe_media("image/*", "the picture"),
)
async def image(request: Request, id: PathId, download: bool = False) -> Response:
    """Send the picture's file; kinds that browsers do not show as WebP, unless to be saved."""
    service = _service(request)

    def work() -> tuple[GalleryFile, str, bytes]:
        file = open_inside(service.gallery.root, service.image_row(id).paths, id)
        media_type = file.media_type()
        if media_type in BROWSER_TYPES or (media_type and download):
            return file, media_type, b""
        with file:  # BadImage for what is no picture any more
            return file, WEBP, service.to_webp(file, MAX_WEBP_SIDE, ORIGINAL_QUALITY)

    file, media_type, webp = await service.run_image(work)
    disposition = "attachment" if download else "inline"
    quoted = quote(file.path.name.encode("utf-8", "surrogateescape"), safe="")
    headers = {
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quoted}",
        "Cache-Control": "private, no-cache",
    }
    if webp:
        return _media_response(request, MediaFile(webp, WEBP, file.etag), headers)
    return _file_response(request, file, media_type, headers)


@images_router.get(
    "/images/{id}/info",
    operation_id="getImageInfo",
    response_model=ImageInfo,
    responses=describe_answer("info"),
)
async def info(request: Request, id: PathId) -> Response:
    """Return paths, captions, size, time taken."""
    service = _service(request)

    def work() -> Json:
        row = service.image_row(id)
        size: int | None = None
        with suppress(NotFound), open_inside(service.gallery.root, row.paths, id) as file:
            size = file.status.st_size
        tags: dict[str, str] = {}
        for caption in reversed(service.gallery.store.captions_of(id)):
            tags |= caption.tags  # of two, the first caption's count
        return {
            "id": row.id, "paths": row.paths, "captions": row.captions, "width": row.width,
            "height": row.height, "taken": row.taken, "tags": tags, "size": size,
        }  # fmt: skip

    return json_response(await service.run(work))


@images_router.get(
    "/thumbnails/{id}",
    operation_id="getThumbnail",
    response_class=Response,
    responses=_describe_media(WEBP, "the thumbnail"),
)
async def thumbnail(
    request: Request,
    id: PathId,
    size: Annotated[Literal["256", "512", "1024"], Query()] = "512",
    v: Annotated[str | None, Query(max_length=40, description="may be kept for good")] = None,
) -> Response:
    """Send a thumbnail, upright, its longer side at most ``size`` pixels."""
    service, known_etags = _service(request), request.headers.get("if-none-match", "")

    def work() -> MediaFile:
        with open_inside(service.gallery.root, service.image_row(id).paths, id) as file:
            etag = service.thumbnails.etag(file, int(size))
            if _is_known(etag, known_etags):
                return MediaFile(b"", WEBP, etag)
            return service.thumbnails.get(file, int(size))

    media = await service.run_image(work)
    lasting = "private, max-age=31536000, immutable" if v else "private, no-cache"
    return _media_response(request, media, {"Cache-Control": lasting})


def _media_response(request: Request, media: MediaFile, headers: dict[str, str]) -> Response:
    # Weak where the bytes may be compressed on their way: 200 and 304 say the same.
    weak = "W/" if media.media_type.partition(";")[0] in COMPRESSIBLE else ""
    headers = {**headers, "ETag": f'{weak}"{media.etag}"', "X-Content-Type-Options": "nosniff"}
    if _is_known(media.etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(media.data, media_type=media.media_type, headers=headers)


def _file_response(
    request: Request, file: GalleryFile, media_type: str, headers: dict[str, str]
) -> Response:
    """Send a file from where it lies, or the range of it that was asked for."""
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    headers |= {"X-Content-Type-Options": "nosniff"}
    size = file.status.st_size
    if _is_known(file.etag, request.headers.get("if-none-match", "")):
        file.stream.close()
        return Response(status_code=304, headers=headers)
    status, start, stop = 200, 0, size
    if request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        part = _byte_range(request.headers.get("range", ""), size)
        if part is not None:
            status, (start, stop) = 206, part
            if start >= stop:
                file.stream.close()
                raise RangeNotSatisfiable("request-range", size=size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if request.scope.get(IS_HEAD):
        start = stop
    return StreamingResponse(file.chunks(start, stop), status, headers, media_type)


def _byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Return where the one range that is asked for begins and ends; None for the whole file."""
    match = re.fullmatch(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", header)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    if match[2] and int(match[2]) < int(match[1]):
        return None
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


def _is_known(etag: str, if_none_match: str) -> bool:
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return "*" in known or f'"{etag}"' in known


# The server itself: is it well, what does it have, what has it done.


@about_router.get(
    "/health", operation_id="getHealth", response_model=Health, responses=describe_answer("health")
)
async def health(request: Request) -> Response:
    """Answer 200 once searches can be answered, 503 before."""
    service = _service(request)
    if not service.is_ready:
        service.check_health()  # at once, not behind those who wait for the model
    await service.check_state(service.check_health)
    return json_response({"status": "ok"})


@about_router.get(
    "/stats", operation_id="getStats", response_model=Stats, responses=describe_answer("stats")
)
async def stats(request: Request) -> Response:
    """Describe the gallery, the index, the model, and what the page can offer."""
    service = _service(request)

    def work() -> Json:
        info = service.gallery.info()
        return {
            "name": info.root.name,
            "version": VERSION,
            "uptime": round(time.monotonic() - service.started, 1),
            "model": vars(info.model),
            "index": vars(info.state),
            "codes": {
                kind: {
                    "recipe": codes.recipe, "target": codes.target, "vectors": codes.slots,
                    "levels": [asdict(level) for level in codes.levels],
                }
                for kind, codes in info.promises.items()
            },
            "yardstick": asdict(info.yardstick) if info.yardstick else None,
            "min_confidence": service.gallery.searcher.min_confidence,
            "features": {
                "image_url": service.settings.fetch is not None,
                "captions": info.state.captions > 0,
                "where_fields": list(FIELDS),
            },
        }  # fmt: skip

    return json_response(await service.run(work))


@about_router.get(
    "/session",
    operation_id="getSession",
    response_model=Session,
    responses=describe_answer("session"),
)
async def session() -> Response:
    """Say whether a token is asked for, and whether it was shown (``SessionAuth`` answers)."""
    return json_response(EXAMPLES["session"])


SIGN_IN_BODY: Json = {JSON: {"schema": {"$ref": "#/components/schemas/SignIn"}}}


@about_router.post(
    "/session",
    operation_id="createSession",
    status_code=204,
    response_class=Response,
    openapi_extra=_describe_body(SIGN_IN_BODY),
    responses={204: {"description": "signed in: the answer sets a cookie"}},
)
async def create_session() -> Response:
    """Sign in with the token; for pages, which then have a cookie (``SessionAuth`` answers)."""
    return Response(status_code=204)


@about_router.delete(
    "/session",
    operation_id="deleteSession",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "signed out: the cookie is good nowhere any more"}},
)
async def delete_session() -> Response:
    """Sign out (``SessionAuth`` answers)."""
    return Response(status_code=204)


@metrics_router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"example": "soutu_ready 1.0\n"}},
            "description": "the counts",
        }
    },
)
async def metrics(request: Request) -> Response:
    """Return counters and gauges for Prometheus."""
    service = _service(request)
    text = await service.check_state(service.metrics.text)
    return Response(text, media_type=service.metrics.media_type)


# The web page: files of the package, by their names and no others.


MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@cache
def page_files() -> dict[str, MediaFile]:
    """Return the page's files by their names."""
    files = {}
    for file in (resources.files("soutu") / "server" / "static").iterdir():
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type:
            data = file.read_bytes()
            if file.name.endswith((".js", ".css")):
                data = _strip_comments(data.decode()).encode()
            files[file.name] = MediaFile(
                data, media_type, blake2b(data, digest_size=12).hexdigest()
            )
    return files


def _strip_comments(source: str) -> str:
    """Remove indentation and comments on lines of their own: a tenth of the page's weight."""
    lines, inside = list[str](), False
    for line in map(str.strip, source.splitlines()):
        begins = line.startswith("/*")
        if not (inside or begins or line.startswith("//")):
            lines.append(line)
        inside = (inside or begins) and not line.endswith("*/")
    return "\n".join(filter(None, lines)) + "\n"


@page_router.get("/")
async def page(request: Request) -> Response:
    """Answer with the page."""
    return await static(request, "index.html")


@page_router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """Answer with a file of the page."""
    if name not in page_files():
        raise NotFound("server-nowhere", path=request.url.path[:200])
    return _media_response(request, page_files()[name], {})
