"""Search: text → images, image → images, image → captions, over any store and encoder.

A search goes one way: parse → expand → encode → pool → correct → retrieve → fuse → calibrate →
result. ``Searcher.prepare`` does the first two, ``Searcher.run`` the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from soutu.errors import BadImage, BadQuery, Missing
from soutu.models.base import Encoder
from soutu.query.expansion import (
    CHOSEN,
    SWITCHED_OFF,
    Expander,
    ExpanderPipeline,
    merge_traces,
    override_variants,
    propose_variants,
)
from soutu.query.parser import INDEXED, MAX_WEIGHT, TEXT, format_query, parse_query, parse_where
from soutu.search.calibration import (
    BASELINE_KEY,
    OFF,
    ON,
    UNTUNED,
    ScoreBaseline,
    TunedParams,
    baseline_from_json,
    correct_query,
    correction_alpha,
    probability_present,
    sentence_share,
)
from soutu.search.fusion import (
    SPREAD,
    caption_boost,
    comb_max,
    mean_pool,
    pool_by_sense,
    pool_variants,
    rank_by_score,
    weighted_sum,
)
from soutu.store.base import Searchable
from soutu.text import is_text
from soutu.types import (
    Compare,
    ExpanderTrace,
    Filter,
    Floats,
    Hit,
    Ids,
    IndexState,
    Penalty,
    Query,
    Ranking,
    Rgb,
    SearchResult,
    Term,
    Variant,
)

AUTO, MEAN, BALANCED, SENSES = "auto", "mean", "balanced", "senses"
FUSIONS = (AUTO, MEAN, BALANCED, SENSES)
"""How variants become one vector: the mean of those that suit the model (auto) or of all (mean), of
the languages' means (balanced), or one vector a sense (senses). ``chosen`` is logged where a person
picked the variants."""
VECTOR, CAPTIONS = "vector", "lifted"
"""What ranked: the vectors alone, or boosted by captions (the log's word for it)."""
SUBTRACT, PENALISE = "subtract", "penalise"
PENALTY_WEIGHT = 2.0  # of a term that weighs 1
PENALTY_Z_SCORE = -2.0
"""The z-score at which something begins to be shown; chosen with ``PENALTY_WEIGHT`` on drawn
scenes of their own (benchmarks/negatives.py)."""
EXACT_MATCH = np.float32(2 / 3)  # above it are the store's scores of captions with the exact words
MAX_CAPTION_HITS = 1000
MIN_CANDIDATES, CANDIDATE_FACTOR, MAX_CANDIDATES = 64, 8, 20_000  # of a query with penalties


@dataclass(frozen=True)
class SearchParams:
    """What a search is asked beside its query.

    Parameters
    ----------
    k, offset
        Number of hits, and how many to skip before them.
    where
        A filter in the language of ``query/parser.py``.
    min_confidence
        Below it (0 to 1) nothing is returned; None: the searcher's.
    variants
        Variants chosen by a person, searched for instead of the proposed ones.
    expand
        False: propose no variants.
    """

    k: int = 5
    offset: int = 0
    where: str | None = None
    min_confidence: float | None = None
    variants: tuple[Variant, ...] | None = None
    expand: bool = True


class StepTimer:
    """Measure milliseconds by step."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record how long the block takes under ``name``."""
        start = time.perf_counter()
        yield
        self.timings[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(frozen=True)
class PreparedQuery:
    """A query parsed and expanded: all that can be known before anything is encoded."""

    query: Query
    params: SearchParams
    where: Filter | None
    variants: tuple[Variant, ...]
    expanders: tuple[ExpanderTrace, ...]
    timer: StepTimer

    @property
    def texts(self) -> list[str]:
        """The texts that the search will encode."""
        return [variant.text for variant in self.variants if not variant.unused]


@dataclass(frozen=True)
class EncodedQuery:
    """An encoded query: the pooled ``vector`` and the term vectors (n, dim) it was pooled from.

    ``senses`` (s, dim) where a word's senses are kept apart; ``penalties`` of negative terms where
    they are known already (a replayed search).
    """

    query: Query
    variants: tuple[Variant, ...]
    vector: Floats
    agreement: float
    timer: StepTimer
    fusion: str
    expanders: tuple[ExpanderTrace, ...] = ()
    terms: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    senses: Floats | None = None
    penalties: tuple[Penalty, ...] | None = None


@dataclass(frozen=True, eq=False)
class QueryScorer:
    """Score and retrieve images of a store for several vectors and penalties.

    s(x) = maxᵢ vᵢ·x − Σⱼ wⱼ max(0, nⱼ·x − θⱼ)

    A word with several senses has a vector v for each. A negative term has a vector n: what an
    image shows of it beyond the threshold θ counts against it, and what it does not show counts
    for nothing. Subtracting n from the query instead, as rclip does, finds what lies farthest from
    it, wanted or not: the mean average precision of ``A - B`` fell from 0.61 (A alone) to 0.29 and
    rose to 0.64 with penalties (drawn scenes, four runs: benchmarks/negatives.py).

    Parameters
    ----------
    store
        Holds the images.
    vectors
        float32 (s, dim), one a sense.
    penalties
        Of negative terms.
    where
        A filter that retrieved images pass.
    """

    store: Searchable
    vectors: Floats
    penalties: Sequence[Penalty] = ()
    where: Filter | None = None

    def score(self, ids: Ids) -> Floats:
        """Score images exactly, float32 (n,)."""
        images = self.store.image_vectors(ids.tolist()).astype(np.float64)
        best = (images @ self.vectors.T.astype(np.float64)).max(axis=1)
        for penalty in self.penalties:
            excess = images @ penalty.vector.astype(np.float64) - penalty.threshold
            best -= penalty.weight * np.maximum(0, excess)
        scores: Floats = best.astype(np.float32)
        return scores

    def top_k(self, k: int) -> Ranking:
        """Retrieve the ``k`` best images."""
        if not self.penalties:
            return self._nearest(k)
        count = max(MIN_CANDIDATES, CANDIDATE_FACTOR * k)
        while True:
            candidates = self._nearest(count)
            ranking = rank_by_score(candidates.ids, self.score(candidates.ids))
            # Penalties only lower: what lies below the last candidate cannot come to the front.
            exhausted = len(candidates.ids) < count or len(ranking.ids) < k
            complete = exhausted or ranking.scores[k - 1] >= candidates.scores[-1]
            if complete or count >= MAX_CANDIDATES:
                return Ranking(ranking.ids[:k], ranking.scores[:k])
            count = min(MAX_CANDIDATES, 4 * count)

    def _nearest(self, k: int) -> Ranking:
        rankings = [self.store.search_images(vector, k, self.where) for vector in self.vectors]
        if len(rankings) == 1:
            return rankings[0]
        # An image outside a sense's first k scores less for it: the union holds the best.
        fused = comb_max(rankings)
        return Ranking(fused.ids[:k], fused.scores[:k])


@dataclass(frozen=True)
class Searcher:
    """Search a store with an encoder.

    Parameters
    ----------
    encoder, store
        Any objects of the Protocols; the store holds vectors of the encoder's space.
    expander
        Proposes variants; None searches for the query alone.
    open_image
        Opens image files that a query names, as RGB uint8 (h, w, 3).
    fusion
        One of ``FUSIONS``.
    correction
        Of hubs: auto, on or off (``search/calibration.py``).
    hybrid
        Whether captions that match the query boost their images: auto, on (raises Missing where
        captions cannot be searched) or off.
    negatives
        What a minus does: penalise (in a gallery with a baseline) or subtract.
    tuned
        Parameters of correction and confidence.
    min_confidence
        Of searches that do not say: below it (0 to 1) nothing is returned.
    """

    encoder: Encoder
    store: Searchable
    expander: Expander | None = None
    open_image: Callable[[str], Rgb] | None = None
    fusion: str = MEAN
    correction: str = OFF
    hybrid: str = OFF
    negatives: str = SUBTRACT
    tuned: TunedParams = UNTUNED
    min_confidence: float = 0.0

    def search(
        self,
        text: str,
        k: int = 5,
        *,
        where: str | None = None,
        min_confidence: float | None = None,
    ) -> SearchResult:
        """Find the ``k`` images nearest to a query.

        Raises
        ------
        BadQuery
            For text that is no query (its language: ``query/parser.py``), k < 1 or a malformed
            ``where``.
        BadImage
            For an image in the query that cannot be read.
        """
        return self.search_query(parse_query(text), SearchParams(k, 0, where, min_confidence))

    def search_query(self, query: Query, params: SearchParams) -> SearchResult:
        """Find the images nearest to a parsed query; raises as ``search``."""
        return self.run(self.prepare(query, params))

    def prepare(self, query: Query, params: SearchParams) -> PreparedQuery:
        """Check the parameters, parse the filter and expand every text term.

        Raises
        ------
        BadQuery
            For parameters out of range, a malformed filter, or chosen variants that are not of a
            text term.
        """
        where = _check_params(params)
        timer = StepTimer()
        variants: list[Variant] = []
        traces: list[ExpanderTrace] = []
        # Only what the model reads is searched for, unless everything was asked for.
        languages = self.encoder.info.languages if self.fusion in (AUTO, SENSES) else ()
        with timer.step("expand_ms"):
            for i, term in enumerate(query.terms):
                if term.kind == TEXT:
                    if not is_text(term.value):
                        raise BadQuery("query-not-text", text=term.value[:60])
                    expander = self.expander if params.expand else None
                    proposed, reports = propose_variants(term.value, expander, languages)
                    variants += [replace(variant, term=i) for variant in proposed]
                    traces += reports
            if params.variants is not None:
                _check_variants(query, params.variants)
                variants = list(override_variants(variants, params.variants))
            if where:
                query = replace(query, filters=((params.where or "").strip(),))
        return PreparedQuery(
            query, params, where, tuple(variants), tuple(merge_traces(traces)), timer
        )

    @property
    def expands_locally(self) -> bool:
        """Whether ``prepare`` answers at once: no server and no other model is asked."""
        return not (isinstance(self.expander, ExpanderPipeline) and self.expander.additional)

    def run(self, prepared: PreparedQuery, vectors: Floats | None = None) -> SearchResult:
        """Search for a prepared query.

        Parameters
        ----------
        prepared
            What ``prepare`` returned.
        vectors
            Of ``prepared.texts``, float32 (n, dim), where they were encoded before.

        Raises
        ------
        BadQuery
            If terms cancel out, or an indexed image is not in the store.
        """
        encoded = self._encode(prepared, vectors)
        result = self._search_images(encoded, prepared.params, prepared.where)
        requested = prepared.params.min_confidence
        return _apply_min_confidence(
            result, self.min_confidence if requested is None else requested
        )

    def run_batch(self, prepared: Sequence[PreparedQuery]) -> list[SearchResult]:
        """Search for several prepared queries, whose texts are encoded in one batch."""
        texts = list(dict.fromkeys(text for query in prepared for text in query.texts))
        rows = dict(zip(texts, self.encoder.encode_texts(texts), strict=True))
        empty = np.empty((0, self.encoder.info.dim), np.float32)
        return [
            self.run(item, np.stack([rows[text] for text in item.texts]) if item.texts else empty)
            for item in prepared
        ]

    def search_vector(self, vector: Floats, name: str, params: SearchParams) -> SearchResult:
        """Find the images nearest to a vector, float32 (dim,), unit length; ``name`` is logged.

        Of ``params`` what concerns texts alone is ignored.
        """
        where = _check_params(params)
        query = Query(name, (Term("image", name),))
        if where:
            query = replace(query, filters=((params.where or "").strip(),))
        encoded = EncodedQuery(query, (), vector, 1.0, StepTimer(), self.fusion)
        return self._search_images(encoded, params, where)

    def search_by_image(self, image: Rgb, name: str, params: SearchParams) -> SearchResult:
        """Find the images nearest to an image, uint8 (h, w, 3); ``name`` is logged."""
        _check_params(params)
        start = time.perf_counter()
        vector = self.encoder.encode_images([image])[0]
        encode_ms = round((time.perf_counter() - start) * 1000, 3)
        result = self.search_vector(vector, name, params)
        return replace(result, timings={"encode_ms": encode_ms, **result.timings})

    def captions(self, image: Rgb, name: str, k: int = 5) -> SearchResult:
        """Find the ``k`` captions nearest to an image, uint8 (h, w, 3)."""
        _check_params(SearchParams(k))
        timer = StepTimer()
        with timer.step("encode_ms"):
            vector = self.encoder.encode_images([image])[0]
        query = Query(name, (Term("image", name),))
        return self._search_captions(EncodedQuery(query, (), vector, 1.0, timer, self.fusion), k)

    def captions_of(self, path: str, k: int = 5) -> SearchResult:
        """Find the ``k`` captions nearest to an indexed image.

        Raises
        ------
        BadQuery
            If the image is not indexed.
        """
        _check_params(SearchParams(k))
        vector, query = self._indexed_vector(path), Query(path, (Term(INDEXED, path),))
        encoded = EncodedQuery(query, (), vector, 1.0, StepTimer(), self.fusion)
        return self._search_captions(encoded, k)

    def rerun(self, result: SearchResult) -> SearchResult:
        """Repeat the search that gave ``result``, by its vector and with its variants.

        Nothing is encoded; the hits and all that is known of them are found again.
        """
        params = SearchParams(result.k, where=" ".join(result.query.filters))
        where = _check_params(params)
        encoded = EncodedQuery(
            result.query,
            result.variants,
            result.vector,
            result.agreement,
            StepTimer(),
            self.fusion,
            result.expanders,
            senses=result.senses,
            penalties=result.penalties,
        )
        if result.target == "captions":
            return self._search_captions(encoded, result.k)
        again = self._search_images(encoded, params, where)
        return _apply_min_confidence(again, result.min_confidence)

    def embed_text(self, text: str) -> tuple[Floats, tuple[Variant, ...]]:
        """Return the vector, float32 (dim,), that ``text`` is searched with, and its variants.

        The text stands for itself: no signs, weights or paths in it. Needs nothing of the store.
        """
        terms = (Term(TEXT, text),)
        encoded = self._encode(self.prepare(Query(format_query(terms), terms), SearchParams()))
        return encoded.vector, encoded.variants

    def _encode(self, prepared: PreparedQuery, vectors: Floats | None = None) -> EncodedQuery:
        """Encode and pool: variants into terms, terms into the query."""
        query, chosen = prepared.query, prepared.params.variants is not None
        used = [variant for variant in prepared.variants if not variant.unused]
        by_language = self.fusion == BALANCED and not chosen
        with prepared.timer.step("encode_ms"):
            if vectors is None:
                vectors = self.encoder.encode_texts(prepared.texts)
            terms, agreement = [], 1.0
            for i, term in enumerate(query.terms):
                if term.kind == TEXT:
                    rows = [row for row, variant in enumerate(used) if variant.term == i]
                    pooled, agrees = pool_variants(
                        vectors[rows], [used[row] for row in rows], by_language=by_language
                    )
                    agreement = min(agreement, agrees)
                elif term.kind == INDEXED:
                    pooled = self._indexed_vector(term.value)
                elif self.open_image is None:
                    raise BadQuery("query-no-pictures", path=term.value)
                else:
                    try:
                        image = self.open_image(term.value)
                    except BadImage as error:
                        if len(query.terms) == 1 or '"' in query.raw:
                            raise
                        parts = {"error": error, "raw": query.raw}
                        raise BadImage("query-picture-parts", **parts) from error
                    pooled = self.encoder.encode_images([image])[0]
                terms.append(pooled)
        by_sense = self.fusion == SENSES and len(terms) == 1 and not chosen and bool(used)
        return EncodedQuery(
            query,
            prepared.variants,
            _pool_terms(query.terms, np.stack(terms)),
            agreement,
            prepared.timer,
            CHOSEN if chosen else self.fusion,
            prepared.expanders,
            np.stack(terms),
            pool_by_sense(vectors, used) if by_sense else None,
        )

    def _indexed_vector(self, path: str) -> Floats:
        """Look up the vector of an indexed image: the only one that the filter admits."""
        any_vector = np.eye(1, self.encoder.info.dim, dtype=np.float32)[0]
        with self.store.snapshot():
            where = Compare("path", "=", path)  # in any spelling, so there may be several
            ids = self.store.search_images(any_vector, 8, where).ids.tolist()
            if not ids:
                raise BadQuery("query-not-indexed", path=path)
            ids.sort(key=lambda id_: path not in self.store.images([id_])[0].paths)
            vector: Floats = self.store.image_vectors(ids[:1])[0]
        return vector

    def _search_images(
        self, encoded: EncodedQuery, params: SearchParams, where: Filter | None
    ) -> SearchResult:
        """Correct → retrieve → fuse → calibrate."""
        store, page = self.store, slice(params.offset, None)
        with encoded.timer.step("search_ms"), store.snapshot():
            stored = store.get_meta(BASELINE_KEY + self.encoder.info.space)
            state = store.state()
            baseline = baseline_from_json(stored) if stored else None
            vector, penalties = encoded.vector, encoded.penalties or ()
            terms = encoded.query.terms
            negative = any(term.kind == TEXT and term.weight < 0 for term in terms)
            penalise = encoded.penalties is None and self.negatives != SUBTRACT
            if baseline and negative and penalise:
                vector, penalties = _split_penalties(encoded, baseline, state.images)
            if any(term.kind != TEXT for term in terms):
                baseline = None  # it describes texts alone
            alpha = correction_alpha(baseline, self.correction, self.tuned.hubs)
            vectors = vector[None] if encoded.senses is None else encoded.senses
            scorer = QueryScorer(store, correct_query(vectors, baseline, alpha), penalties, where)
            matches = self._match_captions(encoded, where)
            depth = params.offset + params.k
            if any(len(ranking.ids) for _, rankings in matches for ranking in rankings):
                ranked_by, nearest = CAPTIONS, scorer.top_k(max(depth, SPREAD))
                ranking, products = _fuse_captions(scorer, nearest, matches, depth)
            else:
                ranked_by, nearest = VECTOR, scorer.top_k(depth)
                ranking, products = nearest, nearest.scores
            ids, scores, cosines = ranking.ids[page], ranking.scores[page], products[page]
            boosts = scores - cosines
            rows = store.images(ids.tolist(), where) if where else store.images(ids.tolist())
            # Whether anything is there is judged by what is seen, whatever captions boosted.
            best = nearest.scores[: params.k]
            if alpha or penalties:
                plain = QueryScorer(store, vectors)
                best, cosines = plain.score(nearest.ids[: params.k]), plain.score(ids)
            images = store.count_images(where) if where and baseline else state.images
        texts = [term.value for term in terms if term.kind == TEXT]
        share = sum(map(sentence_share, texts)) / max(len(texts), 1)
        hits: list[Hit] = []
        figures = zip(rows, scores.tolist(), cosines.tolist(), boosts.tolist(), strict=True)
        for row, score, cosine, boost in figures:
            (path, *also), caption = row.paths, row.captions[0] if row.captions else ""
            # A caption that says the text is evidence too: as much as it lifts the image.
            boosted = cosine + boost
            confidence = probability_present(self.tuned.this, baseline, boosted, images, share)
            rank = params.offset + len(hits) + 1
            hits.append(Hit(rank, score, cosine, path, tuple(also), caption, confidence, row.id))
        top = max(best.tolist(), default=-1.0)
        return replace(
            self._result(encoded, hits, state, params.k),
            vector=vector,
            confidence=probability_present(self.tuned.any, baseline, top, images, share),
            correction=alpha,
            ranked_by=ranked_by,
            penalties=penalties,
            senses=encoded.senses,
            reference=baseline.name if baseline else "",
        )

    def _match_captions(
        self, encoded: EncodedQuery, where: Filter | None
    ) -> list[tuple[float, list[Ranking]]]:
        """Find images whose captions contain positive text terms, with scores 0 to 1.

        Returns each term's weight and one ranking a variant (which counts by its weight, at most
        1): also of variants that the model is not asked, but not of those that a person switched
        off.
        """
        matches_by_term: list[tuple[float, list[Ranking]]] = []
        if self.hybrid == OFF:
            return matches_by_term
        for i, term in enumerate(encoded.query.terms):
            if term.kind != TEXT or term.weight <= 0:
                continue
            matches = []
            for variant in encoded.variants:
                if variant.term != i or variant.unused == SWITCHED_OFF:
                    continue
                try:
                    ranking = self.store.search_text(
                        variant.text, MAX_CAPTION_HITS, where, exact=True
                    )
                except Missing:
                    if self.hybrid == ON:
                        raise
                    return []
                exactness = np.maximum(0, ranking.scores - EXACT_MATCH) / (1 - EXACT_MATCH)
                matches.append(
                    Ranking(ranking.ids, exactness * np.float32(min(1.0, variant.weight)))
                )
            matches_by_term.append((term.weight, matches))
        return matches_by_term

    def _search_captions(self, encoded: EncodedQuery, k: int) -> SearchResult:
        with encoded.timer.step("search_ms"), self.store.snapshot():
            ranking = self.store.search_captions(encoded.vector, k)
            rows = self.store.captions(ranking.ids.tolist())
            owners = {i.id: i for i in self.store.images([row.image_id for row in rows])}
            state = self.store.state()
        hits: list[Hit] = []
        for rank, (row, score) in enumerate(zip(rows, ranking.scores.tolist(), strict=True), 1):
            path, *also = owners[row.image_id].paths
            hits.append(Hit(rank, score, score, path, tuple(also), row.text, id=row.id))
        return replace(self._result(encoded, hits, state, k), target="captions")

    def _result(
        self, encoded: EncodedQuery, hits: list[Hit], state: IndexState, k: int
    ) -> SearchResult:
        return SearchResult(
            query=encoded.query,
            variants=encoded.variants,
            hits=tuple(hits),
            agreement=encoded.agreement,
            fusion=encoded.fusion,
            vector=encoded.vector,
            model=self.encoder.info,
            index_state=state,
            timings=encoded.timer.timings,
            expanders=encoded.expanders,
            k=k,
        )


def _check_params(params: SearchParams) -> Filter | None:
    """Raise BadQuery for parameters out of range; return the parsed filter."""
    if params.k < 1:
        raise BadQuery("query-k", k=params.k)
    if params.offset < 0:
        raise BadQuery("query-offset", offset=params.offset)
    return parse_where(params.where.strip()) if params.where and params.where.strip() else None


def _check_variants(query: Query, variants: Sequence[Variant]) -> None:
    for variant in variants:
        if not is_text(variant.text):
            raise BadQuery("query-not-text", text=variant.text[:60])
        known = 0 <= variant.term < len(query.terms) and query.terms[variant.term].kind == TEXT
        if not known or not variant.text.strip() or not 0 < variant.weight <= MAX_WEIGHT:
            raise BadQuery("query-variant", text=variant.text, term=variant.term, most=MAX_WEIGHT)


def _pool_terms(terms: Sequence[Term], vectors: Floats) -> Floats:
    """Pool term vectors (n, dim) by the terms' weights, however many variants each has."""
    if len(terms) == 1 and terms[0].weight > 0:
        only: Floats = vectors[0]
        return only
    return mean_pool(vectors, [term.weight for term in terms])[0]


def _split_penalties(
    encoded: EncodedQuery, baseline: ScoreBaseline, images: int
) -> tuple[Floats, tuple[Penalty, ...]]:
    """Return the vector without the negative text terms, and the penalties of these."""
    terms = encoded.query.terms
    negative = [i for i, term in enumerate(terms) if term.weight < 0 and term.kind == TEXT]
    threshold = baseline.cosine(PENALTY_Z_SCORE, images)
    penalties = [
        Penalty(encoded.terms[i], -PENALTY_WEIGHT * terms[i].weight, threshold) for i in negative
    ]
    rest = [i for i in range(len(terms)) if i not in negative]
    return _pool_terms([terms[i] for i in rest], encoded.terms[rest]), tuple(penalties)


def _fuse_captions(
    scorer: QueryScorer, nearest: Ranking, matches: list[tuple[float, list[Ranking]]], k: int
) -> tuple[Ranking, Floats]:
    """Return the ``k`` best of what either found, and their scores by the vectors alone.

    Of captions a term counts by its best variant, and the terms by their weights.
    """
    matched = {i for _, rankings in matches for ranking in rankings for i in ranking.ids.tolist()}
    new = np.array(sorted(matched.difference(nearest.ids.tolist())), np.int64)
    ids, products = nearest.ids, nearest.scores
    if len(new):
        ids = np.concatenate([ids, new])
        products = np.concatenate([products, scorer.score(new)])
    total = sum(weight for weight, _ in matches)
    by_captions = weighted_sum(
        [comb_max(rankings) for _, rankings in matches], [weight / total for weight, _ in matches]
    )
    fused = caption_boost(rank_by_score(ids, products), by_captions)
    best = Ranking(fused.ids[:k], fused.scores[:k])
    order = np.argsort(ids)
    return best, products[order[np.searchsorted(ids, best.ids, sorter=order)]]


def _apply_min_confidence(result: SearchResult, min_confidence: float) -> SearchResult:
    """Drop the hits of an unsure result, unless a caption contains the text."""
    result = replace(result, min_confidence=min_confidence)
    sure = result.confidence is None or result.confidence >= min_confidence
    return result if sure or result.ranked_by != VECTOR else replace(result, hits=())
