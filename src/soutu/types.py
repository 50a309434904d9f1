"""The values that flow through Soutu: frozen, built once, passed whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np

from soutu.errors import SoutuError

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
"""float32 array: embeddings are (n, dim) with unit rows, scores are (n,)."""
Ids: TypeAlias = "NDArray[np.int64]"
"""int64 array (n,) of image or caption ids."""
Bits: TypeAlias = "NDArray[np.uint8]"
"""uint8 array (n,) that packs eight booleans a byte."""
Rgb: TypeAlias = "NDArray[np.uint8]"
"""One decoded picture: uint8 (height, width, 3), upright, no alpha."""
Verdict: TypeAlias = Literal["present", "unsure", "absent"]
"""Whether what a text asks for is in a gallery: probably, not sure, probably not."""


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
    """One text that a query was expanded to.

    ``source`` proposed it for the query's term number ``term``; ``unused`` says why it was not
    searched for, "" if it was.
    """

    text: str
    weight: float = 1.0
    source: str = "original"
    term: int = 0
    unused: str = ""


@dataclass(frozen=True)
class ExpanderTrace:
    """What running one expander came to.

    ``ms`` it took, ``proposed`` variants for all terms together, and its ``error``, without which
    the search went on.
    """

    name: str
    ms: float
    proposed: int
    error: SoutuError | None = None


@dataclass(frozen=True)
class Term:
    """One part of a query.

    ``kind`` is "text", "image" (a file), or "indexed": a picture of the gallery, by its path
    there. A negative weight is a minus.
    """

    kind: str
    value: str
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """A parsed query: its terms, and the filters that were given beside it."""

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
    """What a term with a minus takes from the score of a picture x.

    ``weight`` · max(0, ``vector`` · x − ``threshold``), with ``vector`` float32 (dim,), unit.
    """

    vector: Floats
    weight: float
    threshold: float


@dataclass(frozen=True)
class Hit:
    """One result.

    ``score`` ranked it, ``cosine`` is the plain similarity (-1 to 1), ``also`` holds the other
    paths of the same content, ``caption`` is "" where there is none. ``confidence`` is the
    probability that it is what a text asks for, 0 to 1, None where unknown. ``id`` is that of the
    image, or of the caption where captions are searched for.
    """

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


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult(Sequence[Hit]):
    """The hits of a search, and all that showing, explaining, logging and replaying it needs.

    A sequence of ``Hit``: iterate it, take its length, index or slice it. Compared by identity.

    Parameters
    ----------
    query
        The parsed query.
    variants
        What it was expanded to; the original first.
    hits
        Best first.
    agreement
        Length of a term's pooled variants before renormalising, 0 to 1; the least of all terms.
    fusion
        How variants became one vector.
    vector
        The pooled query, float32 (dim,), unit length.
    model, index_state
        Which model and which index answered.
    target
        "images" or "captions".
    confidence
        Probability that anything asked for is there; None where unknown, as for image queries.
    verdict
        What it means with this model: "present", "unsure" or "absent"; None where unknown.
    min_confidence
        Below it there are no hits.
    correction
        The α of the hub correction; 0: none.
    timings
        Milliseconds by step.
    expanders
        What running each expander came to.
    ranked_by
        "vector"; "lifted" where captions boosted images; "rrf" where several models were fused.
    penalties
        Of negative terms, where these do not just subtract.
    senses
        float32 (s, dim), one vector a sense, where a word's senses are kept apart.
    k
        How many hits were asked for.
    reference
        Name of the gallery's score baseline; "" for none.
    root
        The folder that the hits' paths are relative to, where it is known.
    suggestions
        Of a server's answer, where the filter admits no picture: conditions on the folders and
        names that are most like those in it.
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
    verdict: Verdict | None = None
    min_confidence: float = 0.0
    correction: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    expanders: tuple[ExpanderTrace, ...] = ()
    ranked_by: str = "vector"
    penalties: tuple[Penalty, ...] = ()
    senses: Floats | None = None
    k: int = 0
    reference: str = ""
    root: Path | None = None
    suggestions: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of hits."""
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        """Return a hit, or a tuple of hits for a slice."""
        return self.hits[index]

    def __repr__(self) -> str:
        """Name the query, the number of hits and the best of them."""
        best = f", best {self.hits[0].score:.3f} {self.hits[0].path!r}" if self.hits else ""
        return f"<SearchResult {self.query.raw!r}: {len(self.hits)} {self.target}{best}>"

    def to_dict(self) -> dict[str, object]:
        """Return the result as plain Python values, ready for JSON; vectors are left out."""
        return {
            "query": self.query.raw,
            "filters": list(self.query.filters),
            "target": self.target,
            "model": self.model.name,
            "confidence": self.confidence,
            "verdict": self.verdict,
            "variants": [asdict(variant) for variant in self.variants],
            "agreement": self.agreement,
            "hits": [{**asdict(hit), "also": list(hit.also)} for hit in self.hits],
            "timings": dict(self.timings),
        }

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame, one row a hit. Needs pandas."""
        import pandas

        names = [f.name for f in fields(Hit)]
        return pandas.DataFrame([asdict(hit) for hit in self.hits], columns=names)

    def _repr_html_(self) -> str:
        """Show the hits as thumbnails in a notebook."""
        from html import escape

        cards = "".join(
            f'<figure style="margin:4px;width:160px;font:12px sans-serif">'
            f"{_thumbnail(self.root, hit.path)}<figcaption>{hit.rank}. {hit.score:.3f} "
            f"{escape(hit.caption or hit.path)}</figcaption></figure>"
            for hit in self.hits
        )
        return (
            f"<p>{escape(self.query.raw)}: {len(self.hits)} {self.target}</p>"
            f'<div style="display:flex;flex-wrap:wrap">{cards}</div>'
        )


def _thumbnail(root: Path | None, path: str) -> str:
    """Return an ``img`` element with the picture in it; "" where Pillow cannot open the file."""
    if root is None:
        return ""
    from base64 import b64encode
    from html import escape
    from io import BytesIO

    from PIL import Image, ImageOps

    data = BytesIO()
    try:
        with Image.open(root / path) as image:
            image.draft("RGB", (320, 320))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((160, 160))
            upright.save(data, "JPEG")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    encoded = b64encode(data.getvalue()).decode()
    return f'<img alt="{escape(path)}" src="data:image/jpeg;base64,{encoded}">'


@dataclass(frozen=True)
class IntegrityIssue:
    """Something in a gallery that is not as it should be.

    ``code`` names its wording, ``where`` is a table or a file, ``key`` names the row, ``detail``
    what was seen. ``harm``: answers are missing or may be wrong; else it is for information.
    """

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
    "modified": "time",
    "width": "number",
    "height": "number",
    "size": "number",
    "orientation": "shape",
}
"""``folder``: the one that a picture lies in, or any above it; ``size``: of the file, in bytes;
``modified``: when the file was written, in this machine's time."""

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
    """Return the kind of ``field``; None for an unknown one."""
    return "text" if field.startswith(TAG) and field != TAG else FIELDS.get(field)


@dataclass(frozen=True)
class Compare:
    """``field operator value``, all of them valid together."""

    field: str
    operator: str
    value: str | int


@dataclass(frozen=True)
class All:
    """Every part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = "Compare | All | Any | Not"
