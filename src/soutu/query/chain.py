"""All expanders together: asked in turn, chosen from, capped; one that fails is only reported."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from soutu.errors import SoutuError
from soutu.query.choose import TOO_MANY, chosen
from soutu.query.expand import MOST, Expander, distinct
from soutu.query.templates import Templates
from soutu.types import Ran, Variant


@dataclass(frozen=True)
class Chain:
    """Of ``first``, the first that has something to say is heard, so that a rule of one's own
    takes the place of the lexicon; all of ``further`` are asked as well. ``templates`` are laid
    over what is searched for."""

    first: Sequence[Expander]
    further: Sequence[Expander] = ()
    templates: Templates | None = None
    name: ClassVar[str] = "chain"

    def expand(self, text: str) -> list[Variant]:
        said, _ = proposals(text, self)
        return [variant for variant in said[1:] if not variant.unused]

    def ask(self, text: str) -> tuple[list[Variant], list[Ran]]:
        """All that is proposed for ``text``, and how asking went. Never raises."""
        found: list[Variant] = []
        ran: list[Ran] = []
        for expander in self.first:
            proposed, report = _asked(expander, text)
            found += proposed
            ran.append(report)
            if proposed:
                break
        for expander in self.further:
            proposed, report = _asked(expander, text)
            found += proposed
            ran.append(report)
        return found, ran


def proposals(
    text: str, expander: Expander | None, languages: Sequence[str] = ()
) -> tuple[tuple[Variant, ...], tuple[Ran, ...]]:
    """The variants of one term, the original first and each text once, and the expanders that were
    asked. What is not to be searched for is marked with the reason: ``languages`` are those that
    the model reads (none: not known, all count), and at most ``MOST`` are added to the original."""
    chain = expander if isinstance(expander, Chain) else Chain((expander,) if expander else ())
    original = Variant(text.strip())
    found, ran = chain.ask(original.text)
    said = _capped(chosen(distinct((original, *found)), languages))
    if chain.templates:
        said, report = _prompted(said, chain.templates)
        ran.append(report)
    return tuple(said), tuple(ran)


def together(reports: Iterable[Ran]) -> tuple[Ran, ...]:
    """One report for each expander, over all the terms that it was asked for."""
    found: dict[str, Ran] = {}
    for ran in reports:
        if known := found.get(ran.name):
            ms, proposed = round(known.ms + ran.ms, 3), known.proposed + ran.proposed
            ran = Ran(ran.name, ms, proposed, known.fault or ran.fault)
        found[ran.name] = ran
    return tuple(found.values())


def _asked(expander: Expander, text: str) -> tuple[list[Variant], Ran]:
    start, fault = time.perf_counter(), None
    proposed: list[Variant] = []
    try:
        proposed = expander.expand(text)
    except SoutuError as wrong:
        fault = wrong
    except Exception as wrong:  # a search must not depend on what only helps it
        told = " ".join(f"{type(wrong).__name__}: {wrong}".split())
        fault = SoutuError("expander-broke", fault=told[:200])
    return proposed, Ran(expander.name, _since(start), len(proposed), fault)


def _capped(said: Sequence[Variant]) -> list[Variant]:
    """The heaviest are kept, the earlier of equals; the original always."""
    used = [at for at, variant in enumerate(said) if at and not variant.unused]
    beyond = set(sorted(used, key=lambda at: -said[at].weight)[MOST:])
    return [replace(v, unused=TOO_MANY) if at in beyond else v for at, v in enumerate(said)]


def _prompted(said: list[Variant], templates: Templates) -> tuple[list[Variant], Ran]:
    """Each variant that is searched for, while there is room, shares its weight with its
    templates: what templates a variant has does not change how much it counts."""
    start, added = time.perf_counter(), 0
    known = {variant.text.casefold() for variant in said}
    room = MOST - sum(not variant.unused for variant in said[1:])
    kept: list[Variant] = []
    for variant in said:
        new = [] if variant.unused else templates.expand(variant.text)
        new = [one for one in distinct(new) if one.text.casefold() not in known]
        if not new or len(new) > room:
            kept.append(variant)
            continue
        share = variant.weight / (len(new) + 1)
        kept += (replace(one, weight=share) for one in (variant, *new))
        known |= {one.text.casefold() for one in new}
        room -= len(new)
        added += len(new)
    return kept, Ran(templates.name, _since(start), added)


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
