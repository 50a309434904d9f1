"""A request's parts: JSON or a form, and what else it may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from soutu.errors import BadInput
from soutu.server.problems import TooLarge
from soutu.server.schemas import MOST, MOST_STREAMED, CaptionsRequest, SearchRequest

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
        raise BadInput("request-form", fault=_told(fault)) from fault
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
    return BadInput("request-invalid", place=place or "body", fault=first["msg"])


def _told(fault: Exception) -> str:
    return " ".join(str(fault).split())[:200] or type(fault).__name__
