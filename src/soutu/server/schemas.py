"""Define requests and answers, as OpenAPI describes them."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from soutu.search.explain import QueryAnalysis
from soutu.searchlog.record import to_json
from soutu.server.serializers import JSON, NDJSON, Json
from soutu.types import IndexState, Query, Variant, Verdict

MAX_HITS = 1000  # in one answer
MAX_STREAMED_HITS = 100_000
MAX_QUERY_LENGTH = 20_000  # characters, of all texts of a request together


def _check_digits(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticCustomError("int_parsing", "a whole number is written in digits")
    return value


# In addresses and forms pydantic would take 1_0, 5.0 and " 5" as well, which no description says.
# Limits stand before the check: behind it, the description would have them by pydantic's names.
Digits = BeforeValidator(_check_digits)
ImageId = Annotated[int, Field(ge=0, lt=2**63), Digits]
HitCount = Annotated[int, Field(ge=1, le=MAX_HITS), Digits]


class SearchFields(BaseModel):
    """What every way to ask for a search takes."""

    image_id: ImageId | None = Field(None, description="pictures like this one")
    k: Annotated[int, Field(ge=1, le=MAX_STREAMED_HITS), Digits] = Field(
        20, description=f"above {MAX_HITS} only as a stream"
    )
    offset: Annotated[int, Field(ge=0, le=MAX_STREAMED_HITS), Digits] = 0
    generation: Annotated[int, Field(ge=0, lt=2**63), Digits] | None = Field(
        None, description="the answer must be of this state of the index, as a page before it"
    )
    where: str | None = Field(
        None, max_length=10_000, description="a filter", examples=["width > 2000"]
    )
    expand: bool = Field(True, description="false: the text alone is searched for")
    min_confidence: float | None = Field(None, ge=0, le=1)
    log: bool = Field(True, description="false: the search is not written into the gallery's log")


class SearchQuery(SearchFields):
    """A search that fits into an address."""

    q: str | None = Field(
        None,
        max_length=MAX_QUERY_LENGTH,
        description="as `soutu search` takes it",
        examples=["灰猫 + 雪地"],
    )


class ImageQuery(BaseModel):
    """Which pictures to list."""

    where: str | None = Field(
        None, max_length=10_000, description="a filter", examples=["taken >= 2024"]
    )
    k: HitCount = 20
    cursor: str | None = Field(
        None, max_length=100_000, description="goes on after the page that had it"
    )


class TermInput(BaseModel):
    """A text, an indexed picture or part of a query; a negative weight speaks against it."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, min_length=1, max_length=MAX_QUERY_LENGTH)
    image_id: ImageId | None = None
    query: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_QUERY_LENGTH,
        description="as `soutu search` takes it: each of its terms, weighted",
        examples=["snow - water"],
    )
    weight: Annotated[float, Field(ge=-100, le=100)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> TermInput:
        if [self.text, self.image_id, self.query].count(None) != 2:
            raise PydanticCustomError("term_source", "a term has text, image_id or query")
        if not self.weight:
            raise PydanticCustomError("weight_zero", "a weight is not 0")
        return self


class VariantInput(BaseModel):
    """A variant to search for."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MAX_QUERY_LENGTH)
    weight: float = Field(1.0, gt=0, le=100)
    term: int = Field(0, ge=0, lt=100, description="which term of the query it is a variant of")


class SearchRequest(SearchFields):
    """Exactly one of ``text``, ``image_id``, ``terms`` and ``image_url``.

    Beside an upload, which is the first term, only ``terms``, if anything.

    All texts together have at most 20,000 characters.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "灰猫 + 雪地", "k": 20},
                {"image_id": 12, "where": "width > 2000"},
                {"terms": [{"image_id": 12}, {"query": "snow - water"}]},
                {"text": "灰猫", "variants": [{"text": "a gray cat", "weight": 1.5}]},
            ]
        },
    )

    text: str | None = Field(
        None,
        max_length=MAX_QUERY_LENGTH,
        description="as `soutu search` takes it: 灰猫 + 雪地 - 水",
    )
    terms: list[TermInput] | None = Field(None, min_length=1, max_length=32)
    image_url: str | None = Field(None, max_length=2000, description="where it is switched on")
    variants: list[VariantInput] | None = Field(
        None, max_length=100, description="just these are searched for, instead of what is proposed"
    )
    vector: bool = Field(False, description="the answer shall hold the query's vector")


class CaptionsRequest(BaseModel):
    """What may stand in the form beside the picture."""

    model_config = ConfigDict(extra="forbid")

    k: HitCount = 5
    vector: bool = False
    log: bool = True


class ExpanderReport(BaseModel):
    """What an expander did; ``fault`` is why it failed, "" if it did not."""

    name: str = Field(examples=["rules"])
    ms: float
    proposed: int
    fault: str


