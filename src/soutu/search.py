"""Search: text → images, image → images, image → captions, over any store and encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from soutu.encoders.base import Encoder
from soutu.errors import BadQuery
from soutu.filters import Filter
from soutu.query.chain import proposals, together
from soutu.query.choose import AUTO
from soutu.query.confidence import confidence
from soutu.query.expand import Expander
from soutu.query.fuse import FUSIONS, MEAN, mean_pool
from soutu.query.hubs import OFF, corrected, strength
from soutu.query.hybrid import VECTOR, Ranked, Sources, ranked
from soutu.query.parse import TEXT, format_query, parse_query
from soutu.query.standing import REFERENCE, Reference, from_text
from soutu.query.tuned import UNTUNED, Tuned
from soutu.store.base import Searchable
from soutu.store.ranking import exact_scores
from soutu.types import (
    Floats,
    Hit,
    Ids,
    IndexState,
    Query,
    Ran,
    Ranking,
    Rgb,
    SearchResult,
    Term,
    Variant,
)


class _Clock:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(frozen=True)
class _Asked:
    """A query on its way to the index: what was said, and the one vector it became."""

    query: Query
    variants: tuple[Variant, ...]
    vector: Floats
    agreement: float
    clock: _Clock
    ran: tuple[Ran, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A filter as it was said and as it is understood."""

    text: str
    filter: Filter


def parsed(where: str | None) -> Wanted | None:
    if where is None or not where.strip():
        return None
    from soutu.query.where import parse_where  # most searches have none

    return Wanted(where.strip(), parse_where(where))


@dataclass(frozen=True)
class Searcher:
    """Searches ``store`` with ``encoder``. ``expander`` None searches the query alone;
    ``picture`` opens the pictures that a query names, as RGB uint8 (h, w, 3). ``fusion`` is a name
    in ``query.fuse.FUSIONS``, or "auto": the mean of the variants that ``query.choose`` chooses.
    ``correction`` of hubs: "auto", "on" or "off" (``query/hubs.py``).
    ``hybrid``: whether captions have a say in what a text finds (``query/hybrid.py``).
    ``tuned``: how much is corrected, and what confidence is made of (``query/tuned.py``)."""

    encoder: Encoder
    store: Searchable
    expander: Expander | None = None
    picture: Callable[[str], Rgb] | None = None
    fusion: str = MEAN
    correction: str = OFF
    hybrid: str = OFF
    tuned: Tuned = UNTUNED

    def search(
        self, text: str, k: int = 5, *, where: str | None = None, min_confidence: float = 0.0
    ) -> SearchResult:
        """The ``k`` images nearest to the query ``text`` (its language: ``query/parse.py``), of
        those that ``where`` admits (``query/where.py``); none where the result's confidence is
        known and below ``min_confidence``, and no caption says the text. Raises BadQuery for a
        text that is no query, k < 1 or a malformed ``where``, BadImage for a picture in it."""
        wanted = parsed(where)
        result = self._images(self._ask_text(text, k), k, wanted)
        result = replace(result, min_confidence=min_confidence)
        sure = result.confidence is None or result.confidence >= min_confidence
        unsure = not sure and result.ranked_by == VECTOR
        return replace(result, hits=()) if unsure else result

    def search_by_image(
        self, image: Rgb, name: str, k: int = 5, *, where: str | None = None
    ) -> SearchResult:
        """The ``k`` images nearest to a picture, uint8 (h, w, 3); ``name`` is what to log."""
        wanted = parsed(where)
        return self._images(self._ask_image(image, name, k), k, wanted)

    def captions(self, image: Rgb, name: str, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to a picture, uint8 (h, w, 3)."""
        asked = self._ask_image(image, name, k)
        with asked.clock.step("search_ms"), self.store.snapshot():
            ranking = self.store.search_captions(asked.vector, k)
            rows = self.store.captions(ranking.ids.tolist())
            owners = {i.id: i for i in self.store.images([row.image_id for row in rows])}
            state = self.store.state()
        hits: list[Hit] = []
        for rank, (row, score) in enumerate(zip(rows, ranking.scores.tolist(), strict=True), 1):
            path, *also = owners[row.image_id].paths
            hits.append(Hit(rank, score, score, path, tuple(also), row.text))
        return self._result(asked, hits, state, "captions")

    def understood(self, text: str) -> tuple[Floats, tuple[Variant, ...]]:
        """The unit vector, float32 (dim,), by which ``text`` is searched for as it stands (no
        signs, weights or paths in it), and its variants. Needs nothing of the store."""
        asked = self._ask_text(format_query((Term(TEXT, text),)), 1)
        return asked.vector, asked.variants

    def _ask_text(self, text: str, k: int) -> _Asked:
        _check_k(k)
        query = parse_query(text)
        clock = _Clock()
        with clock.step("expand_ms"):
            proposed, ran = self._variants(query)
            said = [variant for variant in proposed if not variant.unused]
        with clock.step("encode_ms"):
            vectors = self.encoder.encode_texts([v.text for v in said])
            parts = [self._part(query, at, said, vectors) for at in range(len(query.terms))]
        vector, agreement = parts[0]
        if len(parts) > 1 or query.terms[0].weight < 0:
            # Each term counts by its own weight, however many variants it has.
            weights = [term.weight for term in query.terms]
            vector, _ = mean_pool(np.stack([vector for vector, _ in parts]), weights)
            agreement = min(agreement for _, agreement in parts)
        return _Asked(query, proposed, vector, agreement, clock, ran)

    def _variants(self, query: Query) -> tuple[tuple[Variant, ...], tuple[Ran, ...]]:
        """Those of all terms that are texts, in their order, and who was asked for them."""
        found: list[Variant] = []
        ran: list[Ran] = []
        languages = self.encoder.card.languages if self.fusion == AUTO else ()
        for at, term in enumerate(query.terms):
            if term.kind == TEXT:
                said, reports = proposals(term.value, self.expander, languages)
                found += [replace(variant, term=at) for variant in said]
                ran += reports
        return tuple(found), together(ran)

    def _part(
        self, query: Query, at: int, said: Sequence[Variant], vectors: Floats
    ) -> tuple[Floats, float]:
        """One term's vector and its variants' agreement."""
        term = query.terms[at]
        if term.kind == TEXT:
            rows = [row for row, variant in enumerate(said) if variant.term == at]
            fuse = FUSIONS[MEAN if self.fusion == AUTO else self.fusion]
            return fuse(vectors[rows], [said[row] for row in rows])
        if self.picture is None:
            raise BadQuery("query-no-pictures", path=term.value)
        return self.encoder.encode_images([self.picture(term.value)])[0], 1.0

    def _ask_image(self, image: Rgb, name: str, k: int) -> _Asked:
        _check_k(k)
        clock = _Clock()
        with clock.step("encode_ms"):
            vector = self.encoder.encode_images([image])[0]
        return _Asked(Query(name, (Term("image", name),)), (), vector, 1.0, clock)

    def _images(self, asked: _Asked, k: int, wanted: Wanted | None) -> SearchResult:
        narrowed = wanted.filter if wanted else None
        with asked.clock.step("search_ms"), self.store.snapshot():
            state = self.store.state()
            reference = self._reference(asked.query, state)
            alpha = strength(reference, self.correction, self.tuned.hubs)
            found = self._ranked(asked, corrected(asked.vector, reference, alpha), k, narrowed)
            ids, scores, cosines = found.ranking.ids.tolist(), found.ranking.scores, found.products
            rows = self.store.images(ids)
            if alpha:
                cosines = exact_scores(self.store.image_vectors(ids), asked.vector)
            among = self.store.count_images(narrowed) if narrowed and reference else state.images
        hits: list[Hit] = []
        for row, score, cosine in zip(rows, scores.tolist(), cosines.tolist(), strict=True):
            (path, *also), caption = row.paths, row.captions[0] if row.captions else ""
            sure = confidence(self.tuned.this, reference, cosine, among)
            hits.append(Hit(len(hits) + 1, score, cosine, path, tuple(also), caption, sure))
        if wanted:
            asked = replace(asked, query=replace(asked.query, filters=(wanted.text,)))
        best = max((hit.cosine for hit in hits), default=-1.0)
        sure = confidence(self.tuned.any, reference, best, among)
        result = self._result(asked, hits, state, "images")
        return replace(result, confidence=sure, correction=alpha, ranked_by=found.by)

    def _ranked(self, asked: _Asked, sought: Floats, k: int, where: Filter | None) -> Ranked:
        def products(ids: Ids) -> Floats:
            return exact_scores(self.store.image_vectors(ids.tolist()), sought)

        def said(text: str, k: int) -> Ranking:
            return self.store.search_text(text, k, where, exact=True)

        sources = Sources(lambda k: self.store.search_images(sought, k, where), said, products)
        return ranked(asked.query, asked.variants, sources, k, self.hybrid)

    def _reference(self, query: Query, state: IndexState) -> Reference | None:
        """What is known of the gallery's answers to texts; of those to pictures nothing is."""
        if any(term.kind != TEXT for term in query.terms):
            return None
        kept = self.store.recall(REFERENCE + state.space)
        return from_text(kept) if kept else None

    def _result(
        self, asked: _Asked, hits: list[Hit], state: IndexState, target: str
    ) -> SearchResult:
        return SearchResult(
            query=asked.query,
            variants=asked.variants,
            hits=tuple(hits),
            agreement=asked.agreement,
            fusion=self.fusion,
            vector=asked.vector,
            model=self.encoder.card,
            index_state=state,
            target=target,
            timings=asked.clock.timings,
            expanders=asked.ran,
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise BadQuery("query-k", k=k)
