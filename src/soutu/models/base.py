"""What every encoder does. One contract suite runs over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from soutu.types import Floats, ModelInfo, Rgb


class Encoder(Protocol):
    """Turns pictures and texts into unit vectors of one shared space."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def batch(self) -> int:
        """How many pictures it works on at once; more at a time gain nothing."""
        ...

    @property
    def max_concurrency(self) -> int:
        """How many threads may call ``encode_images`` at the same time to use the machine fully."""
        ...

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """float32 (n, dim), unit rows, in order; (0, dim) for no images.

        A batch equals one-by-one to 1e-5 in float32 and to cosine 0.999 in int8.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """float32 (n, dim), unit rows, in order; (0, dim) for no texts. Longer texts than
        ``card.context_length`` tokens are cut."""
        ...
