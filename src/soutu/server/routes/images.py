"""Pictures and what is known of them, by id."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from soutu.server.answers import json_response
from soutu.server.context import Context, context
from soutu.server.examples import INFO, Responses, answers
from soutu.server.files import Sent, inside, original
from soutu.server.problems import NotFound
from soutu.server.schemas import ImageInfo, Whole

router = APIRouter()
_ID = Annotated[Whole, Path(ge=0, lt=2**63, examples=[5])]
_SAME: Responses = {304: {"description": "what the client has is still right"}}
_IMAGE: Responses = {200: {"content": {"image/*": {}}, "description": "the picture"}, **_SAME}
_THUMBNAIL: Responses = {
    200: {"content": {"image/webp": {}}, "description": "the thumbnail"}, **_SAME
}  # fmt: skip
FOR_GOOD = "private, max-age=31536000, immutable"


@router.get("/images/{id}", response_class=Response, responses=_IMAGE)
async def image(request: Request, id: _ID, download: bool = False) -> Response:
    """The picture's file; kinds that browsers do not show as WebP."""
    here = context(request)

    def work() -> tuple[Sent, str]:
        file = inside(here.gallery.root, here.desk.row(id).paths, id)
        return original(file, here.gallery.config.max_pixels), file.name

    sent, name = await here.picture(work)
    shown = quote(name.encode("utf-8", "surrogateescape"), safe="")
    how = "attachment" if download else "inline"
    headers = {"Content-Disposition": f"{how}; filename*=UTF-8''{shown}"}
    return _sent(request, sent, {**headers, "Cache-Control": "private, no-cache"})


@router.get("/images/{id}/info", response_model=ImageInfo, responses=answers(INFO))
async def info(request: Request, id: _ID) -> Response:
    """Paths, captions, size, time taken."""
    here = context(request)
    return json_response(await here.search(lambda: _info(here, id)))


@router.get("/thumbnails/{id}", response_class=Response, responses=_THUMBNAIL)
async def thumbnail(
    request: Request,
    id: _ID,
    size: Annotated[Literal["256", "512", "1024"], Query()] = "512",
    v: Annotated[str | None, Query(max_length=40, description="may be kept for good")] = None,
) -> Response:
    """Upright, its longer side at most ``size`` pixels."""
    here = context(request)
    known, side = request.headers.get("if-none-match", ""), int(size)

    def work() -> Sent:
        file = inside(here.gallery.root, here.desk.row(id).paths, id)
        etag = here.thumbnails.etag(file, side)
        if etag in known:
            return Sent(b"", "image/webp", etag)
        return here.thumbnails.get(file, side)

    sent = await here.picture(work)
    return _sent(request, sent, {"Cache-Control": FOR_GOOD if v else "private, no-cache"})


def _sent(request: Request, sent: Sent, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": f'"{sent.etag}"', "X-Content-Type-Options": "nosniff"}
    if sent.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(sent.data, media_type=sent.kind, headers=headers)


def _info(here: Context, id_: int) -> dict[str, object]:
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
