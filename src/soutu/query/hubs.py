"""Hubs: pictures that are near to every text and so come first for many that they do not answer.

Corrected score = q·x − α b(x) with b(x) the mean similarity of the picture x to reference texts
(NNN, Chowdhury et al., EMNLP 2024, with all reference texts as neighbours, which is the centring
of Suzuki et al., EMNLP 2013). As b(x) = c·x with the texts' mean vector c, the corrected scores are
those of the query q − α c: nothing is kept for a picture, and any index can be searched with it.
In a style that the models have not seen it gained 1.4 points of R@1 on average, b(x) from the 16 or
128 nearest texts 0.9 and 0.8; elsewhere all three changed next to nothing
(benchmarks/results/hubs.json).
"""

from __future__ import annotations

from dataclasses import dataclass

from soutu.query.standing import Reference
from soutu.types import Floats

AUTO = "auto"
ON = "on"
OFF = "off"
CORRECTIONS = (AUTO, ON, OFF)
ALPHA = 0.35
SKEWED = 3.3
"""From here on "auto" corrects: where the sum of what is gained and lost was best, over the
galleries that it was chosen on (benchmarks/results/hubs.json)."""


@dataclass(frozen=True)
class Hubs:
    """How much is taken, and from which skewness on by itself."""

    alpha: float = ALPHA
    skewed: float = SKEWED


HUBS = Hubs()


def strength(reference: Reference | None, correction: str, hubs: Hubs = HUBS) -> float:
    """α for text queries of a gallery; 0 where nothing is corrected."""
    if reference is None or correction == OFF:
        return 0.0
    return hubs.alpha if correction == ON or reference.skewness >= hubs.skewed else 0.0


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
