"""Synthetic embeddings that lie as CLIP's do: pictures in one narrow cone, texts in another.

Any two pictures have a cosine of about 0.5, any two texts of 0.65, a text and any picture 0.23,
and a text is nearest to pictures of its own meaning (those of ViT-B/32 on photographs are alike).
So the best answers to a text lie off the cone, where indexes drawn for pictures are at their worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soutu.types import Floats

_CHUNK = 50_000
_MEMBERS = 200  # pictures that share a meaning, on average


@dataclass(frozen=True)
class Cones:
    """``images`` (n, dim); ``captions`` (n, dim), row i belonging to image i; ``texts`` and
    ``pictures`` (q, dim) are queries."""

    images: Floats
    captions: Floats
    texts: Floats
    pictures: Floats


def cones(
    count: int, queries: int, *, dim: int = 512, seed: int = 0, captions: bool = True
) -> Cones:
    rng = np.random.default_rng(seed)
    picture_axis, text_axis = _unit(_normal(rng, 2, dim))
    # Embeddings use few of their directions much and most of them little.
    spectrum = (1 + np.arange(dim, dtype=np.float32)) ** np.float32(-0.4)
    spectrum /= np.linalg.norm(spectrum)
    turn = np.linalg.qr(_normal(rng, dim, dim))[0].astype(np.float32)
    meanings = _normal(rng, max(64, count // _MEMBERS), dim) * spectrum

    def sample_meanings(rng: np.random.Generator, number: int) -> Floats:
        own = meanings[rng.integers(len(meanings), size=number)]
        return _unit(
            np.float32(0.75) * own + np.float32(0.65) * _normal(rng, number, dim) * spectrum
        )

    def picture(meaning: Floats) -> Floats:
        return _unit((np.float32(0.7) * picture_axis + np.float32(0.72) * meaning) @ turn)

    def text(rng: np.random.Generator, meaning: Floats) -> Floats:
        vague = _unit(_normal(rng, len(meaning), dim) * spectrum)
        mixed = np.float32(0.6) * meaning + np.float32(0.8) * vague
        axis = np.float32(0.75) * text_axis + np.float32(0.3) * picture_axis
        return _unit((axis + np.float32(0.6) * mixed) @ turn)

    images = np.empty((count, dim), np.float32)
    captions_out = np.empty((count if captions else 0, dim), np.float32)
    for start in range(0, count, _CHUNK):
        own = np.random.default_rng((seed, 1, start))
        meaning = sample_meanings(own, min(_CHUNK, count - start))
        images[start : start + _CHUNK] = picture(meaning)
        if captions:
            captions_out[start : start + _CHUNK] = text(own, meaning)
    rng_queries = np.random.default_rng((seed, 2))
    meaning = sample_meanings(rng_queries, queries)
    return Cones(images, captions_out, text(rng_queries, meaning), picture(meaning))


def cone_around(texts: Floats, count: int, *, seed: int = 0) -> Floats:
    """``count`` pictures for a model of which only the texts are known, unit vectors (n, dim): they
    lie to each other and to ``texts``' meanings (what parts a text from the others) as above."""
    rng = np.random.default_rng(seed)
    dim = texts.shape[1]
    centre = _unit(texts.mean(0))
    meanings = _unit(texts - texts.mean(0))
    aside = _normal(rng, dim)
    aside -= (aside @ centre) * centre
    axis = _unit(np.float32(0.33) * centre + np.float32(0.94) * _unit(aside))
    images = np.empty((count, dim), np.float32)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        shared = np.float32(0.75) * meanings[rng.integers(len(meanings), size=size)]
        own = _unit(shared + np.float32(0.65) * _unit(_normal(rng, size, dim)))
        images[start : start + size] = _unit(np.float32(0.7) * axis + np.float32(0.72) * own)
    return images


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32)


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit
