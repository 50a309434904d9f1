"""Results as the API answers them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.responses import Response, StreamingResponse

from soutu.searchlog.record import to_json
from soutu.store.base import ImageRow
from soutu.types import ExpanderTrace, Hit, SearchResult

if TYPE_CHECKING:
    from soutu.search.explain import Explanation

Json: TypeAlias = "dict[str, Any]"
JSON, LINES = "application/json", "application/x-ndjson"
_AT_ONCE = 500  # lines of a stream


def plain(result: SearchResult, rows: Mapping[int, ImageRow], page: Mapping[str, Any]) -> Json:
    """The answer as JSON takes it. ``rows`` are those of its images, by id; ``page`` has offset,
    more, and whether the vector is wanted."""
    vector = base64.b64encode(result.vector.astype("<f4").tobytes()).decode()
    return {
        "query": {
            "raw": result.query.raw,
            "terms": [vars(term) for term in result.query.terms],
            "filters": result.query.filters,
        },
        "variants": [vars(variant) for variant in result.variants],
        "expanders": [_ran(ran) for ran in result.expanders],
        "hits": [_hit(hit, rows.get(hit.id)) for hit in result.hits],
        "k": result.k,
        "offset": page["offset"],
        "more": page["more"],
        "target": result.target,
        "agreement": result.agreement,
        "confidence": result.confidence,
        "min_confidence": result.min_confidence,
        "fusion": result.fusion,
        "correction": result.correction,
        "ranked_by": result.ranked_by,
        "reference": result.reference,
        "model": vars(result.model),
        "index": vars(result.index_state),
        "timings": result.timings,
        "vector": vector if page["vector"] else None,
    }


def json_response(value: object, status: int = 200) -> Response:
    """File names that are no valid Unicode are escaped (``journal.to_json``)."""
    return Response(to_json(value), status, media_type=JSON)


def lines_response(answer: Json) -> Response:
    """The same as a stream: what holds for all, then a hit a line."""
    hits = answer.pop("hits")

    def lines() -> Iterator[str]:
        yield to_json(answer) + "\n"
        for start in range(0, len(hits), _AT_ONCE):
            yield "".join(to_json(hit) + "\n" for hit in hits[start : start + _AT_ONCE])

    return StreamingResponse(lines(), media_type=LINES)


def explained(explanation: Explanation, result: Json) -> Json:
    """``explanation``, its result as ``plain`` made it."""
    return {
        "result": result,
        "understood": [asdict(one) for one in explanation.understood],
        "roles": [
            {
                "variant": vars(role.variant),
                "found": [{"path": path, "cosine": cosine} for path, cosine in role.found],
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


def _hit(hit: Hit, row: ImageRow | None) -> dict[str, object]:
    size = {"width": row.width, "height": row.height} if row else {"width": 0, "height": 0}
    return {**vars(hit), **size}


def _ran(ran: ExpanderTrace) -> dict[str, object]:
    return {**vars(ran), "fault": str(ran.fault) if ran.fault else ""}
