"""What a query says: the variants of its terms, before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soutu.query.chain import Chain, proposals, together
from soutu.query.choose import by_hand
from soutu.query.expand import Expander
from soutu.query.parse import TEXT
from soutu.search.asked import Asking, checked_variants
from soutu.types import Query, Ran, Variant


def said(
    query: Query, asking: Asking, expander: Expander | None, languages: Sequence[str]
) -> tuple[tuple[Variant, ...], tuple[Ran, ...]]:
    """The variants of all terms that are texts, in their order, those that are not to be searched
    for marked with the reason; and who was asked for them. ``languages``: those that the model
    reads (``query/chain.py``). BadQuery for chosen variants of a term that has none."""
    found: list[Variant] = []
    ran: list[Ran] = []
    for at, term in enumerate(query.terms):
        if term.kind == TEXT:
            of_term, reports = proposals(term.value, expander if asking.expand else None, languages)
            found += [replace(variant, term=at) for variant in of_term]
            ran += reports
    if asking.variants is None:
        return tuple(found), together(ran)
    return by_hand(found, checked_variants(query, asking.variants)), together(ran)


def is_at_hand(expander: Expander | None) -> bool:
    """Whether it answers at once: nobody outside is asked, and no other model."""
    return not (isinstance(expander, Chain) and expander.further)
