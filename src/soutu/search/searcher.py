"""Search: text → images, image → images, image → captions, over any store and encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from soutu.encoders.base import Encoder
from soutu.errors import BadQuery
from soutu.filters import Compare, Filter
from soutu.query.choose import AUTO, CHOSEN
from soutu.query.confidence import confidence
from soutu.query.expand import Expander
from soutu.query.fuse import FUSIONS, MEAN, SENSES, Fusion, by_sense
from soutu.query.hubs import OFF, corrected, strength
from soutu.query.hybrid import Ranked, Sources, ranked
from soutu.query.parse import INDEXED, TEXT, format_query, parse_query
from soutu.query.sought import CLEAR, PENALTY, SUBTRACT, Sought
from soutu.query.standing import REFERENCE, Reference, from_text
from soutu.query.tuned import UNTUNED, Tuned
from soutu.search.asked import (
    Asked,
    Asking,
    Clock,
    Wanted,
    checked,
    parsed,
    pooled,
    sure_enough,
)
from soutu.search.said import is_at_hand, said
from soutu.store.base import Searchable
from soutu.types import (
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


@dataclass(frozen=True)
class Searcher:
    """Searches ``store`` with ``encoder``. ``expander`` None searches the query alone;
    ``picture`` opens the pictures that a query names, as RGB uint8 (h, w, 3). ``fusion`` is a name
    in ``query.fuse.FUSIONS``, or "auto": the mean of the variants that ``query.choose`` chooses.
    ``correction`` of hubs: "auto", "on" or "off" (``query/hubs.py``).
    ``hybrid``: whether captions have a say in what a text finds (``query/hybrid.py``).
    ``negatives``: whether a term with a minus penalises what is shown of it, which takes a gallery
    that was measured, or subtracts (``query/sought.py``).
    ``tuned``: how much is corrected, and what confidence is made of (``query/tuned.py``)."""

    encoder: Encoder
    store: Searchable
    expander: Expander | None = None
    picture: Callable[[str], Rgb] | None = None
    fusion: str = MEAN
    correction: str = OFF
    hybrid: str = OFF
    negatives: str = SUBTRACT
    tuned: Tuned = UNTUNED

    def search(
        self, text: str, k: int = 5, *, where: str | None = None, min_confidence: float = 0.0
    ) -> SearchResult:
        """The ``k`` images nearest to the query ``text`` (its language: ``query/parse.py``), of
        those that ``where`` admits (``query/where.py``); none where the result's confidence is
        known and below ``min_confidence``, and no caption says the text. Raises BadQuery for a
        text that is no query, k < 1 or a malformed ``where``, BadImage for a picture in it."""
        return self.find(parse_query(text), Asking(k, 0, where, min_confidence))

    def find(self, query: Query, asking: Asking) -> SearchResult:
        """The images nearest to ``query``, as ``search``. Raises BadQuery also for variants of a
        term that has none, and for an indexed picture that is not in the store."""
        checked(asking)
        wanted = parsed(asking.where)
        found = self._images(self._ask(query, asking), asking, wanted)
        return sure_enough(found, asking.min_confidence)

    def search_by_image(
        self, image: Rgb, name: str, k: int = 5, *, where: str | None = None
    ) -> SearchResult:
        """The ``k`` images nearest to a picture, uint8 (h, w, 3); ``name`` is what to log."""
        return self.find_by_image(image, name, Asking(k, 0, where))

    def find_by_image(self, image: Rgb, name: str, asking: Asking) -> SearchResult:
        """As ``search_by_image``; of ``asking`` what concerns texts alone is left aside."""
        checked(asking)
        wanted = parsed(asking.where)
        return self._images(self._ask_image(image, name), asking, wanted)

    def captions(self, image: Rgb, name: str, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to a picture, uint8 (h, w, 3)."""
        checked(Asking(k))
        return self._captions(self._ask_image(image, name), k)

    def captions_of(self, path: str, k: int = 5) -> SearchResult:
        """The ``k`` captions nearest to an indexed picture. Raises BadQuery where it is none."""
        checked(Asking(k))
        vector, query = self._indexed(path), Query(path, (Term(INDEXED, path),))
        return self._captions(Asked(query, (), vector, 1.0, Clock()), k)

    def again(self, asked: SearchResult) -> SearchResult:
        """The search that gave ``asked``, by its vector and with its variants: nothing is encoded.
        Of ``asked`` the hits and all that is known of them are found anew."""
        checked(Asking(asked.k))
        query = replace(asked.query, filters=())
        said = query, asked.variants, asked.vector, asked.agreement
        more = {"senses": asked.senses, "penalties": asked.penalties}
        by = Asked(*said, Clock(), asked.expanders, **more)  # type: ignore[arg-type]
        if asked.target == "captions":
            return self._captions(by, asked.k)
        wanted = parsed(" ".join(asked.query.filters))
        return sure_enough(self._images(by, Asking(asked.k), wanted), asked.min_confidence)

    def _captions(self, asked: Asked, k: int) -> SearchResult:
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
        asked = self._ask(Query(format_query(terms), terms), Asking())
        return asked.vector, asked.variants

    def texts(self, query: Query, asking: Asking) -> list[str]:
        """What ``find`` will have the model encode, where that can be told at once: nothing where
        somebody else is to be asked for variants first."""
        if asking.expand and not is_at_hand(self.expander):
            return []
        proposed, _ = said(query, asking, self.expander, self._languages)
        return [variant.text for variant in proposed if not variant.unused]

    @property
    def _languages(self) -> Sequence[str]:
        """Those that the model reads, where only what it reads is to be searched for."""
        return self.encoder.card.languages if self.fusion in (AUTO, SENSES) else ()

    def _ask(self, query: Query, asking: Asking) -> Asked:
        clock = Clock()
        with clock.step("expand_ms"):
            proposed, ran = said(query, asking, self.expander, self._languages)
            used = [variant for variant in proposed if not variant.unused]
        with clock.step("encode_ms"):
            vectors = self.encoder.encode_texts([v.text for v in used])
            fuse = FUSIONS[
                MEAN if self.fusion == AUTO or asking.variants is not None else self.fusion
            ]
            parts = [self._part(query, at, used, vectors, fuse) for at in range(len(query.terms))]
        terms = np.stack([vector for vector, _ in parts])
        agreement = min(agreement for _, agreement in parts)
        apart = self.fusion == SENSES and len(parts) == 1 and asking.variants is None
        senses = by_sense(vectors, used) if apart and used else None
        fusion = self.fusion if asking.variants is None else CHOSEN
        vector = pooled(query, terms)
        return Asked(query, proposed, vector, agreement, clock, ran, terms, senses, fusion=fusion)

    def _part(
        self, query: Query, at: int, said: Sequence[Variant], vectors: Floats, fuse: Fusion
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
        any_ = np.eye(1, self.encoder.card.dim, dtype=np.float32)[0]
        with self.store.snapshot():
            found = self.store.search_images(any_, 1, Compare("path", "=", path)).ids.tolist()
            if not found:
                raise BadQuery("query-not-indexed", path=path)
            vector: Floats = self.store.image_vectors(found)[0]
        return vector

    def _ask_image(self, image: Rgb, name: str) -> Asked:
        clock = Clock()
        with clock.step("encode_ms"):
            vector = self.encoder.encode_images([image])[0]
        return Asked(Query(name, (Term("image", name),)), (), vector, 1.0, clock)

    def _images(self, asked: Asked, asking: Asking, wanted: Wanted | None) -> SearchResult:
        narrowed = wanted.filter if wanted else None
        with asked.clock.step("search_ms"), self.store.snapshot():
            state = self.store.state()
            reference = self._reference(state)
            asked, penalties = self._penalised(asked, reference, state)
            if any(term.kind != TEXT for term in asked.query.terms):
                reference = None  # it tells of texts alone
            alpha = strength(reference, self.correction, self.tuned.hubs)
            vectors = asked.vector[None] if asked.senses is None else asked.senses
            sought = Sought(corrected(vectors, reference, alpha), penalties)
            found = self._ranked(asked, sought, asking.offset + asking.k, narrowed)
            page = slice(asking.offset, None)
            ids, scores = found.ranking.ids[page].tolist(), found.ranking.scores[page]
            rows = self.store.images(ids)
            # Whether anything is there is for what is seen to say, whatever captions lifted.
            near, first = found.nearest.ids[: asking.k], found.nearest.scores[: asking.k]
            cosines, plain = found.products[page], Sought(vectors)
            if alpha or penalties:
                first = plain.scores(self.store.image_vectors(near.tolist()))
                cosines = plain.scores(self.store.image_vectors(ids))
            among = self.store.count_images(narrowed) if narrowed and reference else state.images
        hits: list[Hit] = []
        for row, score, cosine in zip(rows, scores.tolist(), cosines.tolist(), strict=True):
            (path, *also), caption = row.paths, row.captions[0] if row.captions else ""
            sure = confidence(self.tuned.this, reference, cosine, among)
            rank = asking.offset + len(hits) + 1
            hits.append(Hit(rank, score, cosine, path, tuple(also), caption, sure, row.id))
        if wanted:
            asked = replace(asked, query=replace(asked.query, filters=(wanted.text,)))
        sure = confidence(self.tuned.any, reference, max(first.tolist(), default=-1.0), among)
        result = self._result(asked, hits, state, "images")
        named = reference.name if reference else ""
        told = replace(result, confidence=sure, correction=alpha, ranked_by=found.by, k=asking.k)
        return replace(told, penalties=penalties, senses=asked.senses, reference=named)

    def _penalised(
        self, asked: Asked, reference: Reference | None, state: IndexState
    ) -> tuple[Asked, tuple[Penalty, ...]]:
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
        return replace(asked, vector=pooled(kept, asked.terms[rest])), tuple(penalties)

    def _ranked(self, asked: Asked, sought: Sought, k: int, where: Filter | None) -> Ranked:
        def vectors(ids: Ids) -> Floats:
            return self.store.image_vectors(ids.tolist())

        def products(ids: Ids) -> Floats:
            return sought.scores(vectors(ids))

        def nearest(vector: Floats, k: int) -> Ranking:
            return self.store.search_images(vector, k, where)

        def said(text: str, k: int) -> Ranking:
            return self.store.search_text(text, k, where, exact=True)

        sources = Sources(lambda k: sought.best(k, nearest, vectors), said, products)
        return ranked(asked.query, asked.variants, sources, k, self.hybrid)

    def _reference(self, state: IndexState) -> Reference | None:
        """What is known of the gallery's answers to texts."""
        kept = self.store.recall(REFERENCE + state.space)
        return from_text(kept) if kept else None

    def _result(
        self, asked: Asked, hits: list[Hit], state: IndexState, target: str
    ) -> SearchResult:
        return SearchResult(
            query=asked.query,
            variants=asked.variants,
            hits=tuple(hits),
            agreement=asked.agreement,
            fusion=asked.fusion or self.fusion,
            vector=asked.vector,
            model=self.encoder.card,
            index_state=state,
            target=target,
            timings=asked.clock.timings,
            expanders=asked.ran,
        )
