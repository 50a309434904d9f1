"""Confidence: the probability that a gallery holds what a text asks for.

A cosine says little by itself: what is high for one model, one gallery or one size of gallery is
low for another. What counts is how it stands to the best cosines of the reference texts among as
many pictures (``Reference.standing``), most of which ask for what is not there. A logistic
function turns that into a probability (Platt, 1999). It was fitted on drawn scenes of which a third
were asked for rightly (benchmarks/calibration.py); for a gallery that is mostly asked for what it
has, it is too careful.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from soutu.query.standing import Reference


@dataclass(frozen=True)
class Calibration:
    """p = 1 / (1 + exp(−(``scale`` · standing + ``growth`` · log₁₀ n + ``offset``))) among n
    pictures."""

    scale: float
    growth: float
    offset: float

    def probability(self, standing: float, images: int) -> float:
        logit = self.scale * standing + self.growth * math.log10(max(images, 1)) + self.offset
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


ANY = Calibration(1.527, 0.462, -2.68)
"""That something which is asked for is there, from the best picture's cosine."""
THIS = Calibration(1.745, 0.787, -3.79)
"""That this picture is one of those asked for, from its own cosine."""


def confidence(
    calibration: Calibration, reference: Reference | None, cosine: float, images: int
) -> float | None:
    """None where the gallery was not measured: it is too small, or its last index run was that
    of an older Soutu."""
    if reference is None or not images:
        return None
    return calibration.probability(reference.standing(cosine, images), images)
