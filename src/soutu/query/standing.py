"""How a gallery answers texts in general, measured with the reference texts at index time."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from math import log

import numpy as np

from soutu.types import Floats

REFERENCE = "reference:"  # and the space: the key under which an index keeps it
FEWEST = 32  # pictures; among fewer, chance decides what is best
MOST = 50_000  # pictures that are looked at; they are a sample of more
_APART = 4  # each level has a quarter of the pictures of the one above
_BLOCK = 4096
_SKEWED_AMONG = 1000  # skewness grows with the number of pictures, so it is always that of so many
_CLEAR = 0.2  # of the texts: those with the clearest best picture


@dataclass(frozen=True)
class Level:
    """Among ``images`` pictures, drawn at random, the reference texts' best cosines have this
    ``mean`` and standard deviation ``spread``."""

    images: int
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class Reference:
    """``levels``: fewest pictures first. ``centre``: the mean of the texts' vectors, float32
    (dim,). ``skewness`` of how often each picture is a text's best. ``texts``: their fingerprint;
    ``images``: how many pictures there were. ``name`` tells kept ones apart."""

    texts: str
    images: int
    levels: tuple[Level, ...]
    skewness: float
    centre: Floats
    name: str = ""

    def standing(self, cosine: float, images: int) -> float:
        """How far ``cosine``, the best among ``images`` pictures, stands above what reference
        texts reach among so many: in their standard deviations."""
        mean, spread = self._level(images)
        return (cosine - mean) / spread

    def cosine(self, standing: float, images: int) -> float:
        """The cosine that stands there."""
        mean, spread = self._level(images)
        return mean + standing * spread

    def _level(self, images: int) -> tuple[float, float]:
        # The largest of n draws moves with log n, so between levels it does so in a line.
        right, share = self._between(images)
        low, high = self.levels[right - 1], self.levels[right]
        mean = low.mean + share * (high.mean - low.mean)
        return mean, max(low.spread + share * (high.spread - low.spread), 1e-6)

    def _between(self, images: int) -> tuple[int, float]:
        """The upper of two neighbouring levels, and how far from the lower it lies. Every hit
        asks, and arrays so small would cost more than they save."""
        if len(self.levels) == 1:
            return 0, 0.0
        sizes, at = self._sizes, log(max(images, 1))
        right = min(max(bisect_left(sizes, at), 1), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        return right, (at - low) / (high - low)

    @cached_property
    def _sizes(self) -> list[float]:
        return [log(level.images) for level in self.levels]


def measure(vectors: Floats, bank: Floats, *, images: int, texts: str) -> Reference:
    """``vectors``: unit vectors (n, dim) of a gallery's pictures in random order, n ≥ 32, of all
    ``images`` or of a sample; ``bank``: those of the reference texts (m, dim)."""
    sizes = [len(vectors)]
    while sizes[0] // _APART >= FEWEST:
        sizes.insert(0, sizes[0] // _APART)
    best = np.full(len(bank), -np.inf, np.float32)
    levels, start = [], 0
    for size in sizes:
        for first in range(start, size, _BLOCK):
            part = vectors[first : min(size, first + _BLOCK)]
            np.maximum(best, (bank @ part.T).max(axis=1), out=best)
        start = size
        levels.append(Level(size, float(best.mean()), float(best.std())))
    skewed = skewness(bank @ vectors[:_SKEWED_AMONG].T)
    return Reference(texts, images, tuple(levels), skewed, bank.mean(axis=0))


def skewness(scores: Floats) -> float:
    """Third standardised moment of N₁, the number of texts that have a picture as their best
    (k-occurrence, Radovanović et al., JMLR 2010, with k = 1), for ``scores`` (texts, pictures);
    of the texts only the fifth whose best picture stands out most from the others counts: what
    the others find is chance."""
    clear = (scores.max(axis=1) - scores.mean(axis=1)) / np.maximum(scores.std(axis=1), 1e-6)
    chosen = np.argsort(-clear, kind="stable")[: max(1, int(_CLEAR * len(scores)))]
    counts = np.bincount(scores[chosen].argmax(axis=1), minlength=scores.shape[1]).astype(float)
    deviation = counts - counts.mean()
    spread = deviation.std()
    return float((deviation**3).mean() / spread**3) if spread else 0.0


def to_text(reference: Reference) -> str:
    """As it is kept with the index."""
    return json.dumps({
        "texts": reference.texts,
        "images": reference.images,
        "levels": [[level.images, level.mean, level.spread] for level in reference.levels],
        "skewness": reference.skewness,
        "centre": b64encode(reference.centre.astype("<f4").tobytes()).decode(),
    })  # fmt: skip


@lru_cache(maxsize=8)  # every search asks, and it changes with an index run
def from_text(text: str) -> Reference:
    """What ``to_text`` made."""
    kept = json.loads(text)
    centre = np.frombuffer(b64decode(kept["centre"]), "<f4").astype(np.float32)
    levels = tuple(Level(*row) for row in kept["levels"])
    name = f"{kept['texts']}-{kept['images']}-{blake2b(text.encode(), digest_size=8).hexdigest()}"
    return Reference(kept["texts"], kept["images"], levels, kept["skewness"], centre, name)
