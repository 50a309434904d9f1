"""Features of photographs that nobody took: one for any ImageNet class.

The classifier's rows say in which direction a class lies, and the covariance of real features how
features spread; a class's mean feature is guessed as μ + s·S^½(w_c − w̄). (Cosine to the real class
means .75; the rows alone .52.) The strength varies, as photographs show a class more or less
clearly.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRENGTH, SPREAD = (4.0, 10.0), 0.8


class SyntheticFeatures:
    """Draws features of given classes.

    Parameters
    ----------
    features : float (n, 1280)
        Pooled features of real photographs, by the published network.
    rows : float (1000, 1280)
        The classifier's weights.
    """

    def __init__(self, features: Tensor, rows: Tensor) -> None:
        self._mean = features.mean(0)
        self._centred = features - self._mean
        covariance = self._centred.T @ self._centred / len(features)
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        self._directions = (rows - rows.mean(0)) @ root

    def draw(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Return one feature (not negative) for each class, with a random photograph's spread."""
        rows = torch.randint(
            len(self._centred), classes.shape, device=classes.device, generator=generator
        )
        share = torch.rand(len(classes), 1, device=classes.device, generator=generator)
        strength = STRENGTH[0] + share * (STRENGTH[1] - STRENGTH[0])
        x = self._mean + strength * self._directions[classes] + SPREAD * self._centred[rows]
        features: Tensor = x.clamp(min=0)
        return features
