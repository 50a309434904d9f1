"""Searches: by text, by picture, by what is indexed; captions; why something was found."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from soutu.errors import BadInput
from soutu.server.answers import Json, json_response, lines_response
from soutu.server.context import Context, context
from soutu.server.examples import ANSWER, CAPTIONS, EXPLAINED, answers, streamed
from soutu.server.routes.asking import body, captions_request, checked, form, streams
from soutu.server.schemas import (
    MOST,
    Answer,
    CaptionsRequest,
    Explained,
    Id,
    SimpleSearch,
    Whole,
)

router = APIRouter()
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


@router.get("/search", response_model=Answer, responses=streamed(ANSWER))
async def search(request: Request, said: Annotated[SimpleSearch, Query()]) -> Response:
    """The pictures nearest to a text, or to an indexed picture."""
    asked = checked(said.asked(), streamed=streams(request))
    here = context(request)
    return _answered(request, await here.search(lambda: here.desk.search(asked), asked))


@router.post(
    "/search", response_model=Answer, responses=streamed(ANSWER), openapi_extra=SEARCH_BODY
)
async def search_for(request: Request) -> Response:
    """All of it: weighted terms, chosen variants, an uploaded picture."""
    here = context(request)
    asked, upload = await body(request, here.settings.guard.body_bytes)
    if asked.image_url is not None:
        upload = await _fetched(here, asked.image_url)
    return _answered(request, await here.search(lambda: here.desk.search(asked, upload), asked))


async def _fetched(here: Context, url: str) -> bytes:
    fetch = here.settings.fetch
    if fetch is None:
        raise BadInput("server-no-fetch")
    return await here.picture(lambda: fetch(url))


@router.get("/captions", response_model=Answer, responses=answers(CAPTIONS))
async def captions(request: Request, image_id: Id, k: _K = 5) -> Response:
    """The gallery's captions nearest to an indexed picture."""
    here = context(request)
    return json_response(await here.search(lambda: here.desk.captions(image_id, k)))


@router.post(
    "/captions", response_model=Answer, responses=answers(CAPTIONS), openapi_extra=CAPTIONS_BODY
)
async def captions_for(request: Request) -> Response:
    """The gallery's captions nearest to an uploaded picture."""
    here = context(request)
    image, fields = await form(request, here.settings.guard.body_bytes)
    asked = captions_request(fields)

    def work() -> Json:
        return here.desk.captions(image, asked.k, vector=asked.vector)

    return json_response(await here.search(work))


@router.get("/explain", response_model=Explained, responses=answers(EXPLAINED))
async def explain(
    request: Request, q: Annotated[str, Query(max_length=2000, examples=["灰猫"])], k: _K = 5
) -> Response:
    """How a query was understood, what each variant finds, and what makes up each score."""
    here = context(request)
    return json_response(await here.search(lambda: here.desk.explain(q, k)))


def _answered(request: Request, answer: Json) -> Response:
    return lines_response(answer) if streams(request) else json_response(answer)
