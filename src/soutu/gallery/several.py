"""One query asked of several models: their rankings are fused by rank, as their scores cannot be
compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soutu.query.fuse_rankings import reciprocal_rank
from soutu.types import Hit, Ranking, SearchResult

RRF = "rrf"
DEPTH = 50  # places that count, at least


def fused(results: Sequence[SearchResult], k: int) -> SearchResult:
    """The ``k`` best hits of ``results`` (of one gallery, a model each, ``DEPTH`` hits or more) by
    reciprocal rank. ``score`` is theirs; the rest of each hit, and of the result, is what the first
    model that has it said."""
    first = results[0]
    known: dict[int, Hit] = {}
    rankings = []
    for result in results:
        ids = np.array([hit.id for hit in result.hits], np.int64)
        rankings.append(Ranking(ids, np.array([hit.score for hit in result.hits], np.float32)))
        for hit in result.hits:
            known.setdefault(hit.id, hit)
    merged = reciprocal_rank(rankings)
    best = zip(merged.ids[:k].tolist(), merged.scores[:k].tolist(), strict=True)
    hits = tuple(
        replace(known[id_], rank=rank, score=score) for rank, (id_, score) in enumerate(best, 1)
    )
    return replace(first, hits=hits, ranked_by=RRF)
