"""What a search may be narrowed to: conditions as values, independent of any store.

    Compare("width", ">", 2000)      All((a, b))      Any((a, b))      Not(a)

``Field.kind`` says what a value may be: "number"; "text"; "time", a local time or its beginning
("2024", "2024-05-06", "2024-05-06T07"); "shape", one of ``SHAPES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from soutu.errors import SoutuError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The values that flow through Soutu. Frozen, built once, passed whole.


Floats: TypeAlias = "NDArray[np.float32]"
"""float32 array: embeddings are (n, dim) with unit rows, scores are (n,)."""
Ids: TypeAlias = "NDArray[np.int64]"
"""int64 array (n,) of image or caption ids."""
Bits: TypeAlias = "NDArray[np.uint8]"
"""uint8 array (n,) that packs eight booleans a byte."""
Rgb: TypeAlias = "NDArray[np.uint8]"
"""One decoded picture: uint8 (height, width, 3), upright, no alpha."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and what its vectors may be compared with.

    ``space`` names the source weights and preprocessing: equal spaces are
    comparable whatever the precision. ``fingerprint`` is the sha256 over the
    bundle's files and is what logs record.
    """

    name: str
    dim: int
    image_size: int
    context_length: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    languages: tuple[str, ...]
    license: str
    space: str
    fingerprint: str


@dataclass(frozen=True)
class Variant:
    """One text that a query was expanded to, who proposed it, and the term's place. ``unused``
    says why it was proposed in vain; it is empty for what was searched for."""

    text: str
    weight: float = 1.0
    source: str = "original"
    term: int = 0
    unused: str = ""


@dataclass(frozen=True)
class ExpanderTrace:
    """What asking one expander came to: milliseconds, how many variants it proposed for all terms
    together, and what went wrong (the search goes on without it)."""

    name: str
    ms: float
    proposed: int
    fault: SoutuError | None = None


@dataclass(frozen=True)
class Term:
    """One part of a query; ``kind`` is "text", "image" (a file), or "indexed": a picture of the
    gallery, by its path there. A negative weight subtracts."""

    kind: str
    value: str
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    raw: str
    terms: tuple[Term, ...]
    filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """Parallel arrays: score descending, ties by id ascending."""

    ids: Ids
    scores: Floats


@dataclass(frozen=True, eq=False)
class Penalty:
    """What a term with a minus takes from a picture x: ``weight`` · max(0, ``vector`` · x −
    ``threshold``); ``vector`` float32 (dim,), unit (``search/searcher.py``)."""

    vector: Floats
    weight: float
    threshold: float


@dataclass(frozen=True)
class Hit:
    """One result. ``score`` ranked it, ``cosine`` is the plain similarity (-1 to 1),
    ``also`` holds the other paths of the same content, ``caption`` is "" where there is none.
    ``confidence``: the probability that it is what a text asked for, 0 to 1; None where that is
    not known. ``id`` is that of the image, or of the caption where captions were asked for."""

    rank: int
    score: float
    cosine: float
    path: str
    also: tuple[str, ...]
    caption: str
    confidence: float | None = None
    id: int = -1


@dataclass(frozen=True)
class IndexState:
    """Which index answered: its generation, the vector space, and how much it holds."""

    generation: int
    space: str
    images: int
    captions: int


@dataclass(frozen=True)
class SearchResult:
    """All that showing, explaining, logging and replaying a search needs.

    ``vector`` is the fused query, float32 (dim,), unit length; ``agreement`` is
    the length of a term's pooled variants before they were renormalised (0 to 1), the
    least of all terms; ``confidence`` the probability that anything which was asked for is there
    (None: not known, as for pictures), and below ``min_confidence`` there are no hits;
    ``correction`` is the α that hubs were held back with (``search/calibration.py``), 0 for none;
    ``penalties`` are those of terms with a minus, where they do not just subtract; ``senses`` the
    vectors, float32 (s, dim), of a word's senses where these are kept apart (None: they are not);
    ``ranked_by`` is "vector", or how the ranking by captions was fused with it
    (``query.fuse_rankings.RANKINGS``); ``timings`` are milliseconds by step, ``expanders`` those
    that were asked for variants; ``k`` hits were asked for; ``reference`` names what the index
    knew of its answers to texts (``query.standing``), "" for nothing.
    """

    query: Query
    variants: tuple[Variant, ...]
    hits: tuple[Hit, ...]
    agreement: float
    fusion: str
    vector: Floats
    model: ModelInfo
    index_state: IndexState
    target: str = "images"
    confidence: float | None = None
    min_confidence: float = 0.0
    correction: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    expanders: tuple[ExpanderTrace, ...] = ()
    ranked_by: str = "vector"
    penalties: tuple[Penalty, ...] = ()
    senses: Floats | None = None
    k: int = 0
    reference: str = ""


@dataclass(frozen=True)
class IntegrityIssue:
    """Something in a gallery that is not as it should be. ``code`` names its wording, ``where``
    is a table or a file, ``key`` what is meant in it, ``detail`` what was seen. ``harm``: answers
    are missing or may be wrong; without it, the finding is for information."""

    code: str
    where: str
    key: str = ""
    detail: str = ""
    harm: bool = True


FIELDS = {
    "folder": "text",
    "name": "text",
    "path": "text",
    "caption": "text",
    "taken": "time",
    "width": "number",
    "height": "number",
    "size": "number",
    "orientation": "shape",
}
"""``folder``: the one that a picture lies in, or any above it; ``size``: of the file, in bytes."""

TAG = "tag."  # before the name of a further column of the captions file: a text
SHAPES = ("landscape", "portrait", "square")
OPERATORS = {
    "text": ("=", "!=", "~", "contains"),
    "time": ("=", "!=", "<", "<=", ">", ">="),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "shape": ("=", "!="),
}
"""``~`` matches a pattern of ``*``, ``?`` and ``[…]``. Case does not count, but for ``=`` and
``!=`` of paths, folders and names, which are compared as file systems do."""


def kind_of(field: str) -> str | None:
    """The kind of ``field``; None for one that there is not."""
    return "text" if field.startswith(TAG) and field != TAG else FIELDS.get(field)


@dataclass(frozen=True)
class Compare:
    """``field operator value``, all of them valid together."""

    field: str
    operator: str
    value: str | int


@dataclass(frozen=True)
class All:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    part: Filter


Filter: TypeAlias = "Compare | All | Any | Not"
