"""What is searched for, where that is more than one vector: senses apart, and things unwanted.

    s(x) = maxᵢ vᵢ·x − Σⱼ wⱼ max(0, nⱼ·x − θⱼ)

A word with several senses has a vector v for each, and a picture counts by the one that it shows. A
term with a minus has a vector n: what is shown of it beyond the threshold counts against a picture,
and what is not shown counts for nothing. To subtract it from the query instead, as rclip does,
finds what lies farthest from it, wanted or not: the mean average precision of ``A - B`` fell from
0.61 (A alone) to 0.29, and rose to 0.64 so (drawn scenes, four runs: benchmarks/negatives.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soutu.query.fuse_rankings import comb_max, ordered
from soutu.types import Floats, Ids, Penalty, Ranking

SUBTRACT, PENALISE = "subtract", "penalise"
PENALTY = 2.0  # w of a term that weighs 1
CLEAR = -2.0
"""θ: the standing (``query/standing.py``) at which something begins to be shown; chosen with
``PENALTY`` on drawn scenes of their own (benchmarks/negatives.py)."""
_FIRST = 8  # times as many candidates as results at first, and at least
_LEAST = 64
_MOST = 20_000  # candidates; a query whose penalties move more is ranked among these

Nearest = Callable[[Floats, int], Ranking]
Vectors = Callable[[Ids], Floats]


@dataclass(frozen=True, eq=False)
class Sought:
    """``vectors``: float32 (s, dim), one for each sense; ``penalties`` for what is unwanted."""

    vectors: Floats
    penalties: Sequence[Penalty] = ()

    def scores(self, images: Floats) -> Floats:
        """float32 (n,) of images' unit vectors (n, dim)."""
        wide = images.astype(np.float64)
        best = (wide @ self.vectors.T.astype(np.float64)).max(axis=1)
        for one in self.penalties:
            shown = wide @ one.vector.astype(np.float64) - one.threshold
            best -= one.weight * np.maximum(0, shown)
        scores: Floats = best.astype(np.float32)
        return scores

    def best(self, k: int, nearest: Nearest, vectors: Vectors) -> Ranking:
        """The ``k`` best images: of ``nearest(vector, k)``, those nearest to a vector; ``vectors``
        are the images' own."""
        if not self.penalties:
            return self._by_sense(k, nearest)
        count = max(_LEAST, _FIRST * k)
        while True:
            found = self._by_sense(count, nearest)
            ranking = ordered(found.ids, self.scores(vectors(found.ids)))
            # Penalties only lower: what lies below the last candidate cannot come to the front.
            enough = len(found.ids) < count or len(ranking.ids) < k
            if enough or ranking.scores[k - 1] >= found.scores[-1] or count >= _MOST:
                return Ranking(ranking.ids[:k], ranking.scores[:k])
            count = min(_MOST, 4 * count)

    def _by_sense(self, k: int, nearest: Nearest) -> Ranking:
        found = [nearest(vector, k) for vector in self.vectors]
        if len(found) == 1:
            return found[0]
        # What is not among a sense's first k has less of it than those: the union holds the best.
        merged = comb_max(found)
        return Ranking(merged.ids[:k], merged.scores[:k])
