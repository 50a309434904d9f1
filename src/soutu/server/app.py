"""Put the application together: routes, errors in one shape, metrics, and the guard around it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from soutu.errors import BadInput, SoutuError
from soutu.factory import redacted
from soutu.gallery import Gallery
from soutu.server import routes
from soutu.server.auth import COOKIE
from soutu.server.exceptions import (
    HttpError,
    NotAllowed,
    NotFound,
    problem,
    request_language,
    status_of,
)
from soutu.server.middleware import (
    API,
    PUBLIC,
    Compression,
    HeadRequests,
    RequestMetrics,
    add_middleware,
)
from soutu.server.schemas import EXAMPLES, Problem, SearchRequest, SignIn
from soutu.server.serializers import JSON, json_response
from soutu.server.service import SearchService
from soutu.server.settings import ServerSettings
from soutu.version import VERSION

if TYPE_CHECKING:
    from starlette.types import ASGIApp

STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 416, 421, 429, 431, 500, 502, 503, 504)
TAGS = [
    {"name": "search", "description": "pictures by text and by picture, captions by picture"},
    {"name": "pictures", "description": "lists, files, thumbnails and what is known of them"},
    {"name": "server", "description": "its state, and who may ask it"},
]
SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "where the server asks for one"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "for pages; the name ends in _ and the server's port",
    },
}
SECURITY: list[dict[str, list[str]]] = [{}, {"token": []}, {"session": []}]
LANGUAGE = {
    "name": "lang",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": list(routes.LANGUAGES)},
    "description": "of messages; otherwise as Accept-Language says",
}
log = logging.getLogger(__name__)


def create_server(gallery: Gallery, settings: ServerSettings) -> ASGIApp:
    """Make what is given to the network: the application behind its guard."""
    return add_middleware(create_app(gallery, settings), settings.guard)


def create_app(gallery: Gallery, settings: ServerSettings | None = None) -> FastAPI:
    """Make the API and the page over ``gallery``, without the guard."""
    service = SearchService(gallery, settings or ServerSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    error: dict[str, Any] = {"model": Problem, "content": {JSON: {"example": EXAMPLES["problem"]}}}
    app = FastAPI(
        title="Soutu 搜图",
        version=VERSION,
        description="Find images by Chinese or English text, and captions by image.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # they would be built from the header Host
        lifespan=lifespan,
        responses=dict.fromkeys(STATUSES, error),
    )
    app.state.service = service
    checks = [Depends(routes.check_parameters)]
    for router in (routes.search_router, routes.images_router, routes.about_router):
        app.include_router(router, prefix=API, dependencies=checks)
    app.include_router(routes.metrics_router)
    app.include_router(routes.page_router)
    app.add_middleware(RequestMetrics, metrics=service.metrics)
    app.add_middleware(Compression)
    app.add_middleware(HeadRequests)
    for kind in (SoutuError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _answer_error(request: Request, exception: Exception) -> Response:
    """In the one shape; what nobody foresaw goes to the log, not to the client."""
    error = _redact_paths(_soutu_error(request, exception), request.app.state.service.gallery)
    language = request_language(
        request.query_params.get("lang", ""), request.headers.get("accept-language", "")
    )
    response = json_response(problem(error, language), status_of(error))
    if isinstance(error, HttpError):
        response.headers.update(error.headers)
    return response


def _soutu_error(request: Request, exception: Exception) -> SoutuError:
    path = request.url.path[:200]
    if isinstance(exception, SoutuError):
        return exception
    if isinstance(exception, RequestValidationError):
        return routes.invalid_request(exception.errors())
    if isinstance(exception, HTTPException):
        if exception.status_code == 404:
            return NotFound("server-nowhere", path=path)
        if exception.status_code == 405:
            method, allow = request.method[:20], routes.allowed_methods(request.url.path)
            return NotAllowed("server-method", path=path, method=method, allow=allow)
        return BadInput("request-form", error=str(exception.detail)[:200])
    id_ = secrets.token_hex(4)
    if not isinstance(exception, ClientDisconnect):
        log.error("%s: %s %s", id_, request.method, path, exc_info=exception)
    return SoutuError("server-broke", id=id_)


def _redact_paths(error: SoutuError, gallery: Gallery) -> SoutuError:
    """``error`` without where the gallery lies, here or elsewhere: that is no client's business."""
    names = {str(path): path.name for path in (gallery.root, gallery.home) if path.name}
    if isinstance(gallery.location, str):
        address = redacted(gallery.location)
        names |= {address: address.rpartition("/")[2], urlsplit(address).netloc or address: "…"}
    fields = dict(error.fields)
    for key, value in fields.items():
        if isinstance(value, (str, Path)):
            text = str(value)
            for path, name in names.items():
                text = text.replace(path, name)
            fields[key] = text
    return type(error)(error.code, **fields)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the body that a route reads by itself, and without FastAPI's own 422."""
    if not app.openapi_schema:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=TAGS,
        )
        _, models = models_json_schema(
            [(SearchRequest, "validation"), (SignIn, "validation")],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"] |= models["$defs"]
        schema["components"]["securitySchemes"] = SECURITY_SCHEMES
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["security"] = [] if path in PUBLIC else SECURITY
                if path.startswith(API):
                    operation.setdefault("parameters", []).append(LANGUAGE)
        app.openapi_schema = schema
    return app.openapi_schema
