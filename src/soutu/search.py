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
from soutu.query.choose import AUTO, chosen
from soutu.query.expand import Expander, variants
from soutu.query.fuse import FUSIONS, MEAN, mean_pool
from soutu.query.hybrid import OFF, Ranked, Sources, ranked
from soutu.query.parse import TEXT, parse_query
from soutu.store.base import Searchable
from soutu.store.ranking import exact_scores
from soutu.types import (
    Floats,
    Hit,
    Ids,
    IndexState,
    Query,
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
    ``hybrid``: whether captions have a say in what a text finds (``query/hybrid.py``)."""

    encoder: Encoder
    store: Searchable
    expander: Expander | None = None
    picture: Callable[[str], Rgb] | None = None
    fusion: str = MEAN
    hybrid: str = OFF

    def search(self, text: str, k: int = 5, *, where: str | None = None) -> SearchResult:
        """The ``k`` images nearest to the query ``text`` (its language: ``query/parse.py``), of
        those that ``where`` admits (``query/where.py``). Raises BadQuery for a text that is no
        query, k < 1 or a malformed ``where``, BadImage for a picture in it."""
        wanted = parsed(where)
        return self._images(self._ask_text(text, k), k, wanted)

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
        hits = [
            _hit(rank, score, owners[row.image_id].paths, row.text)
            for rank, (row, score) in enumerate(zip(rows, ranking.scores, strict=True), 1)
        ]
        return self._result(asked, hits, state, "captions")

    def _ask_text(self, text: str, k: int) -> _Asked:
        _check_k(k)
        query = parse_query(text)
        clock = _Clock()
        with clock.step("expand_ms"):
            proposed = self._variants(query)
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
        return _Asked(query, proposed, vector, agreement, clock)

    def _variants(self, query: Query) -> tuple[Variant, ...]:
        """Those of all terms that are texts, in their order."""
        found: list[Variant] = []
        for at, term in enumerate(query.terms):
            if term.kind == TEXT:
                said: Sequence[Variant] = variants(term.value, self.expander)
                if self.fusion == AUTO:
                    said = chosen(said, self.encoder.card.languages)
                found += [replace(variant, term=at) for variant in said]
        return tuple(found)

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
            found = self._ranked(asked, k, narrowed)
            rows = self.store.images(found.ranking.ids.tolist())
            state = self.store.state()
        scores = zip(rows, found.ranking.scores, found.cosines, strict=True)
        hits = [
            replace(
                _hit(rank, cosine, row.paths, row.captions[0] if row.captions else ""),
                score=float(score),
            )
            for rank, (row, score, cosine) in enumerate(scores, 1)
        ]
        if wanted:
            asked = replace(asked, query=replace(asked.query, filters=(wanted.text,)))
        return replace(self._result(asked, hits, state, "images"), ranked_by=found.by)

    def _ranked(self, asked: _Asked, k: int, where: Filter | None) -> Ranked:
        def cosines(ids: Ids) -> Floats:
            return exact_scores(self.store.image_vectors(ids.tolist()), asked.vector)

        def said(text: str, k: int) -> Ranking:
            return self.store.search_text(text, k, where, exact=True)

        sources = Sources(lambda k: self.store.search_images(asked.vector, k, where), said, cosines)
        return ranked(asked.query, asked.variants, sources, k, self.hybrid)

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
        )


def _hit(rank: int, score: np.float32, paths: tuple[str, ...], caption: str) -> Hit:
    plain = float(score)  # nothing corrects scores yet: what ranks is the cosine itself
    return Hit(rank, plain, plain, paths[0], paths[1:], caption)


def _check_k(k: int) -> None:
    if k < 1:
        raise BadQuery("query-k", k=k)
