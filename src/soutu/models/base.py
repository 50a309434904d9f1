"""The protocol of encoders. One contract suite runs over all implementations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from soutu.types import Floats, ModelInfo, Rgb


class Encoder(Protocol):
    """Turns images and texts into unit vectors of one shared space."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        ...

    @property
    def batch(self) -> int:
        """How many images it encodes at once; more at a time gain nothing."""
        ...

    @property
    def max_concurrency(self) -> int:
        """How many threads may call ``encode_images`` at the same time to use the machine fully."""
        ...

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """Return float32 (n, dim), unit rows, in order; (0, dim) for no images.

        A batch equals one-by-one to 1e-5 in float32 and to cosine 0.999 in int8.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return float32 (n, dim), unit rows, in order; (0, dim) for no texts.

        Texts longer than ``info.context_length`` tokens are truncated.
        """
        ...
