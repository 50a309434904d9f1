"""The application: routes, errors in one shape, counts, and the guard around it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
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
from soutu.server.exceptions import HttpError, NotAllowed, NotFound, language_of, problem, status_of
from soutu.server.routes import invalid
from soutu.server.schemas import PROBLEM, Problem, SearchRequest
from soutu.server.serializers import JSON, json_response
from soutu.server.service import AppState
from soutu.server.settings import ServerSettings, add_middleware
from soutu.version import VERSION

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE = "/api/v1"
log = logging.getLogger(__name__)
_TOLD = (400, 401, 403, 404, 405, 408, 413, 421, 429, 431, 500, 502, 503, 504)
_FAULT: dict[str, Any] = {"model": Problem, "content": {JSON: {"example": PROBLEM}}}


def create_app(gallery: Gallery, settings: ServerSettings | None = None) -> FastAPI:
    """The API and the page over ``gallery``, without its guard (``create_server``)."""
    settings = settings or ServerSettings()
    app = FastAPI(
        title="Soutu 搜图",
        version=VERSION,
        description="Find images by Chinese or English text, and captions by image.",
        openapi_url=f"{BASE}/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        responses=dict.fromkeys(_TOLD, _FAULT),
    )
    app.state.context = AppState(gallery, settings)
    for router in (routes.search_router, routes.images_router, routes.about_router):
        app.include_router(router, prefix=BASE)
    app.include_router(routes.metrics_router)
    app.include_router(routes.page_router)
    app.add_middleware(RequestMetrics, context=app.state.context)
    for kind in (SoutuError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answered)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def create_server(gallery: Gallery, settings: ServerSettings) -> ASGIApp:
    """``create_app`` behind its guard: what is given to the network."""
    return add_middleware(create_app(gallery, settings), settings.guard)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.context.begin()
    yield
    app.state.context.close()


async def _answered(request: Request, met: Exception) -> Response:
    """What went wrong, in the one shape; what nobody foresaw goes to the log, not to the client."""
    fault = _redact_paths(_known(request, met), request.app.state.context.gallery)
    asked = request.query_params.get("lang", "")
    accepted = request.headers.get("accept-language", "")
    lang = asked if asked in ("zh", "en") else language_of(accepted)
    answer = json_response(problem(fault, lang), status_of(fault))
    if isinstance(fault, HttpError):
        answer.headers.update(fault.headers)
    if isinstance(met, HTTPException) and met.headers:
        answer.headers.update(met.headers)  # which methods there are
    return answer


def _redact_paths(fault: SoutuError, gallery: Gallery) -> SoutuError:
    """``fault`` without where the gallery lies, here or elsewhere: that is no client's business."""
    names = {str(place): place.name for place in (gallery.root, gallery.home) if place.name}
    if isinstance(gallery.place, str):
        address = redacted(gallery.place)
        names |= {address: address.rpartition("/")[2], urlsplit(address).netloc or address: "…"}

    def told(value: object) -> object:
        if not isinstance(value, (str, Path)):
            return value
        said = str(value)
        for place, name in names.items():
            said = said.replace(place, name)
        return said

    fields = {key: told(value) for key, value in fault.fields.items()}
    return type(fault)(fault.code, **fields)


def _known(request: Request, met: Exception) -> SoutuError:
    path = request.url.path[:200]
    if isinstance(met, SoutuError):
        return met
    if isinstance(met, RequestValidationError):
        return invalid(met.errors())
    if isinstance(met, HTTPException):
        if met.status_code == 404:
            return NotFound("server-nowhere", path=path)
        if met.status_code == 405:
            return NotAllowed("server-method", path=path, method=request.method[:20])
        return BadInput("request-form", error=str(met.detail)[:200])
    name = secrets.token_hex(4)
    if not isinstance(met, ClientDisconnect):
        log.error("%s: %s %s", name, request.method, path, exc_info=met)
    return SoutuError("server-broke", id=name)


def _schema(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the body that a route reads by itself, and without FastAPI's own 422."""
    if not app.openapi_schema:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, models = models_json_schema(
            [(SearchRequest, "validation")], ref_template="#/components/schemas/{model}"
        )
        made["components"]["schemas"] |= models["$defs"]
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = made
    return app.openapi_schema


class RequestMetrics:
    """Counts each request by its route's template."""

    def __init__(self, app: ASGIApp, context: AppState) -> None:
        self._app, self._metrics = app, context.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        def count(status: int) -> None:
            route = scope.get("route")
            template = getattr(route, "path_format", None) or "other"
            if route and scope["path"].startswith(BASE) and BASE not in template:
                template = BASE + template
            self._metrics.count(template, status, time.perf_counter() - begun)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except ClientDisconnect:
            raise
        except Exception:  # answered further out, by what starlette has for it
            count(500)
            raise
