"""What is asked and answered, as OpenAPI describes it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedTerm(Asked):
    """A text or an indexed picture; a negative weight speaks against it."""

    text: str | None = Field(None, min_length=1, max_length=LONGEST)
    image_id: Id | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _one(self) -> AskedTerm:
        if (self.text is None) == (self.image_id is None):
            raise ValueError("a term has text or image_id, one of them")
        if not self.weight:
            raise ValueError("a weight is not 0")
        return self


class AskedVariant(Asked):
    text: str = Field(min_length=1, max_length=LONGEST)
    weight: float = Field(1.0, gt=0, le=100)
    term: int = Field(0, ge=0, lt=100, description="which term of the query it is a variant of")


class SearchRequest(Asked):
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
    terms: list[AskedTerm] | None = Field(None, min_length=1, max_length=32)
    image_url: str | None = Field(None, max_length=2000, description="where it is switched on")
    k: Whole = Field(20, ge=1, le=MOST_STREAMED, description=f"above {MOST} only as a stream")
    offset: Whole = Field(0, ge=0, le=MOST_STREAMED)
    where: str | None = Field(None, max_length=10_000, description="a filter: width > 2000")
    expand: bool = Field(True, description="false: the text alone is searched for")
    variants: list[AskedVariant] | None = Field(
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


class CaptionsRequest(Asked):
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
