"""Which of the proposed variants are searched for.

A model that reads no Chinese makes noise of it: on drawn scenes and hand-written words ``tiny-en``
had a right picture among the first ten for 0.94 with English alone and for 0.70 with the Chinese
mixed in. One that reads Chinese may lose by English: ``tiny`` found the first picture for 0.84
instead of 0.90 of the words, 0.80 instead of 0.89 of the phrases it was trained to understand
(and for 0.87 instead of 0.63 of hand-written words, many of which it has never seen). What is on by
default must not harm, so there the lexicon is left aside; ``fusion: mean`` takes everything
(benchmarks/results/expansion.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soutu.query.expand import LEXICON, ORIGINAL, TRANSLATION
from soutu.query.normalize import EN, ZH, language
from soutu.types import Variant

AUTO = "auto"
NOT_READ = "not-read"  # the model was not trained on that language
NOT_NEEDED = "not-needed"  # the model reads the query as it stands
TOO_MANY = "too-many"  # others weigh more
SWITCHED_OFF = "switched-off"  # a person has chosen others
CHOSEN = "chosen"  # the source of what a person added, and a way to fuse: what was chosen, weighed


def by_hand(said: Sequence[Variant], wanted: Sequence[Variant]) -> tuple[Variant, ...]:
    """``said``, the variants of all terms, as a person ``wanted`` them: just those, with their
    weights, and the others switched off; what nobody had proposed comes last. A term of which
    nothing is wanted keeps its own text."""
    weights = {(one.term, one.text): one.weight for one in wanted}
    terms = {one.term for one in wanted}
    found = [
        replace(one, weight=weights.pop((one.term, one.text)), unused="")
        if (one.term, one.text) in weights
        else one
        if one.term not in terms and not one.unused and one.source == ORIGINAL
        else replace(one, unused=one.unused or SWITCHED_OFF)
        for one in said
    ]
    added = (Variant(text, weight, CHOSEN, term) for (term, text), weight in weights.items())
    return (*found, *added)


def chosen(said: Sequence[Variant], languages: Sequence[str]) -> tuple[Variant, ...]:
    """``said`` (the variants of one term, the original first), those not to be searched for marked
    with the reason. ``languages`` are those the model reads; none: not known, all count.
    At least one is left."""
    if not languages:
        return tuple(said)
    reads = [(EN if language(variant.text) == EN else ZH) in languages for variant in said]
    if reads[0]:  # rules are what somebody asked for; a translation only helps out
        return tuple(
            replace(v, unused=NOT_NEEDED) if v.source.startswith((LEXICON, TRANSLATION)) else
            v if read else replace(v, unused=NOT_READ)
            for v, read in zip(said, reads, strict=True)
        )  # fmt: skip
    if not any(reads):
        return tuple(said)
    return tuple(
        v if read else replace(v, unused=NOT_READ) for v, read in zip(said, reads, strict=True)
    )
