"""Why a query found what it found: what it was understood as, and what each variant did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soutu.models.base import Encoder
from soutu.query.lexicon import built_in_lexicon
from soutu.store.base import Searchable
from soutu.text import EN, language, length, normalized
from soutu.types import Floats, Hit, SearchResult, Variant

HITS_PER_VARIANT = 3  # pictures shown for each variant


@dataclass(frozen=True)
class QueryAnalysis:
    """One text term: its language (zh, en, mixed), its length (word, phrase, sentence) and the
    words it was cut into, with the English of those that are known."""

    text: str
    language: str
    length: str
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VariantRole:
    """What one variant would find by itself: path and cosine, best first."""

    variant: Variant
    found: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class HitShare:
    """A hit's cosine by variant: the parts add up to it (what pictures in the query gave is not
    listed). Each part is the variant's share of the query's vector times its cosine."""

    hit: Hit
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explanation:
    result: SearchResult
    understood: tuple[QueryAnalysis, ...]
    roles: tuple[VariantRole, ...]
    shares: tuple[HitShare, ...]


def explain(result: SearchResult, encoder: Encoder, store: Searchable) -> Explanation:
    """Explain ``result``, which ``encoder`` and ``store`` gave."""
    texts = [term.value for term in result.query.terms if term.kind == "text"]
    vectors = encoder.encode_texts([variant.text for variant in result.variants])
    return Explanation(
        result,
        tuple(_understood(text) for text in texts),
        tuple(
            VariantRole(variant, _found(store, vector))
            for variant, vector in zip(result.variants, vectors, strict=True)
        ),
        _shares(result, vectors, store),
    )


def _understood(text: str) -> QueryAnalysis:
    tokens = built_in_lexicon().segment(normalized(text)) if language(text) != EN else []
    words = tuple(
        (token.text, token.senses[0].english[0] if token.senses and token.senses[0].english else "")
        for token in tokens
        if token.text.strip()
    )
    return QueryAnalysis(text, language(text), length(text), words)


def _found(store: Searchable, vector: Floats) -> tuple[tuple[str, float], ...]:
    with store.snapshot():
        ranking = store.search_images(vector, HITS_PER_VARIANT)
        rows = store.images(ranking.ids.tolist())
    return tuple(
        (row.paths[0], float(score)) for row, score in zip(rows, ranking.scores, strict=True)
    )


def _shares(result: SearchResult, vectors: Floats, store: Searchable) -> tuple[HitShare, ...]:
    """Every fusion is a weighted sum: the weights are those with which the variants make up the
    query's vector."""
    used = [at for at, variant in enumerate(result.variants) if not variant.unused]
    if not used or not result.hits:
        return ()
    texts = vectors[used].astype(np.float64)
    weights = np.linalg.lstsq(texts.T, result.vector.astype(np.float64), rcond=None)[0]
    images = store.image_vectors([hit.id for hit in result.hits])
    parts = images.astype(np.float64) @ (texts * weights[:, None]).T
    names = [result.variants[at].text for at in used]
    return tuple(
        HitShare(hit, tuple(zip(names, map(float, row), strict=True)))
        for hit, row in zip(result.hits, parts, strict=True)
    )
