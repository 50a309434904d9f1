"""What routes answer, by way of example; OpenAPI shows it."""

from __future__ import annotations

from typing import Any, TypeAlias

from soutu.journal import to_json
from soutu.server.answers import JSON, LINES, Json

Responses: TypeAlias = "dict[int | str, dict[str, Any]]"
SPACE = "tiny/1fe5c2689725"
MODEL: Json = {
    "name": "tiny", "dim": 512, "image_size": 80, "context_length": 64, "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest",
    "languages": ["zh", "en"], "license": "Apache-2.0", "space": SPACE, "fingerprint": "1fe5…",
}  # fmt: skip
INDEX: Json = {"generation": 1, "space": SPACE, "images": 50, "captions": 50}
VARIANT: Json = {"text": "灰猫", "weight": 1.0, "source": "original", "term": 0, "unused": ""}
HIT: Json = {
    "rank": 1, "score": 0.757, "cosine": 0.442, "confidence": 0.397, "id": 1,
    "path": "images/001.jpg", "also": [], "caption": "一只灰猫蹲在树干上",
    "width": 640, "height": 640,
}  # fmt: skip
ANSWER: Json = {
    "query": {
        "raw": "灰猫",
        "terms": [{"kind": "text", "value": "灰猫", "weight": 1.0}],
        "filters": [],
    },
    "variants": [
        VARIANT,
        {"text": "gray cat", "weight": 1.0, "source": "built-in", "term": 0, "unused": ""},
    ],
    "expanders": [{"name": "rules", "ms": 0.1, "proposed": 1, "fault": ""}],
    "hits": [HIT],
    "k": 1, "offset": 0, "more": True, "target": "images", "agreement": 0.98, "confidence": 0.858,
    "min_confidence": 0.0, "fusion": "auto", "correction": 0.0, "ranked_by": "lifted",
    "reference": "12a034d653d95340-50-b3d89b5c8cfeaf69", "model": MODEL, "index": INDEX,
    "timings": {"expand_ms": 0.1, "encode_ms": 2.0, "search_ms": 0.5}, "vector": None,
}  # fmt: skip
CAPTIONS: Json = {
    **ANSWER,
    "query": {
        "raw": "images/001.jpg",
        "terms": [{"kind": "indexed", "value": "images/001.jpg", "weight": 1.0}],
        "filters": [],
    },
    "variants": [], "expanders": [], "target": "captions", "confidence": None, "agreement": 1.0,
    "hits": [{**HIT, "confidence": None, "width": 0, "height": 0}],
}  # fmt: skip
EXPLAINED: Json = {
    "result": ANSWER,
    "understood": [
        {"text": "灰猫", "language": "zh", "length": "word", "words": [["灰猫", "gray cat"]]}
    ],
    "roles": [{"variant": VARIANT, "found": [{"path": "images/016.jpg", "cosine": 0.541}]}],
    "shares": [
        {"id": 16, "path": "images/016.jpg", "parts": [{"text": "灰猫", "cosine": 0.541}]},
    ],
}
INFO: Json = {
    "id": 5, "paths": ["images/005.jpg"], "captions": ["一只金毛犬站在黄色背景前"],
    "width": 640, "height": 640, "taken": "2024-05-06T07:08:09", "tags": {"photographer": "李"},
    "size": 19463,
}  # fmt: skip
STATS: Json = {
    "name": "photos", "version": "0.1.0", "uptime": 12.5, "model": MODEL, "index": INDEX,
    "codes": {},
    "yardstick": {"images": 50, "mean": 0.352, "spread": 0.078, "skewness": 1.65, "alpha": 0.0,
                  "skewed": 3.3},
    "min_confidence": 0.0,
    "features": {"image_url": False, "captions": True, "where_fields": ["folder", "width"]},
}  # fmt: skip
PROBLEM: Json = {
    "error": {
        "status": 400, "kind": "BadQuery", "code": "query-k",
        "message": "Asked for the top 0; ask for at least 1.", "fields": {"k": 0},
    }
}  # fmt: skip


def answers(example: Json) -> Responses:
    """For a route that answers with JSON alone."""
    return {200: {"content": {JSON: {"example": example}}}}


def streamed(example: Json) -> Responses:
    """For a route that answers with a stream too, where ``Accept`` asks for it."""
    head = {name: value for name, value in example.items() if name != "hits"}
    description = "the answer without its hits, then a hit a line"
    told = "".join(to_json(line) + "\n" for line in (head, *example["hits"]))
    lines = {"schema": {"type": "string", "description": description}, "example": told}
    found = answers(example)
    found[200]["content"][LINES] = lines
    return found
