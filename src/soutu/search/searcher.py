"""Search: text → images, image → images, image → captions, over any store and encoder.

A search goes one way: parse → expand → encode → pool → correct → retrieve → fuse → calibrate →
result. ``Searcher.prepare`` does the first two, ``Searcher.run`` the rest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

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
)
from soutu.search.fusion import SPREAD, QueryScorer, fuse_captions
from soutu.store.base import Searchable
from soutu.text import EN, SENTENCE, is_text, language, length, sentence_share
from soutu.types import (
    All,
    Compare,
    ExpanderTrace,
    Filter,
    Floats,
    Hit,
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
NAME_SCORE = 4.0  # where a caption that says the text scores 1
NAME_PATTERN = re.compile(r"(?=\S*[\d_.])[\w.()\-]{3,}")
EQUAL_SHARES = 1.0, 1.0
TOWER_SHARES = 0.75, 0.25
"""Of the Chinese and of the English tower's vector, chosen on the photographs of val: for words mAP
0.322 together, 0.316 and 0.268 alone (benchmarks/results/photos_towers.json)."""


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
    log
        False: a gallery does not log the search.
    """

    k: int = 5
    offset: int = 0
    where: str | None = None
    min_confidence: float | None = None
    variants: tuple[Variant, ...] | None = None
    expand: bool = True
    log: bool = True


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
    """A query parsed and expanded: all that can be known before anything is encoded.

    ``texts`` are those that the search will encode: of ``variants`` those that are used.
    """

    query: Query
    params: SearchParams
    where: Filter | None
    variants: tuple[Variant, ...]
    texts: list[str]
    expanders: tuple[ExpanderTrace, ...]
    timer: StepTimer


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
                    additional = (EN,) if self._mixes_towers(term.value) else ()
                    proposed, reports = propose_variants(
                        term.value, expander, languages, additional_languages=additional
                    )
                    variants += [replace(variant, term=i) for variant in proposed]
                    traces += reports
            if params.variants is not None:
                _check_variants(query, params.variants)
                variants = list(override_variants(variants, params.variants))
            if where:
                query = replace(query, filters=((params.where or "").strip(),))
        texts = [variant.text for variant in variants if not variant.unused]
        expanders = merge_traces(traces)
        return PreparedQuery(query, params, where, tuple(variants), texts, expanders, timer)

    def _mixes_towers(self, text: str) -> bool:
        """Whether two text towers read ``text`` and its variants.

        A Chinese word or phrase goes to the Chinese tower and its English to the model's own; a
        sentence gains nothing by its English (benchmarks/results/photos_towers.json).
        """
        if self.fusion != AUTO or not getattr(self.encoder, "text_towers", ()):
            return False
        return language(text) != EN and length(text) != SENTENCE

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
        encoded, terms = self._encode(prepared, vectors)
        params = prepared.params
        least = self.min_confidence if params.min_confidence is None else params.min_confidence
        return self._search_images(encoded, params, prepared.where, terms, min_confidence=least)

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
        return self._search_images(self._new_result(query, vector), params, where)

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
        return self._search_captions(self._new_result(query, vector, timer), k)

    def captions_of(self, path: str, k: int = 5) -> SearchResult:
        """Find the ``k`` captions nearest to an indexed image.

        Raises
        ------
        BadQuery
            If the image is not indexed.
        """
        _check_params(SearchParams(k))
        query = Query(path, (Term(INDEXED, path),))
        return self._search_captions(self._new_result(query, self._indexed_vector(path)), k)

    def rerun(self, result: SearchResult) -> SearchResult:
        """Repeat the search that gave ``result``, by its vector and with its variants.

        Nothing is encoded; the hits and all that is known of them are found again.
        """
        params = SearchParams(result.k, where=" ".join(result.query.filters))
        where = _check_params(params)
        encoded = replace(
            self._new_result(result.query, result.vector),
            variants=result.variants,
            agreement=result.agreement,
            expanders=result.expanders,
            senses=result.senses,
            penalties=result.penalties,
        )
        if result.target == "captions":
            return self._search_captions(encoded, result.k)
        return self._search_images(encoded, params, where, min_confidence=result.min_confidence)

    def embed_text(self, text: str) -> tuple[Floats, tuple[Variant, ...]]:
        """Return the vector, float32 (dim,), that ``text`` is searched with, and its variants.

        The text stands for itself: no signs, weights or paths in it. Needs nothing of the store.
        """
        terms = (Term(TEXT, text),)
        encoded, _ = self._encode(self.prepare(Query(format_query(terms), terms), SearchParams()))
        return encoded.vector, encoded.variants

    def _new_result(
        self, query: Query, vector: Floats, timer: StepTimer | None = None
    ) -> SearchResult:
        """Return what is known of an encoded query before it is searched for: no hits yet."""
        return SearchResult(
            query=query,
            variants=(),
            hits=(),
            agreement=1.0,
            fusion=self.fusion,
            vector=vector,
            model=self.encoder.info,
            index_state=IndexState(0, self.encoder.info.space, 0, 0),
            timings=timer.timings if timer else {},
        )

    def _encode(
        self, prepared: PreparedQuery, vectors: Floats | None = None
    ) -> tuple[SearchResult, Floats]:
        """Encode and pool: variants into terms, terms into the query.

        Returns a result without hits, and the vectors of the terms, float32 (n, dim).
        """
        query, chosen = prepared.query, prepared.params.variants is not None
        used = [variant for variant in prepared.variants if not variant.unused]
        balanced = EQUAL_SHARES if self.fusion == BALANCED and not chosen else None
        with prepared.timer.step("encode_ms"):
            if vectors is None:
                vectors = self.encoder.encode_texts(prepared.texts)
            terms, agreement = [], 1.0
            for i, term in enumerate(query.terms):
                if term.kind == TEXT:
                    of_term = [row for row, variant in enumerate(used) if variant.term == i]
                    mixed = not chosen and self._mixes_towers(term.value)
                    shares = TOWER_SHARES if mixed else balanced
                    pooled, agrees = pool_variants(
                        vectors[of_term], [used[row] for row in of_term], shares
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
        rows = np.stack(terms)
        encoded = replace(
            self._new_result(query, _pool_terms(query.terms, rows), prepared.timer),
            variants=prepared.variants,
            agreement=agreement,
            fusion=CHOSEN if chosen else self.fusion,
            expanders=prepared.expanders,
            senses=pool_by_sense(vectors, used) if by_sense else None,
        )
        return encoded, rows

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
        self,
        encoded: SearchResult,
        params: SearchParams,
        where: Filter | None,
        term_vectors: Floats | None = None,
        *,
        min_confidence: float = 0.0,
    ) -> SearchResult:
        """Correct → retrieve → fuse → calibrate.

        Negative terms are split off ``term_vectors``; without these, penalties are known already.
        """
        store, page, timer = self.store, slice(params.offset, None), StepTimer()
        terms = encoded.query.terms
        texts = [term.value for term in terms if term.kind == TEXT]
        with timer.step("search_ms"), store.snapshot():
            stored = store.get_meta(BASELINE_KEY + self.encoder.info.space)
            state = store.state()
            share = sum(map(sentence_share, texts)) / max(len(texts), 1)
            baseline = baseline_from_json(stored) if stored else None
            vector, penalties = encoded.vector, encoded.penalties
            negative = any(term.kind == TEXT and term.weight < 0 for term in terms)
            if baseline and negative and term_vectors is not None and self.negatives != SUBTRACT:
                vector, penalties = _split_penalties(terms, term_vectors, baseline, state.images)
            if any(term.kind != TEXT for term in terms):
                baseline = None  # it describes texts alone
            alpha = correction_alpha(baseline, self.correction, self.tuned.hubs)
            vectors = vector[None] if encoded.senses is None else encoded.senses
            scorer = QueryScorer(store, correct_query(vectors, baseline, alpha), penalties, where)
            matches = self._match_captions(encoded, where)
            depth = params.offset + params.k
            if any(len(ranking.ids) for _, rankings in matches for ranking in rankings):
                ranked_by, nearest = CAPTIONS, scorer.top_k(max(depth, SPREAD))
                ranking, products = fuse_captions(scorer, nearest, matches, depth)
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
        confidence = probability_present(self.tuned.any, baseline, top, images, share)
        # What is unsure is dropped, unless a caption contains the text.
        sure = confidence is None or confidence >= min_confidence or ranked_by != VECTOR
        return replace(
            encoded,
            hits=tuple(hits) if sure else (),
            vector=vector,
            index_state=state,
            confidence=confidence,
            verdict=self.tuned.thresholds.verdict(confidence, in_captions=ranked_by == CAPTIONS),
            min_confidence=min_confidence,
            correction=alpha,
            timings={**encoded.timings, **timer.timings},
            ranked_by=ranked_by,
            penalties=penalties,
            k=params.k,
            reference=baseline.name if baseline else "",
        )

    def _match_captions(
        self, encoded: SearchResult, where: Filter | None
    ) -> list[tuple[float, list[Ranking]]]:
        """Find images whose captions or names contain positive text terms, with scores 0 to 1.

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
            matches = [self._match_names(term.value, encoded.vector, where)]
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
                    break
                exactness = np.maximum(0, ranking.scores - EXACT_MATCH) / (1 - EXACT_MATCH)
                matches.append(
                    Ranking(ranking.ids, exactness * np.float32(min(1.0, variant.weight)))
                )
            matches_by_term.append((term.weight, matches))
        return matches_by_term

    def _match_names(self, text: str, vector: Floats, where: Filter | None) -> Ranking:
        """Find images whose path contains ``text``, where that looks like a name.

        A name has a digit, an underscore or a dot and no space: IMG_0265, 2015, 01月. What its
        vector finds means nothing, so they score enough to come first.
        """
        if not NAME_PATTERN.fullmatch(text):
            return Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        named: Filter = Compare("path", "contains", text)
        named = All((named, where)) if where else named
        ids = self.store.search_images(vector, MAX_CAPTION_HITS, named).ids
        return Ranking(ids, np.full(len(ids), NAME_SCORE, np.float32))

    def _search_captions(self, encoded: SearchResult, k: int) -> SearchResult:
        timer = StepTimer()
        with timer.step("search_ms"), self.store.snapshot():
            ranking = self.store.search_captions(encoded.vector, k)
            rows = self.store.captions(ranking.ids.tolist())
            owners = {i.id: i for i in self.store.images([row.image_id for row in rows])}
            state = self.store.state()
        hits: list[Hit] = []
        for rank, (row, score) in enumerate(zip(rows, ranking.scores.tolist(), strict=True), 1):
            path, *also = owners[row.image_id].paths
            hits.append(Hit(rank, score, score, path, tuple(also), row.text, id=row.id))
        return replace(
            encoded,
            hits=tuple(hits),
            index_state=state,
            target="captions",
            timings={**encoded.timings, **timer.timings},
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


def mean_pool(vectors: Floats, weights: Sequence[float]) -> tuple[Floats, float]:
    """Pool unit vectors into their renormalised weighted mean.

    q = m/‖m‖ with m = Σ wᵢfᵢ / Σ |wᵢ|. Ranks as the weighted mean of the scores would.

    Parameters
    ----------
    vectors
        float32 (n, dim), n ≥ 1, unit rows.
    weights
        n weights; a negative one subtracts.

    Returns
    -------
    vector : float32 (dim,)
        Unit length.
    agreement : float
        ‖m‖, 0 to 1; ‖m‖² is the weighted mean pairwise cosine of the vectors (each with itself
        included).

    Raises
    ------
    BadQuery
        If the vectors cancel out.
    """
    w = np.asarray(weights, np.float64)
    mean = w @ vectors.astype(np.float64) / np.abs(w).sum()
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BadQuery("query-cancels")
    pooled: Floats = (mean / length).astype(np.float32)
    return pooled, min(1.0, length)


def pool_variants(
    vectors: Floats, variants: Sequence[Variant], shares: tuple[float, float] | None = None
) -> tuple[Floats, float]:
    """Pool the variants of one term by their weights; returns as ``mean_pool``.

    With ``shares``, of Chinese and of English, each language is pooled by itself first, so that
    the one with more variants does not drown the other.
    """
    pooled, agreement = mean_pool(vectors, [variant.weight for variant in variants])
    if shares is None:
        return pooled, agreement
    english = [language(variant.text) == EN for variant in variants]
    sides, weights = [], []
    for side, share in zip((False, True), shares, strict=True):
        rows = [row for row, is_english in enumerate(english) if is_english is side]
        if rows:
            sides.append(mean_pool(vectors[rows], [variants[row].weight for row in rows])[0])
            weights.append(share)
    return mean_pool(np.stack(sides), weights)[0], agreement


def pool_by_sense(vectors: Floats, variants: Sequence[Variant]) -> Floats:
    """Pool a word's variants sense by sense.

    Searched for side by side, an image counts by the sense it shows best (max over senses). A
    sense is pooled from its own variants and those that belong to none.

    Returns
    -------
    float32 (senses, dim)
        Unit rows; a single one, the mean of all, for a word without several senses.
    """
    senses = dict.fromkeys(variant.source for variant in variants if ":" in variant.source)
    groups = [
        [i for i, v in enumerate(variants) if v.source == sense or ":" not in v.source]
        for sense in senses
    ]
    if len(groups) < 2:
        groups = [list(range(len(variants)))]
    return np.stack([mean_pool(vectors[g], [variants[i].weight for i in g])[0] for g in groups])


def _pool_terms(terms: Sequence[Term], vectors: Floats) -> Floats:
    """Pool term vectors (n, dim) by the terms' weights, however many variants each has."""
    if len(terms) == 1 and terms[0].weight > 0:
        only: Floats = vectors[0]
        return only
    return mean_pool(vectors, [term.weight for term in terms])[0]


def _split_penalties(
    terms: Sequence[Term], vectors: Floats, baseline: ScoreBaseline, images: int
) -> tuple[Floats, tuple[Penalty, ...]]:
    """Return the vector without the negative text terms, and the penalties of these."""
    negative = [i for i, term in enumerate(terms) if term.weight < 0 and term.kind == TEXT]
    threshold = baseline.cosine(PENALTY_Z_SCORE, images)
    penalties = [
        Penalty(vectors[i], -PENALTY_WEIGHT * terms[i].weight, threshold) for i in negative
    ]
    rest = [i for i in range(len(terms)) if i not in negative]
    return _pool_terms([terms[i] for i in rest], vectors[rest]), tuple(penalties)
