"""Query expansion: one text becomes several, each with a weight and its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from soutu.types import Variant


class Expander(Protocol):
    """Proposes further texts for a query. One contract suite runs over all of them."""

    def expand(self, text: str) -> list[Variant]:
        """What else to search for, best first; empty when there is nothing to add. The same
        text gives the same answer; every variant has text, a weight above 0 and a source."""
        ...


@dataclass(frozen=True)
class RuleExpander:
    """Looks the whole query up in a table of rules; the table says where each came from."""

    rules: Mapping[str, Sequence[Variant]]

    def expand(self, text: str) -> list[Variant]:
        return list(self.rules.get(text.strip(), ()))


def variants(text: str, expander: Expander | None) -> tuple[Variant, ...]:
    """The original query first, then what the expander proposes, without repeats."""
    original = Variant(text.strip())
    seen, kept = {original.text}, [original]
    for proposed in expander.expand(original.text) if expander else ():
        if proposed.text not in seen:
            seen.add(proposed.text)
            kept.append(proposed)
    return tuple(kept)
