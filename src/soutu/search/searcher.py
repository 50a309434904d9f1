"""Search: text → images, image → images, image → captions, over any store and encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from soutu.errors import BadQuery
from soutu.models.base import Encoder
from soutu.query.expansion import (
    AUTO,
    CHOSEN,
    Expander,
    ExpanderPipeline,
    merge_traces,
    override_variants,
    propose_variants,
)
from soutu.query.parser import INDEXED, MOST_WEIGHT, TEXT, format_query, parse_query
from soutu.search.calibration import (
    BASELINE_KEY,
    OFF,
    UNTUNED,
    ScoreBaseline,
    TunedParams,
    baseline_from_json,
    correct_query,
    correction_alpha,
    probability_present,
)
from soutu.search.fusion import (
    MEAN,
    POOLINGS,
    SENSES,
    VECTOR,
    HybridResult,
    Pooling,
    RankingSources,
    comb_max,
    mean_pool,
    pool_by_sense,
    rank_by_score,
    rank_with_captions,
)
from soutu.store.base import Searchable
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

# What is searched for, where that is more than one vector: senses apart, and things unwanted.
#
#     s(x) = maxᵢ vᵢ·x − Σⱼ wⱼ max(0, nⱼ·x − θⱼ)
#
# A word with several senses has a vector v for each, and a picture counts by the one that it
# shows. A
# term with a minus has a vector n: what is shown of it beyond the threshold counts against a
# picture,
# and what is not shown counts for nothing. To subtract it from the query instead, as rclip does,
# finds what lies farthest from it, wanted or not: the mean average precision of ``A - B`` fell from
# 0.61 (A alone) to 0.29, and rose to 0.64 so (drawn scenes, four runs: benchmarks/negatives.py).


SUBTRACT, PENALISE = "subtract", "penalise"
PENALTY = 2.0  # w of a term that weighs 1
CLEAR = -2.0
"""θ: the standing (``search/calibration.py``) at which something begins to be shown; chosen with
``PENALTY`` on drawn scenes of their own (benchmarks/negatives.py)."""
_FIRST = 8  # times as many candidates as results at first, and at least
_LEAST = 64
_MOST = 20_000  # candidates; a query whose penalties move more is ranked among these

Nearest = Callable[[Floats, int], Ranking]
Vectors = Callable[[Ids], Floats]


@dataclass(frozen=True, eq=False)
class QueryScorer:
    """``vectors``: float32 (s, dim), one for each sense; ``penalties`` for what is unwanted."""

    vectors: Floats
    penalties: Sequence[Penalty] = ()

    def scores(self, images: Floats) -> Floats:
        """float32 (n,) of images' unit vectors (n, dim)."""
        wide = images.astype(np.float64)
        best = (wide @ self.vectors.T.astype(np.float64)).max(axis=1)
        for one in self.penalties:
            shown = wide @ one.vector.astype(np.float64) - one.threshold
            best -= one.weight * np.maximum(0, shown)
        scores: Floats = best.astype(np.float32)
        return scores

    def best(self, k: int, nearest: Nearest, vectors: Vectors) -> Ranking:
        """The ``k`` best images: of ``nearest(vector, k)``, those nearest to a vector; ``vectors``
        are the images' own."""
        if not self.penalties:
            return self._by_sense(k, nearest)
        count = max(_LEAST, _FIRST * k)
        while True:
            found = self._by_sense(count, nearest)
            ranking = rank_by_score(found.ids, self.scores(vectors(found.ids)))
            # Penalties only lower: what lies below the last candidate cannot come to the front.
            enough = len(found.ids) < count or len(ranking.ids) < k
            if enough or ranking.scores[k - 1] >= found.scores[-1] or count >= _MOST:
                return Ranking(ranking.ids[:k], ranking.scores[:k])
            count = min(_MOST, 4 * count)

    def _by_sense(self, k: int, nearest: Nearest) -> Ranking:
        found = [nearest(vector, k) for vector in self.vectors]
        if len(found) == 1:
            return found[0]
        # What is not among a sense's first k has less of it than those: the union holds the best.
        merged = comb_max(found)
        return Ranking(merged.ids[:k], merged.scores[:k])


# A query on its way to the index.


