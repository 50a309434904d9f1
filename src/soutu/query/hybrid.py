"""Hybrid search: what captions say counts beside what pictures show.

A caption that says a text term of the query word for word, or one of its variants, lifts its
picture (``fuse_rankings.lifted``). Mean average precision on 5,000 drawn scenes, the mean of words,
phrases and sentences, hand-written (about 100 each) and generated (about 300), with ``tiny`` and
``tiny-en`` (benchmarks/hybrid.py); in brackets the most that the mean of one of these 12 lost:

    captions                     vector    lifted           RRF              RRF, word for word
    of every picture             0.675     0.772 (0.001)    0.846 (0.056)    0.824 (0.038)
    of 30 % of the pictures      0.675     0.704 (0.001)    0.411 (0.631)    0.702 (0.035)
    English alone                0.675     0.763 (0.001)    0.819 (0.080)    0.803 (0.038)
    a third on wrong pictures    0.675     0.738 (0.004)    0.636 (0.330)    0.717 (0.093)

What is on by default must not harm: "auto" lifts wherever captions can be searched. RRF finds
more where each picture has a true caption, which nobody can tell before. λ and what counts as said
were chosen on these queries; generated ones use the captions' own words. On two collections that
nothing was chosen on (another style, new combinations) the means rose by 0.01 to 0.13, and the most
that one of 24 cells lost was 0.026.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soutu.errors import Missing
from soutu.query.choose import SWITCHED_OFF
from soutu.query.fuse_rankings import RANKINGS, SPREAD, comb_max, ordered, weighted_sum
from soutu.query.parse import TEXT
from soutu.types import Floats, Ids, Query, Ranking, Variant

AUTO, ON, OFF = "auto", "on", "off"
VECTOR = "vector"  # what ranked where no caption had a say
FUSION = "lifted"
EXACT = np.float32(2 / 3)  # above it lie the store's scores of what says a text word for word
CAPTIONED = 1000  # pictures at most whose captions have a say
NOTHING = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class Sources:
    """What is asked of the store: the ``k`` images nearest to the query's vector; those whose
    captions say a text word for word; exact products, float32 (n,), of images with the vector."""

    nearest: Callable[[int], Ranking]
    said: Callable[[str, int], Ranking]
    products: Callable[[Ids], Floats]


@dataclass(frozen=True)
class Ranked:
    """A ranking, the products with the query's vector beside it, float32 (n,), what the vector
    alone would have ranked first, and what ranked."""

    ranking: Ranking
    products: Floats
    nearest: Ranking
    by: str = VECTOR


def ranked(
    query: Query, variants: Sequence[Variant], sources: Sources, k: int, mode: str
) -> Ranked:
    """The ``k`` best images for ``query``. Its positive text terms are looked for in captions, by
    all their ``variants``, also those that the model is not asked. ``mode``: off; auto; on, which
    raises Missing where captions cannot be searched."""
    words = NOTHING
    if mode != OFF:
        try:
            words = said_words(query, variants, sources.said)
        except Missing:
            if mode == ON:
                raise
    if not len(words.ids):
        nearest = sources.nearest(k)
        return Ranked(nearest, nearest.scores, nearest)
    return fused(sources.nearest(max(k, SPREAD)), words, sources.products, k)


def said_words(
    query: Query, variants: Sequence[Variant], said: Callable[[str, int], Ranking]
) -> Ranking:
    """Images whose captions say terms of ``query``, 0…1: each term by its best variant (which
    counts by its weight, 1 at most) of those that nobody switched off, the terms by their
    weights."""
    terms, weights = [], []
    for at, term in enumerate(query.terms):
        if term.kind == TEXT and term.weight > 0:
            own = [one for one in variants if one.term == at and one.unused != SWITCHED_OFF]
            found = [(_exact(said(one.text, CAPTIONED)), min(1.0, one.weight)) for one in own]
            terms.append(comb_max([Ranking(r.ids, r.scores * np.float32(w)) for r, w in found]))
            weights.append(term.weight)
    return weighted_sum(terms, [weight / sum(weights) for weight in weights])


def fused(
    nearest: Ranking,
    words: Ranking,
    products: Callable[[Ids], Floats],
    k: int,
    *,
    by: str = FUSION,
) -> Ranked:
    """The best ``k`` of what either found; ``by`` is a name in ``fuse_rankings.RANKINGS``."""
    known = set(nearest.ids.tolist())
    also = np.array([id_ for id_ in words.ids.tolist() if id_ not in known], np.int64)
    ids = np.concatenate([nearest.ids, also])
    plain = np.concatenate([nearest.scores, products(also)])
    ranking = RANKINGS[by]([ordered(ids, plain), words])
    best = Ranking(ranking.ids[:k], ranking.scores[:k])
    place = np.argsort(ids)
    own = plain[place[np.searchsorted(ids, best.ids, sorter=place)]]
    return Ranked(best, own, nearest, by)


def _exact(found: Ranking) -> Ranking:
    """Scores of what says it word for word, from 0 to 1."""
    return Ranking(found.ids, np.maximum(0, found.scores - EXACT) / (1 - EXACT))
