"""Where requests become searches: what they may name, and what is looked up for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soutu.encoders.batching import Batching
from soutu.errors import SoutuError
from soutu.gallery import Gallery
from soutu.query.parse import IMAGE, INDEXED, TEXT, format_query, parse_query
from soutu.query.where import parse_where
from soutu.search import Asking
from soutu.server.answers import Json, explained, plain
from soutu.server.problems import NotFound
from soutu.server.schemas import AskedTerm, SearchRequest
from soutu.sources.decode import decode
from soutu.store.base import ImageRow
from soutu.types import Query, Rgb, SearchResult, Term, Variant


class Desk:
    """Over one gallery; everything here may be called by many threads at once."""

    def __init__(self, gallery: Gallery, upload_pixels: int) -> None:
        self.gallery, self._pixels = gallery, upload_pixels

    def search(self, asked: SearchRequest, upload: bytes | None = None) -> Json:
        """The answer to ``asked``; ``upload``: a picture to search by."""
        self.gallery.notice()
        query: Query | Rgb = self._picture(upload) if upload is not None else self._query(asked)
        asking = self._asking(asked)
        found = self.gallery.find(query, asking)
        return self._plain(found, asked.offset, vector=asked.vector)

    def texts(self, asked: SearchRequest) -> list[str]:
        """What ``search`` will have the model encode that is not remembered, where that can be told
        at once and without a look into the index. Never raises: what is wrong, ``search`` says."""
        encoder = self.gallery.encoder
        terms = asked.terms or ()
        if not isinstance(encoder, Batching) or any(one.image_id is not None for one in terms):
            return []
        if asked.text is None and not terms:
            return []
        try:
            found = self.gallery.searcher.texts(self._query(asked), self._asking(asked))
        except SoutuError:
            return []
        return encoder.unknown(found)

    def captions(self, picture: int | bytes, k: int, *, vector: bool = False) -> Json:
        """The captions nearest to an indexed picture, or to an uploaded one."""
        self.gallery.notice()
        if isinstance(picture, bytes):
            found = self.gallery.captions(self._picture(picture), k=k)
        else:
            found = self.gallery.captions_of(self.row(picture).paths[0], k=k)
        return self._plain(found, 0, vector=vector)

    def explain(self, text: str, k: int) -> Json:
        self.gallery.notice()
        explanation = self.gallery.explain(_indexed(parse_query(text)), k=k)
        return explained(explanation, self._plain(explanation.result, 0))

    def row(self, id_: int) -> ImageRow:
        """The row of an image that has a path. NotFound for all others."""
        try:
            (row,) = self.gallery.store.images([id_])
        except (KeyError, OverflowError):
            row = None
        if row is None or not row.paths:
            raise NotFound("server-no-image", id=id_)
        return row

    def _asking(self, asked: SearchRequest) -> Asking:
        variants = asked.variants and tuple(
            Variant(one.text, one.weight, term=one.term) for one in asked.variants
        )
        return Asking(
            asked.k,
            asked.offset,
            asked.where,
            self.gallery.threshold(asked.min_confidence),
            None if asked.variants is None else variants or (),
            asked.expand,
        )

    def _query(self, asked: SearchRequest) -> Query:
        if asked.text is not None:
            return _indexed(parse_query(asked.text))
        if asked.image_id is not None:
            return parse_as([Term(INDEXED, self.row(asked.image_id).paths[0])])
        made = [self._term(term) for term in asked.terms or ()]
        # What is written to the log reads as what could have been typed.
        return parse_as(made)

    def _term(self, term: AskedTerm) -> Term:
        if term.image_id is None:
            return Term(TEXT, term.text or "", term.weight)
        return Term(INDEXED, self.row(term.image_id).paths[0], term.weight)

    def _picture(self, upload: bytes) -> Rgb:
        return decode(upload, max_pixels=self._pixels, shown="(upload)").rgb

    def _plain(self, found: SearchResult, offset: int, *, vector: bool = False) -> Json:
        store = self.gallery.store
        ids = [hit.id for hit in found.hits] if found.target == "images" else []
        try:
            rows = {row.id: row for row in store.images(ids)}
        except KeyError:  # compacted a moment ago
            rows = {}
        more = len(found.hits) == found.k and offset + found.k < self._admitted(found)
        return plain(found, rows, {"offset": offset, "more": more, "vector": vector})

    def _admitted(self, found: SearchResult) -> int:
        state = found.index_state
        if found.target == "captions":
            return state.captions
        filters = found.query.filters
        return self.gallery.store.count_images(parse_where(filters[0])) if filters else state.images


def parse_as(terms: Sequence[Term]) -> Query:
    """A query of these terms, in the words that say them; BadQuery where none speaks for
    anything."""
    raw = format_query(tuple(terms))
    parse_query(raw)
    return Query(raw, tuple(terms))


def _indexed(query: Query) -> Query:
    """``query``, whose pictures are those of the gallery: no file is opened by a name that came
    from elsewhere."""
    terms = tuple(
        replace(term, kind=INDEXED, value=term.value.removeprefix("./"))
        if term.kind == IMAGE
        else term
        for term in query.terms
    )
    return replace(query, terms=terms)