class StepTimer:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(frozen=True)
class EncodedQuery:
    """A query on its way to the index: what was said, the one vector it became, those of its terms
    (n, dim), those of a word's senses where they are kept apart, and the penalties of its negative
    terms where they are known already. ``fusion``: how it became one, "" for the searcher's way."""

    query: Query
    variants: tuple[Variant, ...]
    vector: Floats
    agreement: float
    clock: StepTimer
    ran: tuple[ExpanderTrace, ...] = ()
    terms: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    senses: Floats | None = None
    penalties: tuple[Penalty, ...] | None = None
    fusion: str = ""


@dataclass(frozen=True)
class SearchParams:
    """What a search is asked beside its query: ``k`` hits after the first ``offset``, of the images
    that ``where`` admits (``query/parser.py``); none where it is less sure than ``min_confidence``.
    ``variants``: those that a person chose, to be searched for instead of what is proposed;
    ``expand`` False: nothing is to be proposed."""

    k: int = 5
    offset: int = 0
    where: str | None = None
    min_confidence: float = 0.0
    variants: tuple[Variant, ...] | None = None
    expand: bool = True


@dataclass(frozen=True)
class ParsedFilter:
    """A filter as it was said and as it is understood."""

    text: str
    filter: Filter


def parse_filter(where: str | None) -> ParsedFilter | None:
    if where is None or not where.strip():
        return None
    from soutu.query.parser import parse_where  # most searches have none

    return ParsedFilter(where.strip(), parse_where(where))


def pool_terms(query: Query, terms: Floats) -> Floats:
    """The terms' unit vectors (n, dim) as one (dim,): each counts by its own weight, however many
    variants it has."""
    if len(query.terms) == 1 and query.terms[0].weight > 0:
        only: Floats = terms[0]
        return only
    return mean_pool(terms, [term.weight for term in query.terms])[0]


def validate_params(asking: SearchParams) -> None:
    """BadQuery for numbers that are none of hits."""
    if asking.k < 1:
        raise BadQuery("query-k", k=asking.k)
    if asking.offset < 0:
        raise BadQuery("query-offset", offset=asking.offset)


def validate_variants(query: Query, variants: Sequence[Variant]) -> Sequence[Variant]:
    """``variants``, each of a term of ``query`` that is a text; BadQuery for others."""
    for one in variants:
        known = 0 <= one.term < len(query.terms) and query.terms[one.term].kind == TEXT
        if not known or not one.text.strip() or not 0 < one.weight <= MOST_WEIGHT:
            raise BadQuery("query-variant", text=one.text, term=one.term, most=MOST_WEIGHT)
    return variants


def apply_min_confidence(result: SearchResult, min_confidence: float) -> SearchResult:
    """``result``, without hits where it is less sure and no caption says the text."""
    result = replace(result, min_confidence=min_confidence)
    sure = result.confidence is None or result.confidence >= min_confidence
    return result if sure or result.ranked_by != VECTOR else replace(result, hits=())


# What a query says: the variants of its terms, before anything is encoded.


def expand_query(
    query: Query, asking: SearchParams, expander: Expander | None, languages: Sequence[str]
) -> tuple[tuple[Variant, ...], tuple[ExpanderTrace, ...]]:
    """The variants of all terms that are texts, in their order, those that are not to be searched
    for marked with the reason; and who was asked for them. ``languages``: those that the model
    reads (``query/expansion.py``). BadQuery for chosen variants of a term that has none."""
    found: list[Variant] = []
    ran: list[ExpanderTrace] = []
    for at, term in enumerate(query.terms):
        if term.kind == TEXT:
            of_term, reports = propose_variants(
                term.value, expander if asking.expand else None, languages
            )
            found += [replace(variant, term=at) for variant in of_term]
            ran += reports
    if asking.variants is None:
        return tuple(found), merge_traces(ran)
    return override_variants(found, validate_variants(query, asking.variants)), merge_traces(ran)


def is_local(expander: Expander | None) -> bool:
    """Whether it answers at once: nobody outside is asked, and no other model."""
    return not (isinstance(expander, ExpanderPipeline) and expander.further)


