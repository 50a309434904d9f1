"""Why a query found what it found: what it was understood as, and what each variant did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soutu.models.base import Encoder
from soutu.query.lexicon import built_in_lexicon
from soutu.store.base import Searchable
from soutu.text import EN, language, length, normalize
from soutu.types import Floats, Hit, SearchResult, Variant

HITS_PER_VARIANT = 3  # pictures shown for each variant


@dataclass(frozen=True)
class QueryAnalysis:
    """One text term as it was analysed.

    Its language (zh, en, mixed), its length (word, phrase, sentence) and the words it was cut
    into, with the English of those that are known.
    """

    text: str
    language: str
    length: str
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VariantRole:
    """What one variant would find by itself: path and cosine, best first.

    ``tower`` is the text tower that read it; empty for the model's own.
    """

    variant: Variant
    found: tuple[tuple[str, float], ...]
    tower: str = ""


@dataclass(frozen=True)
class HitShare:
    """A hit's cosine by variant.

    Each part is the variant's share of the query's vector times its cosine; the parts add up to
    the cosine (pictures in the query are not listed).
    """

    hit: Hit
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explanation:
    """A result, how its text terms were analysed, and what each variant did."""

    result: SearchResult
    understood: tuple[QueryAnalysis, ...]
    roles: tuple[VariantRole, ...]
    shares: tuple[HitShare, ...]


def explain(result: SearchResult, encoder: Encoder, store: Searchable) -> Explanation:
    """Explain a result that ``encoder`` and ``store`` gave."""
    vectors = encoder.encode_texts([variant.text for variant in result.variants])
    tower_of = getattr(encoder, "text_tower_of", lambda _: "")
    roles = []
    for variant, vector in zip(result.variants, vectors, strict=True):
        with store.snapshot():
            ranking = store.search_images(vector, HITS_PER_VARIANT)
            rows = store.images(ranking.ids.tolist())
        hits = zip(rows, ranking.scores.tolist(), strict=True)
        found = tuple((row.paths[0], score) for row, score in hits)
        roles.append(VariantRole(variant, found, tower_of(variant.text)))
    texts = [term.value for term in result.query.terms if term.kind == "text"]
    analyses = tuple(_analyse(text) for text in texts)
    return Explanation(result, analyses, tuple(roles), _shares(result, vectors, store))


def _analyse(text: str) -> QueryAnalysis:
    tokens = built_in_lexicon().segment(normalize(text)) if language(text) != EN else []
    words = tuple(
        (token.text, token.senses[0].english[0] if token.senses and token.senses[0].english else "")
        for token in tokens
        if token.text.strip()
    )
    return QueryAnalysis(text, language(text), length(text), words)


def _shares(result: SearchResult, vectors: Floats, store: Searchable) -> tuple[HitShare, ...]:
    """Solve for the weights with which the variants make up the query's vector."""
    used = [i for i, variant in enumerate(result.variants) if not variant.unused]
    if not used or not result.hits:
        return ()
    texts = vectors[used].astype(np.float64)
    weights = np.linalg.lstsq(texts.T, result.vector.astype(np.float64), rcond=None)[0]
    images = store.image_vectors([hit.id for hit in result.hits])
    parts = images.astype(np.float64) @ (texts * weights[:, None]).T
    names = [result.variants[i].text for i in used]
    return tuple(
        HitShare(hit, tuple(zip(names, map(float, row), strict=True)))
        for hit, row in zip(result.hits, parts, strict=True)
    )
