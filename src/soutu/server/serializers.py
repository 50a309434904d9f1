"""Turn results into the JSON of the API."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.responses import Response, StreamingResponse

from soutu.errors import BadInput
from soutu.searchlog.record import to_json
from soutu.types import IndexState, SearchResult

if TYPE_CHECKING:
    from soutu.search.explain import Explanation
    from soutu.store.base import ImageRow, ListingKey

Json: TypeAlias = "dict[str, Any]"
JSON, NDJSON = "application/json", "application/x-ndjson"
_LINES_PER_CHUNK = 500


def result_json(
    result: SearchResult,
    rows: Mapping[int, ImageRow],
    *,
    offset: int = 0,
    more: bool = False,
    vector: bool = False,
    suggestions: Sequence[str] = (),
) -> Json:
    """Return a result as the API answers it.

    Parameters
    ----------
    rows
        Those of its images, by id.
    more
        Whether there are hits after these.
    vector
        Whether to send the query's vector.
    suggestions
        Conditions that name what a filter may have meant.
    """
    return {
        "query": {
            "raw": result.query.raw,
            "terms": [vars(term) for term in result.query.terms],
            "filters": result.query.filters,
        },
        "variants": [vars(variant) for variant in result.variants],
        "expanders": [
            {
                "name": trace.name, "ms": trace.ms, "proposed": trace.proposed,
                "fault": str(trace.error) if trace.error else "",
            }
            for trace in result.expanders
        ],
        "hits": [
            {
                **vars(hit),
                "width": rows[hit.id].width if hit.id in rows else 0,
                "height": rows[hit.id].height if hit.id in rows else 0,
            }
            for hit in result.hits
        ],
        "k": result.k,
        "offset": offset,
        "more": more,
        "target": result.target,
        "agreement": result.agreement,
        "confidence": result.confidence,
        "verdict": result.verdict,
        "min_confidence": result.min_confidence,
        "fusion": result.fusion,
        "correction": result.correction,
        "ranked_by": result.ranked_by,
        "reference": result.reference,
        "suggestions": suggestions,
        "model": vars(result.model),
        "index": vars(result.index_state),
        "timings": result.timings,
        "vector": base64.b64encode(result.vector.astype("<f4").tobytes()).decode()
        if vector
        else None,
    }  # fmt: skip


def list_json(
    rows: Sequence[ImageRow],
    *,
    total: int,
    cursor: str | None,
    suggestions: Sequence[str],
    state: IndexState,
) -> Json:
    """Return a page of pictures as the API answers it."""
    return {
        "images": [
            {
                "id": row.id, "path": row.paths[0], "also": row.paths[1:],
                "caption": row.captions[0] if row.captions else "",
                "width": row.width, "height": row.height, "taken": row.taken,
            }
            for row in rows
        ],
        "total": total,
        "cursor": cursor,
        "suggestions": suggestions,
        "index": vars(state),
    }  # fmt: skip


def format_cursor(key: ListingKey) -> str:
    """Return the cursor of the page that follows the image with this key."""
    taken, path = key
    return base64.urlsafe_b64encode(taken.encode() + b"\0" + path).decode()


def parse_cursor(cursor: str) -> ListingKey:
    """Return the key that ``format_cursor`` was given; BadInput for another text."""
    try:
        taken, _, path = base64.urlsafe_b64decode(cursor).partition(b"\0")
        key = taken.decode(), path
    except ValueError:
        key = "", b""
    if format_cursor(key) != cursor:
        raise BadInput("request-cursor", cursor=cursor[:100])
    return key


def explanation_json(explanation: Explanation, result: Json) -> Json:
    """Return an explanation as the API answers it; ``result`` is that of ``result_json``."""
    return {
        "result": result,
        "understood": [asdict(term) for term in explanation.understood],
        "roles": [
            {
                "variant": vars(role.variant),
                "found": [{"path": path, "cosine": cosine} for path, cosine in role.found],
                "tower": role.tower,
            }
            for role in explanation.roles
        ],
        "shares": [
            {
                "id": share.hit.id,
                "path": share.hit.path,
                "parts": [{"text": text, "cosine": cosine} for text, cosine in share.parts],
            }
            for share in explanation.shares
        ],
    }


def json_response(value: object, status: int = 200) -> Response:
    """Answer with JSON; file names that are no valid Unicode are escaped."""
    return Response(to_json(value), status, media_type=JSON)


def ndjson_response(answer: Json) -> Response:
    """Answer with a stream: a line of what holds for all hits, then a hit a line."""
    hits = answer.pop("hits")

    def lines() -> Iterator[str]:
        yield to_json(answer) + "\n"
        for start in range(0, len(hits), _LINES_PER_CHUNK):
            yield "".join(to_json(hit) + "\n" for hit in hits[start : start + _LINES_PER_CHUNK])

    return StreamingResponse(lines(), media_type=NDJSON)