@dataclass(frozen=True)
class Searcher:
    """Searches ``store`` with ``encoder``. ``expander`` None searches the query alone;
    ``picture`` opens the pictures that a query names, as RGB uint8 (h, w, 3). ``fusion`` is a name
    in ``query.fuse.FUSIONS``, or "auto": the mean of the variants that ``query.choose`` chooses.
    ``correction`` of hubs: "auto", "on" or "off" (``search/calibration.py``).
    ``hybrid``: whether captions have a say in what a text finds (``search/fusion.py``).
    ``negatives``: whether a term with a minus penalises what is shown of it, which takes a gallery
    that was measured, or subtracts (``search/searcher.py``).
    ``tuned``: how much is corrected, and what confidence is made of (``search/calibration.py``)."""

    encoder: Encoder
    store: Searchable
    expander: Expander | None = None
    picture: Callable[[str], Rgb] | None = None
    fusion: str = MEAN
    correction: str = OFF
    hybrid: str = OFF
    negatives: str = SUBTRACT
    tuned: TunedParams = UNTUNED

    def search(
        self, text: str, k: int = 5, *, where: str | None = None, min_confidence: float = 0.0
    ) -> SearchResult:
        """The ``k`` images nearest to the query ``text`` (its language: ``query/parser.py``), of
        those that ``where`` admits (``query/parser.py``); none where the result's confidence is
        known and below ``min_confidence``, and no caption says the text. Raises BadQuery for a
        text that is no query, k < 1 or a malformed ``where``, BadImage for a picture in it."""
        return self.find(parse_query(text), SearchParams(k, 0, where, min_confidence))

    def find(self, query: Query, asking: SearchParams) -> SearchResult:
        """The images nearest to ``query``, as ``search``. Raises BadQuery also for variants of a
        term that has none, and for an indexed picture that is not in the store."""
        validate_params(asking)
        wanted = parse_filter(asking.where)
        found = self._images(self._ask(query, asking), asking, wanted)
        return apply_min_confidence(found, asking.min_confidence)

    def search_by_image(
        self, image: Rgb, name: str, k: int = 5, *, where: str | None = None
    ) -> SearchResult:
        """The ``k`` images nearest to a picture, uint8 (h, w, 3); ``name`` is what to log."""
        return self.find_by_image(image, name, SearchParams(k, 0, where))

    def find_by_image(self, image: Rgb, name: str, asking: SearchParams) -> SearchResult:
        """As ``search_by_image``; of ``asking`` what concerns texts alone is left aside."""
        validate_params(asking)
        wanted = parse_filter(asking.where)
        return self._images(self._ask_image(image, name), asking, wanted)

    def captions(self, image: Rgb, name: str, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to a picture, uint8 (h, w, 3)."""
        validate_params(SearchParams(k))
        return self._captions(self._ask_image(image, name), k)

    def captions_of(self, path: str, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to an indexed picture. Raises BadQuery where it is none."""
        validate_params(SearchParams(k))
        vector, query = self._indexed(path), Query(path, (Term(INDEXED, path),))
        return self._captions(EncodedQuery(query, (), vector, 1.0, StepTimer()), k)

    def again(self, asked: SearchResult) -> SearchResult:
        """The search that gave ``asked``, by its vector and with its variants: nothing is encoded.
        Of ``asked`` the hits and all that is known of them are found anew."""
        validate_params(SearchParams(asked.k))
        query = replace(asked.query, filters=())
        said = query, asked.variants, asked.vector, asked.agreement
        more = {"senses": asked.senses, "penalties": asked.penalties}
        by = EncodedQuery(*said, StepTimer(), asked.expanders, **more)  # type: ignore[arg-type]
        if asked.target == "captions":
            return self._captions(by, asked.k)
        wanted = parse_filter(" ".join(asked.query.filters))
        return apply_min_confidence(
            self._images(by, SearchParams(asked.k), wanted), asked.min_confidence
        )

    def _captions(self, asked: EncodedQuery, k: int) -> SearchResult:
        with asked.clock.step("search_ms"), self.store.snapshot():
            ranking = self.store.search_captions(asked.vector, k)
            rows = self.store.captions(ranking.ids.tolist())
            owners = {i.id: i for i in self.store.images([row.image_id for row in rows])}
            state = self.store.state()
        hits: list[Hit] = []
        for rank, (row, score) in enumerate(zip(rows, ranking.scores.tolist(), strict=True), 1):
            path, *also = owners[row.image_id].paths
            hits.append(Hit(rank, score, score, path, tuple(also), row.text, id=row.id))
        return replace(self._result(asked, hits, state, "captions"), k=k)

    def understood(self, text: str) -> tuple[Floats, tuple[Variant, ...]]:
        """The unit vector, float32 (dim,), by which ``text`` is searched for as it stands (no
        signs, weights or paths in it), and its variants. Needs nothing of the store."""
        terms = (Term(TEXT, text),)
        asked = self._ask(Query(format_query(terms), terms), SearchParams())
        return asked.vector, asked.variants

    def texts(self, query: Query, asking: SearchParams) -> list[str]:
        """What ``find`` will have the model encode, where that can be told at once: nothing where
        somebody else is to be asked for variants first."""
        if asking.expand and not is_local(self.expander):
            return []
        proposed, _ = expand_query(query, asking, self.expander, self._languages)
        return [variant.text for variant in proposed if not variant.unused]

    @property
    def _languages(self) -> Sequence[str]:
        """Those that the model reads, where only what it reads is to be searched for."""
        return self.encoder.info.languages if self.fusion in (AUTO, SENSES) else ()

    def _ask(self, query: Query, asking: SearchParams) -> EncodedQuery:
        clock = StepTimer()
        with clock.step("expand_ms"):
            proposed, ran = expand_query(query, asking, self.expander, self._languages)
            used = [variant for variant in proposed if not variant.unused]
        with clock.step("encode_ms"):
            vectors = self.encoder.encode_texts([v.text for v in used])
            fuse = POOLINGS[
                MEAN if self.fusion == AUTO or asking.variants is not None else self.fusion
            ]
            parts = [self._part(query, at, used, vectors, fuse) for at in range(len(query.terms))]
        terms = np.stack([vector for vector, _ in parts])
        agreement = min(agreement for _, agreement in parts)
        apart = self.fusion == SENSES and len(parts) == 1 and asking.variants is None
        senses = pool_by_sense(vectors, used) if apart and used else None
        fusion = self.fusion if asking.variants is None else CHOSEN
        vector = pool_terms(query, terms)
        return EncodedQuery(
            query, proposed, vector, agreement, clock, ran, terms, senses, fusion=fusion
        )

    def _part(
        self, query: Query, at: int, said: Sequence[Variant], vectors: Floats, fuse: Pooling
    ) -> tuple[Floats, float]:
        """One term's vector and its variants' agreement."""
        term = query.terms[at]
        if term.kind == TEXT:
            rows = [row for row, variant in enumerate(said) if variant.term == at]
            return fuse(vectors[rows], [said[row] for row in rows])
        if term.kind == INDEXED:
            return self._indexed(term.value), 1.0
        if self.picture is None:
            raise BadQuery("query-no-pictures", path=term.value)
        return self.encoder.encode_images([self.picture(term.value)])[0], 1.0

    def _indexed(self, path: str) -> Floats:
        """The vector of a picture of the gallery: the only one that the filter admits."""
        any_ = np.eye(1, self.encoder.info.dim, dtype=np.float32)[0]
        with self.store.snapshot():
            found = self.store.search_images(any_, 1, Compare("path", "=", path)).ids.tolist()
            if not found:
                raise BadQuery("query-not-indexed", path=path)
            vector: Floats = self.store.image_vectors(found)[0]
        return vector

    def _ask_image(self, image: Rgb, name: str) -> EncodedQuery:
        clock = StepTimer()
        with clock.step("encode_ms"):
            vector = self.encoder.encode_images([image])[0]
        return EncodedQuery(Query(name, (Term("image", name),)), (), vector, 1.0, clock)

    def _images(
        self, asked: EncodedQuery, asking: SearchParams, wanted: ParsedFilter | None
    ) -> SearchResult:
        narrowed = wanted.filter if wanted else None
        with asked.clock.step("search_ms"), self.store.snapshot():
            state = self.store.state()
            reference = self._reference(state)
            asked, penalties = self._penalised(asked, reference, state)
            if any(term.kind != TEXT for term in asked.query.terms):
                reference = None  # it tells of texts alone
            alpha = correction_alpha(reference, self.correction, self.tuned.hubs)
            vectors = asked.vector[None] if asked.senses is None else asked.senses
            sought = QueryScorer(correct_query(vectors, reference, alpha), penalties)
            found = self._ranked(asked, sought, asking.offset + asking.k, narrowed)
            page = slice(asking.offset, None)
            ids, scores = found.ranking.ids[page].tolist(), found.ranking.scores[page]
            rows = self.store.images(ids)
            # Whether anything is there is for what is seen to say, whatever captions lifted.
            near, first = found.nearest.ids[: asking.k], found.nearest.scores[: asking.k]
            cosines, plain = found.products[page], QueryScorer(vectors)
            if alpha or penalties:
                first = plain.scores(self.store.image_vectors(near.tolist()))
                cosines = plain.scores(self.store.image_vectors(ids))
            among = self.store.count_images(narrowed) if narrowed and reference else state.images
        hits: list[Hit] = []
        for row, score, cosine in zip(rows, scores.tolist(), cosines.tolist(), strict=True):
            (path, *also), caption = row.paths, row.captions[0] if row.captions else ""
            sure = probability_present(self.tuned.this, reference, cosine, among)
            rank = asking.offset + len(hits) + 1
            hits.append(Hit(rank, score, cosine, path, tuple(also), caption, sure, row.id))
        if wanted:
            asked = replace(asked, query=replace(asked.query, filters=(wanted.text,)))
        sure = probability_present(
            self.tuned.any, reference, max(first.tolist(), default=-1.0), among
        )
        result = self._result(asked, hits, state, "images")
        named = reference.name if reference else ""
        told = replace(result, confidence=sure, correction=alpha, ranked_by=found.by, k=asking.k)
        return replace(told, penalties=penalties, senses=asked.senses, reference=named)

    def _penalised(
        self, asked: EncodedQuery, reference: ScoreBaseline | None, state: IndexState
    ) -> tuple[EncodedQuery, tuple[Penalty, ...]]:
        """The query without its text terms that have a minus, and what these take away."""
        if asked.penalties is not None:
            return asked, asked.penalties
        terms = asked.query.terms
        unwanted = [at for at, one in enumerate(terms) if one.weight < 0 and one.kind == TEXT]
        if not unwanted or reference is None or self.negatives == SUBTRACT:
            return asked, ()
        threshold = reference.cosine(CLEAR, state.images)
        penalties = [
            Penalty(asked.terms[at], -PENALTY * terms[at].weight, threshold) for at in unwanted
        ]
        rest = [at for at in range(len(terms)) if at not in unwanted]
        kept = replace(asked.query, terms=tuple(terms[at] for at in rest))
        return replace(asked, vector=pool_terms(kept, asked.terms[rest])), tuple(penalties)

    def _ranked(
        self, asked: EncodedQuery, sought: QueryScorer, k: int, where: Filter | None
    ) -> HybridResult:
        def vectors(ids: Ids) -> Floats:
            return self.store.image_vectors(ids.tolist())

        def products(ids: Ids) -> Floats:
            return sought.scores(vectors(ids))

        def nearest(vector: Floats, k: int) -> Ranking:
            return self.store.search_images(vector, k, where)

        def said(text: str, k: int) -> Ranking:
            return self.store.search_text(text, k, where, exact=True)

        sources = RankingSources(lambda k: sought.best(k, nearest, vectors), said, products)
        return rank_with_captions(asked.query, asked.variants, sources, k, self.hybrid)

    def _reference(self, state: IndexState) -> ScoreBaseline | None:
        """What is known of the gallery's answers to texts."""
        kept = self.store.get_meta(BASELINE_KEY + state.space)
        return baseline_from_json(kept) if kept else None

    def _result(
        self, asked: EncodedQuery, hits: list[Hit], state: IndexState, target: str
    ) -> SearchResult:
        return SearchResult(
            query=asked.query,
            variants=asked.variants,
            hits=tuple(hits),
            agreement=asked.agreement,
            fusion=asked.fusion or self.fusion,
            vector=asked.vector,
            model=self.encoder.info,
            index_state=state,
            target=target,
            timings=asked.clock.timings,
            expanders=asked.ran,
        )
