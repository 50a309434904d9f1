"""Fusion: the vectors of a term's variants become one. ``FUSIONS`` is the table of ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from soutu.errors import BadQuery
from soutu.query.normalize import EN, language
from soutu.types import Floats, Variant

MEAN = "mean"
SENSES = "senses"
ANCHOR = 0.5  # what the original weighs in "anchored"

Fused: TypeAlias = "tuple[Floats, float]"
"""The one vector, float32 (dim,), unit, and the variants' agreement, 0 to 1."""


def mean_pool(vectors: Floats, weights: Sequence[float]) -> Fused:
    """Weighted mean of unit vectors, renormalised: q = m/‖m‖ with m = Σ wᵢfᵢ / Σ |wᵢ|.

    ``vectors`` float32 (n, dim), n ≥ 1, unit rows. Returns q, float32 (dim,), and the
    agreement ‖m‖ in 0…1; ‖m‖² is the variants' weighted mean pairwise cosine (each with
    itself included). Ranks as the mean of the scores would. Raises BadQuery if the variants
    cancel out.
    """
    w = np.asarray(weights, np.float64)
    mean = w @ vectors.astype(np.float64) / np.abs(w).sum()
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadQuery("query-cancels")
    pooled: Floats = (mean / length).astype(np.float32)
    return pooled, min(1.0, length)


def mean(vectors: Floats, said: Sequence[Variant]) -> Fused:
    """The original demo's recipe: all variants, the original among them, pooled at once."""
    return mean_pool(vectors, [variant.weight for variant in said])


def balanced(vectors: Floats, said: Sequence[Variant]) -> Fused:
    """Each language pooled by itself, then the languages with equal weight, so that the one
    with more variants does not drown the other."""
    english = [language(variant.text) == EN for variant in said]
    sides = []
    for side in (False, True):
        rows = [row for row, is_english in enumerate(english) if is_english is side]
        if rows:
            sides.append(mean(vectors[rows], [said[row] for row in rows]))
    pooled, _ = mean_pool(np.stack([vector for vector, _ in sides]), [1.0] * len(sides))
    return pooled, mean(vectors, said)[1]


def anchored(vectors: Floats, said: Sequence[Variant]) -> Fused:
    """The original counts half, all expansions together the other half."""
    if len(said) == 1:
        return mean(vectors, said)
    rest = sum(variant.weight for variant in said[1:])
    share = (1 - ANCHOR) / rest
    return mean_pool(vectors, [ANCHOR, *(variant.weight * share for variant in said[1:])])


def by_sense(vectors: Floats, said: Sequence[Variant]) -> Floats:
    """A vector for each sense of a word, float32 (s, dim), unit: the mean of its variants and of
    those that belong to no sense. Searched for side by side, a picture counts by the sense that it
    shows best (max over senses). One vector, the mean of all, for a word without several senses."""
    senses = dict.fromkeys(one.source for one in said if ":" in one.source)
    groups = [
        [at for at, one in enumerate(said) if one.source == sense or ":" not in one.source]
        for sense in senses
    ]
    if len(groups) < 2:
        groups = [list(range(len(said)))]
    return np.stack([mean(vectors[rows], [said[row] for row in rows])[0] for rows in groups])


Fusion: TypeAlias = "Callable[[Floats, Sequence[Variant]], Fused]"
FUSIONS: Mapping[str, Fusion] = {
    MEAN: mean,
    "balanced": balanced,
    "anchored": anchored,
    SENSES: mean,  # and the senses searched for side by side
}
