"""Query expansion: one text becomes several, each with a weight and its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from soutu.query.compose import compose, listed
from soutu.query.lexicon import Lexicon, Sense, Token, built_in
from soutu.query.normalize import EN, language, normalized, simplified
from soutu.types import Variant

ORIGINAL, RULES, LEXICON, TRANSLATION = "original", "rules", "lexicon", "translation"
MOST = 12  # variants of one term
_LONGEST = 100  # characters; a longer text says more than a dictionary can repeat
_ENOUGH = 0.5  # of a phrase's characters must be known for its English to be worth saying
_PER_SENSE = 3


@dataclass(frozen=True)
class Weights:
    """What the lexicon's variants count beside its first rendering, 1: senses after the first
    (``later``), what the words say without grammar (``listed``), other Chinese words."""

    later: float = 0.5
    listed: float = 0.5
    synonym: float = 0.5


WEIGHTS = Weights()


class Expander(Protocol):
    """Proposes further texts for a query. One contract suite runs over all of them."""

    @property
    def name(self) -> str:
        """What it is called where its cost and its faults are shown."""
        ...

    def expand(self, text: str) -> list[Variant]:
        """What else to search for, best first; empty when there is nothing to add. The same
        text gives the same answer; every variant has text, a weight above 0 and a source. What
        depends on anything outside may raise a SoutuError."""
        ...


@dataclass(frozen=True)
class RuleExpander:
    """Looks the whole query up in a table of rules; the table says where each came from."""

    rules: Mapping[str, Sequence[Variant]]
    name: ClassVar[str] = RULES

    def expand(self, text: str) -> list[Variant]:
        return list(self.rules.get(text.strip(), ()))


@dataclass(frozen=True)
class LexiconExpander:
    """Says Chinese in English, word by word or as a caption, and with other Chinese words."""

    own: Lexicon | None = None  # None: the package's, read when it is first needed
    weights: Weights = WEIGHTS
    name: ClassVar[str] = LEXICON

    @property
    def lexicon(self) -> Lexicon:
        return self.own or built_in()

    def expand(self, text: str) -> list[Variant]:
        if language(text) == EN or len(text) > _LONGEST:
            return []
        word, tokens = self.understood(text)
        if senses := self.lexicon.lookup(word):
            return list(_renderings(word, senses, self.weights))
        if self.lexicon.covers(tokens) < _ENOUGH or not any(token.senses for token in tokens):
            return []
        said = (compose(tokens), 1.0), (listed(tokens), self.weights.listed)
        return [Variant(caption, weight, LEXICON) for caption, weight in said if caption]

    def understood(self, text: str) -> tuple[str, list[Token]]:
        """The text as it is known best: as it stands, or in simplified characters."""
        word = normalized(text)
        tokens = self.lexicon.segment(word)
        if self.lexicon.lookup(word) or self.lexicon.covers(tokens) == 1:
            return word, tokens
        word = simplified(word)
        return word, self.lexicon.segment(word)


def _renderings(word: str, senses: Sequence[Sense], weights: Weights) -> Iterator[Variant]:
    """English by sense, the most common first and heaviest, then other Chinese words."""
    for place, sense in enumerate(senses):
        source = f"{LEXICON}:{sense.label}" if sense.label else LEXICON
        for english in sense.english[:_PER_SENSE]:
            yield Variant(english, weights.later if place else 1.0, source)
    for synonym in (senses[0].word, *senses[0].synonyms)[: _PER_SENSE - 1]:
        if synonym != word:
            yield Variant(synonym, weights.synonym, LEXICON)


def distinct(found: Iterable[Variant]) -> list[Variant]:
    """Each text once, as it was first said; models fold case."""
    kept: dict[str, Variant] = {}
    for variant in found:
        kept.setdefault(variant.text.casefold(), variant)
    return list(kept.values())


def variants(text: str, expander: Expander | None) -> tuple[Variant, ...]:
    """The original query first, then what the expander proposes, without repeats."""
    original = Variant(text.strip())
    return tuple(distinct((original, *(expander.expand(original.text) if expander else ()))))
