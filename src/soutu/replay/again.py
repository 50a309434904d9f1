"""One logged search, run again: by its vector, and from its words on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from soutu.errors import SoutuError
from soutu.journal.reading import Logged
from soutu.query.choose import CHOSEN
from soutu.query.parse import INDEXED, parse_query
from soutu.replay.causes import FAULT, PICTURE, UNKNOWN, Cause, Now
from soutu.replay.compare import correlation, overlap
from soutu.search import Asking, Searcher
from soutu.types import Floats, Hit, Query, Rgb, SearchResult, Term, Variant

SCORES = 1e-6  # that the same vector gives on the same index
EXACT, ROUGH = 1e-5, 1e-3  # drift of a query's vector: in float32; in int8, where batches matter
HASHED, ARRAY, GONE, FAILED = "hashed", "array", "picture-gone", "failed"


@dataclass(frozen=True)
class Again:
    """What came of running a search again. ``same``: the hits from the logged vector, the variants
    and the vector from the words are what they were. ``left_out`` says what could not be done:
    hashed (nothing), array or picture-gone (the query could not be encoded anew), failed (with
    ``fault``). ``scores`` is the largest difference of a score from the logged vector; ``drift`` is
    1 - cosine of the query's vector; ``overlap`` and ``correlation`` compare the hits with the
    logged ones. All are None where they could not be told."""

    place: str
    query: str
    target: str
    same: bool = True
    left_out: str = ""
    fault: str = ""
    scores: float | None = None
    drift: float | None = None
    tolerance: float = EXACT
    overlap: float | None = None
    correlation: float | None = None
    causes: tuple[Cause, ...] = ()
    compared: bool = False


def run_again(logged: Logged, searcher: Searcher, now: Now, k: int | None = None) -> Again:
    """``searcher`` is set as it was for ``logged``. Hits are compared over the first ``k``."""
    told = Again(logged.place, logged.query.raw, logged.target)
    if logged.vector is None:
        return replace(told, left_out=HASHED)
    comparable = logged.model["space"] == now.card.space and len(logged.vector) == now.card.dim
    found, fresh = None, None
    try:
        if comparable:
            found = searcher.again(_asked(logged, logged.vector, now))
        if missing := _missing(logged):
            told = replace(told, left_out=missing)
        else:
            fresh = anew(logged, searcher, logged.k or len(logged.hits) or 1)
    except SoutuError as fault:
        told = replace(told, left_out=FAILED, fault=str(fault))
    ranked = fresh or found
    if ranked is None:
        return told
    told = _moved(
        replace(told, compared=True, tolerance=_tolerance(logged, now)), logged, ranked, k
    )
    if found:
        told = replace(told, scores=_scores(logged.hits, found.hits))
    if found and fresh:
        told = replace(told, drift=_drift(logged.vector, fresh.vector))
    return _judged(told, logged, now, found, fresh)


def anew(logged: Logged, searcher: Searcher, k: int) -> SearchResult:
    """The same words or pictures, searched for by ``searcher``. SoutuError as a search."""
    known, picture = logged.pictures, searcher.picture
    assert picture is not None

    def opened(name: str) -> Rgb:
        return picture(known[name][0] if name in known else name)

    searcher = replace(searcher, picture=opened)
    where = logged.query.filters[0] if logged.query.filters else None
    query = replace(logged.query, filters=())
    asking = Asking(k, 0, where, logged.min_confidence)
    if logged.settings.get("fusion") == CHOSEN:
        chosen = tuple(variant for variant in logged.variants if not variant.unused)
        return searcher.find(query, replace(asking, variants=chosen))
    if any(term.kind == INDEXED for term in query.terms):
        return searcher.find(query, asking)
    if not _is_picture(query):
        return searcher.find(parse_query(query.raw), asking)
    rgb, name = opened(query.terms[0].value), query.raw
    if logged.target == "captions":
        return searcher.captions(rgb, name, k)
    return searcher.search_by_image(rgb, name, k, where=where)


def key(hit: Hit, *, by_id: bool) -> int | str:
    return hit.id if by_id else hit.path


def _judged(
    told: Again, logged: Logged, now: Now, found: SearchResult | None, fresh: SearchResult | None
) -> Again:
    """``told`` with what is different, and why."""
    other_model = found is None
    hits = told.scores is None or told.scores > SCORES
    words = fresh is not None and not _same_words(logged, fresh, other_model)
    moved = told.drift is not None and told.drift > told.tolerance
    if not (hits or words or moved):
        return told
    causes: list[Cause] = []
    if other_model or moved:
        causes += now.model(logged)
    if words and fresh:
        causes += [*now.variants(logged, fresh.variants), *_faults(logged, fresh)]
    if hits:
        causes += now.index(logged)
        ran = found or fresh
        if logged.correction or (ran is not None and ran.correction):
            causes += now.measured(logged)
    if moved and not causes:
        causes += _changed_pictures(logged)
    if not causes:
        causes += now.version(logged)
    return replace(told, same=False, causes=tuple(causes) or (Cause(UNKNOWN, "unknown"),))


def _asked(logged: Logged, vector: Floats, now: Now) -> SearchResult:
    return SearchResult(
        query=logged.query,
        variants=logged.variants,
        hits=(),
        agreement=logged.agreement,
        fusion=str(logged.settings["fusion"]),
        vector=vector,
        model=now.card,
        index_state=logged.index,
        target=logged.target,
        min_confidence=logged.min_confidence,
        k=logged.k or len(logged.hits) or 1,
        penalties=logged.penalties,
        senses=logged.senses,
    )


def _moved(told: Again, logged: Logged, found: SearchResult, k: int | None) -> Again:
    by_id = all(hit.id >= 0 for hit in logged.hits)
    one, other = (
        [key(hit, by_id=by_id) for hit in hits[: k or None]] for hits in (logged.hits, found.hits)
    )
    return replace(told, overlap=overlap(one, other), correlation=correlation(one, other))


def _scores(before: Sequence[Hit], now: Sequence[Hit]) -> float | None:
    """The largest difference of a score; None where the hits are others."""
    by_id = all(hit.id >= 0 for hit in before)
    if [key(hit, by_id=by_id) for hit in before] != [key(hit, by_id=by_id) for hit in now]:
        return None
    return max((abs(a.score - b.score) for a, b in zip(before, now, strict=True)), default=0.0)


def _drift(before: Floats, now: Floats) -> float:
    one, other = before.astype(np.float64), now.astype(np.float64)
    return max(0.0, 1 - float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))


def _tolerance(logged: Logged, now: Now) -> float:
    kinds = {term.kind for term in logged.query.terms}
    towers = [name for kind, name in (("text", "texts"), ("image", "images")) if kind in kinds]
    told = logged.model.get("precision")
    known = [told if isinstance(told, Mapping) else {}, now.setup.precision]
    exact = all(one.get(tower, "float32") == "float32" for one in known for tower in towers)
    return EXACT if exact else ROUGH


def _same_words(logged: Logged, fresh: SearchResult, other_model: bool) -> bool:
    """Another model reads other languages and so leaves other variants unused."""

    def said(variants: Sequence[Variant]) -> list[tuple[object, ...]]:
        unused = (lambda v: "") if other_model else (lambda v: v.unused)
        return [(v.term, v.text, round(v.weight, 9), unused(v)) for v in variants]

    return said(logged.variants) == said(fresh.variants)


def _faults(logged: Logged, fresh: SearchResult) -> Iterator[Cause]:
    now = [str(ran.fault) for ran in fresh.expanders if ran.fault]
    if logged.faults or now:
        yield Cause(FAULT, "expander", "; ".join(logged.faults) or "-", "; ".join(now) or "-")


def _is_picture(query: Query) -> bool:
    return query.terms == (Term("image", query.raw),)


def _missing(logged: Logged) -> str:
    """Why the query cannot be encoded anew: "" if it can."""
    for term in logged.query.terms:
        if term.kind == "image" and not _path(logged, term).is_file():
            return ARRAY if term.value == "(array)" else GONE
    return ""


def _changed_pictures(logged: Logged) -> Iterator[Cause]:
    for path, size, mtime_ns in logged.pictures.values():
        known = os.stat(path)  # noqa: PTH116
        if (known.st_size, known.st_mtime_ns) != (size, mtime_ns):
            sizes = (f"{size} B", f"{known.st_size} B")
            yield Cause(PICTURE, "picture", *sizes, paths=(path,))


def _path(logged: Logged, term: Term) -> Path:
    known = logged.pictures.get(term.value)
    return Path(known[0]) if known else Path(term.value).expanduser()
