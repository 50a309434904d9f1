"""How far two encoders of one model agree, on pictures and on texts in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from soutu.encoders.base import Encoder
from soutu.types import Floats, Rgb

SAME = {"float32": 0.9999, "int8": 0.99}  # the lowest cosine that a precision may have
SPREAD = 0.05  # an int8 vector may move by this part of the distance between different inputs
TOP = 10


@dataclass(frozen=True)
class Samples:
    """Pictures and texts (Chinese and English) to measure with; the pictures are the gallery
    that the texts search."""

    images: Sequence[Rgb]
    texts: Sequence[str]


@dataclass(frozen=True)
class Close:
    """Of two sets of vectors of the same inputs: the lowest and the median cosine, and the
    median 1 - cosine as a part of that between different inputs."""

    lowest: float
    median: float
    moved: float

    def enough(self, precision: str) -> bool:
        return self.lowest >= SAME[precision] and (precision == "float32" or self.moved <= SPREAD)


@dataclass(frozen=True)
class Agreement:
    """``overlap``: how many of the ten best pictures per text both find, 0 to 1."""

    images: Close
    texts: Close
    overlap: float

    def enough(self, precision: Mapping[str, str]) -> bool:
        """``precision`` of "images" and of "texts"; float32 where nothing is said."""
        return self.images.enough(precision.get("images", "float32")) and self.texts.enough(
            precision.get("texts", "float32")
        )


def close(vectors: Floats, reference: Floats) -> Close:
    """``vectors`` against ``reference``, both (n, dim) with unit rows, n at least 2."""
    cosine = (vectors * reference).sum(axis=1)
    between = 1 - (reference @ reference.T)[np.triu_indices(len(reference), 1)]
    moved = float(np.median(1 - cosine)) / max(float(np.median(between)), 1e-9)
    return Close(float(cosine.min()), float(np.median(cosine)), max(0.0, moved))


def compare(encoder: Encoder, reference: Encoder, samples: Samples) -> Agreement:
    """Encode ``samples`` with both."""
    images, texts = encoder.encode_images(samples.images), encoder.encode_texts(samples.texts)
    known_images = reference.encode_images(samples.images)
    known_texts = reference.encode_texts(samples.texts)
    found, known = _best(texts, images), _best(known_texts, known_images)
    both = [len({*a} & {*b}) / len(a) for a, b in zip(found, known, strict=True)]
    return Agreement(close(images, known_images), close(texts, known_texts), float(np.mean(both)))


def _best(texts: Floats, images: Floats) -> list[list[int]]:
    order = np.argsort(-(texts @ images.T), axis=1, kind="stable")
    return [[int(i) for i in row[:TOP]] for row in order]
