"""A query on its way to the index."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from soutu.filters import Filter
from soutu.query.fuse import mean_pool
from soutu.types import Floats, Penalty, Query, Ran, Variant


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
    terms where they are known already."""

    query: Query
    variants: tuple[Variant, ...]
    vector: Floats
    agreement: float
    clock: Clock
    ran: tuple[Ran, ...] = ()
    terms: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    senses: Floats | None = None
    penalties: tuple[Penalty, ...] | None = None


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