class Hit(BaseModel):
    """A picture or caption, best first."""

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


class SearchAnswer(BaseModel):
    """A search's answer; as a stream, its first line has no ``hits`` and each hit is one more."""

    query: Query
    variants: list[Variant]
    expanders: list[ExpanderReport]
    hits: list[Hit]
    k: int
    offset: int
    more: bool
    target: str = Field(examples=["images"])
    agreement: float
    confidence: float | None
    verdict: Verdict | None = Field(description="what the confidence means; null: not known")
    min_confidence: float
    fusion: str
    correction: float
    ranked_by: str
    reference: str
    suggestions: list[str] = Field(
        description="where the filter admits nothing: conditions on what is most like what it names"
    )
    model: dict[str, Any]
    index: IndexState
    timings: dict[str, float]
    vector: str | None = Field(description="base64 of little-endian float32, where asked for")


class ListedImage(BaseModel):
    """A picture of the gallery, with what a tile of it needs."""

    id: int
    path: str = Field(examples=["images/005.jpg"])
    also: list[str]
    caption: str
    width: int
    height: int
    taken: str = Field(description="local time, with its offset if that is known; empty if unknown")


class ImageList(BaseModel):
    """A page of pictures, the last taken first; those of unknown time are last."""

    images: list[ListedImage]
    total: int = Field(description="of all pages")
    cursor: str | None = Field(description="of the next page; null: this is the last one")
    suggestions: list[str] = Field(description="as those of a search")
    index: IndexState


class PathCosine(BaseModel):
    """A picture and its cosine."""

    path: str
    cosine: float


class VariantRole(BaseModel):
    """What a variant would find by itself, and the text tower that read it ("": the model's)."""

    variant: Variant
    nearest: list[PathCosine] = Field(alias="found")
    tower: str = ""


class TextCosine(BaseModel):
    """A variant's part of a cosine."""

    text: str
    cosine: float


class HitShare(BaseModel):
    """What a hit's cosine is made of."""

    id: int
    path: str
    parts: list[TextCosine]


class ExplainAnswer(BaseModel):
    """How a query was understood, and what makes up each score."""

    result: SearchAnswer
    understood: list[QueryAnalysis]
    roles: list[VariantRole]
    shares: list[HitShare]


class ImageInfo(BaseModel):
    """What is known of a picture."""

    id: int
    paths: list[str]
    captions: list[str]
    width: int
    height: int
    taken: str
    tags: dict[str, str] = Field(description="further columns of the captions file")
    size: int | None = Field(description="of the file, in bytes; null where it is gone")


class Stats(BaseModel):
    """The gallery, the index and the model."""

    name: str = Field(examples=["photos"])
    version: str
    uptime: float = Field(description="seconds")
    model: dict[str, Any]
    index: IndexState
    codes: dict[str, dict[str, Any]] = Field(description="by kind; none: searches are exact")
    yardstick: dict[str, Any] | None
    min_confidence: float
    features: dict[str, Any]


class Health(BaseModel):
    """That searches are answered."""

    status: str = Field(examples=["ok"])


class Session(BaseModel):
    """Whether a token is asked for, and whether it was shown."""

    auth: str = Field(examples=["none", "token"])
    signed_in: bool


class SignIn(BaseModel):
    """The server's token."""

    token: str


class ErrorInfo(BaseModel):
    """What was wrong; ``kind`` and ``code`` are for programs."""

    status: int = Field(examples=[400])
    kind: str = Field(examples=["BadQuery"])
    code: str = Field(examples=["query-empty"])
    message: str
    fields: dict[str, Any]


class Problem(BaseModel):
    """The answer to what went wrong."""

    error: ErrorInfo


Responses: TypeAlias = "dict[int | str, dict[str, Any]]"


def _load_examples() -> dict[str, Json]:
    """Complete ``examples.json``, which repeats nothing."""
    text = (resources.files("soutu.server") / "examples.json").read_text("utf-8")
    examples: dict[str, Json] = json.loads(text)
    search = examples["search"]
    examples["captions"] = {**search, **examples["captions"]}
    examples["explain"] = {"result": search, **examples["explain"]}
    examples["stats"] |= {"model": search["model"], "index": search["index"]}
    return examples


EXAMPLES = _load_examples()


def describe_answer(name: str, *, streamed: bool = False) -> Responses:
    """Describe a route's answer by its example; ``streamed``: as lines too, where asked for."""
    example = EXAMPLES[name]
    content: dict[str, Any] = {JSON: {"example": example}}
    if streamed:
        head = {key: value for key, value in example.items() if key != "hits"}
        description = "the answer without its hits, then a hit a line"
        content[NDJSON] = {
            "schema": {"type": "string", "description": description},
            "example": "".join(to_json(line) + "\n" for line in (head, *example["hits"])),
        }
    return {200: {"content": content}}
