"""What routes answer, by way of example; OpenAPI shows it."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from soutu.searchlog.record import to_json
from soutu.server.serializers import JSON, LINES, Json

# What is asked and answered, as OpenAPI describes it.


MOST = 1000  # hits in one answer
MOST_STREAMED = 100_000
LONGEST = 20_000  # characters of a query
Weight = Annotated[float, Field(ge=-100, le=100)]


def _digits(given: object) -> object:
    if isinstance(given, str) and not re.fullmatch(r"-?[0-9]+", given):
        raise ValueError("a whole number is written in digits")
    return given


# In addresses and forms pydantic would take 1_0, 5.0 and " 5" as well, which no description says.
Whole = Annotated[int, BeforeValidator(_digits)]
Id = Annotated[Whole, Field(ge=0, lt=2**63)]


class SearchFields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TermInput(SearchFields):
    """A text or an indexed picture; a negative weight speaks against it."""

    text: str | None = Field(None, min_length=1, max_length=LONGEST)
    image_id: Id | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _one(self) -> TermInput:
        if (self.text is None) == (self.image_id is None):
            raise ValueError("a term has text or image_id, one of them")
        if not self.weight:
            raise ValueError("a weight is not 0")
        return self


class VariantInput(SearchFields):
    text: str = Field(min_length=1, max_length=LONGEST)
    weight: float = Field(1.0, gt=0, le=100)
    term: int = Field(0, ge=0, lt=100, description="which term of the query it is a variant of")


class SearchRequest(SearchFields):
    """Exactly one of ``text``, ``image_id``, ``terms`` and ``image_url``; none beside an upload."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "灰猫 + 雪地", "k": 20},
                {"image_id": 12, "where": "width > 2000"},
                {"text": "灰猫", "variants": [{"text": "a gray cat", "weight": 1.5}]},
            ]
        },
    )

    text: str | None = Field(
        None, max_length=LONGEST, description="as `soutu search` takes it: 灰猫 + 雪地 - 水"
    )
    image_id: Id | None = Field(None, description="pictures like this one")
    terms: list[TermInput] | None = Field(None, min_length=1, max_length=32)
    image_url: str | None = Field(None, max_length=2000, description="where it is switched on")
    k: Whole = Field(20, ge=1, le=MOST_STREAMED, description=f"above {MOST} only as a stream")
    offset: Whole = Field(0, ge=0, le=MOST_STREAMED)
    where: str | None = Field(None, max_length=10_000, description="a filter: width > 2000")
    expand: bool = Field(True, description="false: the text alone is searched for")
    variants: list[VariantInput] | None = Field(
        None, max_length=100, description="just these are searched for, instead of what is proposed"
    )
    min_confidence: float | None = Field(None, ge=0, le=1)
    vector: bool = Field(False, description="the answer shall hold the query's vector")


class SimpleSearch(BaseModel):
    """A search that fits into an address."""

    q: str | None = Field(
        None, max_length=LONGEST, description="as `soutu search` takes it", examples=["灰猫 + 雪地"]
    )
    image_id: Id | None = Field(None, description="pictures like this one")
    k: Whole = Field(20, ge=1, le=MOST_STREAMED, description=f"above {MOST} only as a stream")
    offset: Whole = Field(0, ge=0, le=MOST_STREAMED)
    where: str | None = Field(None, max_length=10_000, examples=["width > 2000"])
    expand: bool = True
    min_confidence: float | None = Field(None, ge=0, le=1)

    def asked(self) -> SearchRequest:
        """The same as the JSON of a search would say it."""
        said = self.model_dump(exclude={"q"})
        return SearchRequest.model_construct(text=self.q, **said)


class CaptionsRequest(SearchFields):
    """What may stand in the form beside the picture."""

    k: Whole = Field(5, ge=1, le=MOST)
    vector: bool = False


class Term(BaseModel):
    kind: str = Field(examples=["text"])
    value: str = Field(examples=["灰猫"])
    weight: float = 1.0


class Query(BaseModel):
    raw: str = Field(examples=["灰猫"])
    terms: list[Term]
    filters: list[str]


class Variant(BaseModel):
    text: str = Field(examples=["a gray cat"])
    weight: float
    source: str = Field(examples=["original", "rules", "lexicon"])
    term: int
    unused: str = Field(description='"" if it was searched for, else why not')


class Expander(BaseModel):
    name: str = Field(examples=["rules"])
    ms: float
    proposed: int
    fault: str


class Hit(BaseModel):
    rank: int
    score: float
    cosine: float
    confidence: float | None
    id: int
    path: str = Field(examples=["images/005.jpg"])
    also: list[str]
    caption: str
    width: int
    height: int


class Index(BaseModel):
    generation: int
    space: str
    images: int
    captions: int


class Answer(BaseModel):
    """A search's answer; as a stream, its first line has no ``hits`` and each hit is one more."""

    query: Query
    variants: list[Variant]
    expanders: list[Expander]
    hits: list[Hit]
    k: int
    offset: int
    more: bool
    target: str = Field(examples=["images"])
    agreement: float
    confidence: float | None
    min_confidence: float
    fusion: str
    correction: float
    ranked_by: str
    reference: str
    model: dict[str, Any]
    index: Index
    timings: dict[str, float]
    vector: str | None = Field(description="base64 of little-endian float32, where asked for")


class Understood(BaseModel):
    text: str
    language: str
    length: str
    words: list[tuple[str, str]]


class Found(BaseModel):
    path: str
    cosine: float


class Role(BaseModel):
    variant: Variant
    found: list[Found]


class Part(BaseModel):
    text: str
    cosine: float


class Share(BaseModel):
    id: int
    path: str
    parts: list[Part]


class Explained(BaseModel):
    result: Answer
    understood: list[Understood]
    roles: list[Role]
    shares: list[Share]


class ImageInfo(BaseModel):
    id: int
    paths: list[str]
    captions: list[str]
    width: int
    height: int
    taken: str
    tags: dict[str, str] = Field(description="further columns of the captions file")
    size: int | None = Field(description="of the file, in bytes; null where it is gone")


class Stats(BaseModel):
    name: str = Field(examples=["photos"])
    version: str
    uptime: float = Field(description="seconds")
    model: dict[str, Any]
    index: Index
    codes: dict[str, dict[str, Any]] = Field(description="by kind; none: searches are exact")
    yardstick: dict[str, Any] | None
    min_confidence: float
    features: dict[str, Any]


class Health(BaseModel):
    status: str = Field(examples=["ok"])


class Session(BaseModel):
    auth: str = Field(examples=["none", "token"])
    signed_in: bool


class Fault(BaseModel):
    status: int = Field(examples=[400])
    kind: str = Field(examples=["BadQuery"])
    code: str = Field(examples=["query-empty"])
    message: str
    fields: dict[str, Any]


class Problem(BaseModel):
    error: Fault


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
