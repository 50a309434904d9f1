"""Hubs: pictures that are near to every text and so come first for many that they do not answer.

Corrected score = q·x − α b(x) with b(x) the mean similarity of the picture x to reference texts
(NNN, Chowdhury et al., EMNLP 2024, with all reference texts as neighbours, which is the centring
of Suzuki et al., EMNLP 2013). As b(x) = c·x with the texts' mean vector c, the corrected scores are
those of the query q − α c: nothing is kept for a picture, and any index can be searched with it.
How much is to be taken depends on how far hubs rule: α grows with the skewness. Where it is 23, in
a style that the model has not seen, this gained 2.5 points of R@1 for Chinese and 2.1 for English;
b(x) from the 16 or 128 nearest texts gained less (benchmarks/results/hubs.json).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from soutu.query.standing import Reference
from soutu.types import Floats

AUTO = "auto"
ON = "on"
OFF = "off"
CORRECTIONS = (AUTO, ON, OFF)
ALPHA = 0.2
SKEWED = 3.3
GROWTH = 0.15
MOST = 0.5
"""From a skewness of 3.3 on "auto" takes 0.2, and 0.15 more for each doubling, up to 0.5: about
what gained most at 3.3 to 4.5, at 4.5 to 12 and above, on the galleries that this was chosen on
(benchmarks/results/hubs.json)."""


@dataclass(frozen=True)
class Hubs:
    """``alpha`` is taken at the skewness ``skewed``, from which on hubs are corrected by
    themselves; each doubling of it takes ``growth`` more, up to ``MOST``."""

    alpha: float = ALPHA
    skewed: float = SKEWED
    growth: float = GROWTH


HUBS = Hubs()


def strength(reference: Reference | None, correction: str, hubs: Hubs = HUBS) -> float:
    """α for text queries of a gallery; 0 where nothing is corrected."""
    if reference is None or correction == OFF:
        return 0.0
    if correction != ON and reference.skewness < hubs.skewed:
        return 0.0
    doublings = math.log2(max(reference.skewness / max(hubs.skewed, 1.0), 1.0))
    return min(round(hubs.alpha + hubs.growth * doublings, 3), max(hubs.alpha, MOST))


def shift(reference: Reference | None, correction: str, hubs: Hubs = HUBS) -> Floats | None:
    """What is taken from the vector of each text query (dim,); None where nothing is corrected."""
    alpha = strength(reference, correction, hubs)
    return (alpha * reference.centre).astype("float32") if reference and alpha else None


def corrected(vector: Floats, reference: Reference | None, alpha: float) -> Floats:
    """The query (dim,) whose inner products are the corrected scores."""
    if reference is None or not alpha:
        return vector
    moved: Floats = (vector - alpha * reference.centre).astype(vector.dtype)
    return moved
