"""The server itself: is it well, what does it have, what has it done."""

from __future__ import annotations

import time
from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from soutu.filters import FIELDS
from soutu.server.answers import Json, json_response
from soutu.server.context import Context, context
from soutu.server.examples import STATS, Responses, answers
from soutu.server.schemas import Health, Session, Stats
from soutu.version import VERSION

router = APIRouter()
metrics_router = APIRouter()
SESSION: Json = {"auth": "none", "signed_in": True}
COUNTS: Responses = {
    200: {"content": {"text/plain": {"example": "soutu_ready 1.0\n"}}, "description": "the counts"}
}


@router.get("/health", response_model=Health, responses=answers({"status": "ok"}))
async def health(request: Request) -> Response:
    """200 once searches can be answered, 503 before."""
    here = context(request)
    if not here.opening.ready:
        here.health()  # which does not wait behind those who wait for the model
    await here.searches(here.health)
    return json_response({"status": "ok"})


@router.get("/stats", response_model=Stats, responses=answers(STATS))
async def stats(request: Request) -> Response:
    """The gallery, the index, the model, and what the page can offer."""
    here = context(request)
    return json_response(await here.search(lambda: _stats(here)))


@router.get("/session", response_model=Session, responses=answers(SESSION))
async def session() -> Response:
    """Whether a token is asked for, and whether it was shown (``guard/session.py`` answers)."""
    return json_response(SESSION)


@metrics_router.get("/metrics", response_class=Response, responses=COUNTS)
async def metrics(request: Request) -> Response:
    """Counters and gauges for Prometheus."""
    here = context(request)
    return Response(await here.searches(here.metrics.text), media_type=here.metrics.media_type)


def _stats(here: Context) -> Json:
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
