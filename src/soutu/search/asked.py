"""A query on its way to the index."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from soutu.errors import BadQuery
from soutu.filters import Filter
from soutu.query.fuse import mean_pool
from soutu.query.hybrid import VECTOR
from soutu.query.parse import MOST_WEIGHT, TEXT
from soutu.types import Floats, Penalty, Query, Ran, SearchResult, Variant


class Clock:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(frozen=True)
class Asked:
    """A query on its way to the index: what was said, the one vector it became, those of its terms
    (n, dim), those of a word's senses where they are kept apart, and the penalties of its negative
    terms where they are known already. ``fusion``: how it became one, "" for the searcher's way."""

    query: Query
    variants: tuple[Variant, ...]
    vector: Floats
    agreement: float
    clock: Clock
    ran: tuple[Ran, ...] = ()
    terms: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    senses: Floats | None = None
    penalties: tuple[Penalty, ...] | None = None
    fusion: str = ""


@dataclass(frozen=True)
class Asking:
    """What a search is asked beside its query: ``k`` hits after the first ``offset``, of the images
    that ``where`` admits (``query/where.py``); none where it is less sure than ``min_confidence``.
    ``variants``: those that a person chose, to be searched for instead of what is proposed;
    ``expand`` False: nothing is to be proposed."""

    k: int = 5
    offset: int = 0
    where: str | None = None
    min_confidence: float = 0.0
    variants: tuple[Variant, ...] | None = None
    expand: bool = True


@dataclass(frozen=True)
class Wanted:
    """A filter as it was said and as it is understood."""

    text: str
    filter: Filter


def parsed(where: str | None) -> Wanted | None:
    if where is None or not where.strip():
        return None
    from soutu.query.where import parse_where  # most searches have none

    return Wanted(where.strip(), parse_where(where))


def pooled(query: Query, terms: Floats) -> Floats:
    """The terms' unit vectors (n, dim) as one (dim,): each counts by its own weight, however many
    variants it has."""
    if len(query.terms) == 1 and query.terms[0].weight > 0:
        only: Floats = terms[0]
        return only
    return mean_pool(terms, [term.weight for term in query.terms])[0]


def checked(asking: Asking) -> None:
    """BadQuery for numbers that are none of hits."""
    if asking.k < 1:
        raise BadQuery("query-k", k=asking.k)
    if asking.offset < 0:
        raise BadQuery("query-offset", offset=asking.offset)


def checked_variants(query: Query, variants: Sequence[Variant]) -> Sequence[Variant]:
    """``variants``, each of a term of ``query`` that is a text; BadQuery for others."""
    for one in variants:
        known = 0 <= one.term < len(query.terms) and query.terms[one.term].kind == TEXT
        if not known or not one.text.strip() or not 0 < one.weight <= MOST_WEIGHT:
            raise BadQuery("query-variant", text=one.text, term=one.term, most=MOST_WEIGHT)
    return variants


def sure_enough(result: SearchResult, min_confidence: float) -> SearchResult:
    """``result``, without hits where it is less sure and no caption says the text."""
    result = replace(result, min_confidence=min_confidence)
    sure = result.confidence is None or result.confidence >= min_confidence
    return result if sure or result.ranked_by != VECTOR else replace(result, hits=())
