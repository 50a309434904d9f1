"""Which of the proposed variants are searched for. A model that reads no Chinese makes noise of it,
and one that does needs no dictionary: on drawn scenes the first found 0.31 of its words' pictures
at rank 1 with English alone and 0.18 with the Chinese mixed in; the second lost 0.09 to 0.22
with English mixed in (benchmarks/results/expansion.json)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soutu.query.expand import LEXICON
from soutu.query.normalize import EN, ZH, language
from soutu.types import Variant

AUTO = "auto"
NOT_READ = "not-read"  # the model was not trained on that language
NOT_NEEDED = "not-needed"  # the model reads the query as it stands


def chosen(said: Sequence[Variant], languages: Sequence[str]) -> tuple[Variant, ...]:
    """``said`` (the variants of one term, the original first), those not to be searched for marked
    with the reason. ``languages`` are those the model reads; none: not known, all count.
    At least one is left."""
    if not languages:
        return tuple(said)
    reads = [(EN if language(variant.text) == EN else ZH) in languages for variant in said]
    if reads[0]:  # rules are what somebody asked for; a dictionary only helps out
        return tuple(
            replace(v, unused=NOT_NEEDED) if v.source.startswith(LEXICON) else
            v if read else replace(v, unused=NOT_READ)
            for v, read in zip(said, reads, strict=True)
        )  # fmt: skip
    if not any(reads):
        return tuple(said)
    return tuple(
        v if read else replace(v, unused=NOT_READ) for v, read in zip(said, reads, strict=True)
    )
