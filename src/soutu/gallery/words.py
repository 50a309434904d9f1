"""Looking words up as a gallery's searches understand them, and adding one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soutu.assemble import own_words
from soutu.query.compose import compose
from soutu.query.expand import LexiconExpander
from soutu.query.lexicon import Sense
from soutu.query.own_words import add_word, load_lexicon


@dataclass(frozen=True)
class Looked:
    """``senses`` of a word that is known as a whole; else the ``words`` that a text was cut into
    and the English ``caption`` made of them ("" where nothing is known)."""

    senses: tuple[Sense, ...]
    words: tuple[str, ...]
    caption: str


def look_up(home: Path, text: str) -> Looked:
    file = own_words(home)
    expander = LexiconExpander(load_lexicon(file) if file.is_file() else None)
    word, tokens = expander.understood(text)
    words = tuple(token.text for token in tokens)
    return Looked(expander.lexicon.lookup(word), words, compose(tokens))


def add(home: Path, word: str, english: list[str]) -> Path:
    """Teach the gallery at ``home`` a word; returns the file it was written to."""
    file = own_words(home)
    add_word(file, word, english)
    return file
