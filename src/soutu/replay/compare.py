"""How two rankings of the same query differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

LONGEST = 1000  # places that are compared for correlation, which takes time as their square


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """The share of the longer ranking that both hold, 0 to 1; 1 where both are empty."""
    longer = max(len(one), len(other))
    return len({*one} & {*other}) / longer if longer else 1.0


def correlation(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Kendall's τ-b over all that either ranking holds, -1 to 1; what one of them lacks shares
    the place after its last (Fagin, Kumar, Sivakumar: Comparing Top k Lists, 2003, treat what is
    absent likewise). 1 for equal rankings; None where one of them puts nothing before anything."""
    one, other = one[:LONGEST], other[:LONGEST]
    if [*one] == [*other]:
        return 1.0
    every = [*dict.fromkeys((*one, *other))]
    return kendall(_places(one, every), _places(other, every))


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """τ-b = (C - D) / √((P - T₁)(P - T₂)) of P pairs, C in the same order in both, D in opposite
    ones, Tᵢ tied in one (Kendall, 1945). None where all are tied in one of them."""
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(one), np.asarray(other)))
    spread = float(np.abs(x).sum()) * float(np.abs(y).sum())
    return float((x * y).sum()) / spread**0.5 if spread else None


def _places(ranking: Sequence[Hashable], every: Sequence[Hashable]) -> list[float]:
    known = {item: place for place, item in enumerate(ranking)}
    return [float(known.get(item, len(ranking))) for item in every]
