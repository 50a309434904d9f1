"""A text's language and its length; and, from ``soutu.text``, the text as it is looked up."""

from __future__ import annotations

import re

from soutu.text import CHINESE, is_chinese, normalized, simplified

__all__ = [
    "EN",
    "MIXED",
    "PHRASE",
    "SENTENCE",
    "WORD",
    "ZH",
    "is_chinese",
    "language",
    "length",
    "normalized",
    "simplified",
]

ZH, EN, MIXED = "zh", "en", "mixed"
WORD, PHRASE, SENTENCE = "word", "phrase", "sentence"

_LATIN = re.compile(r"[A-Za-z]")
# How many characters (Chinese) or words (otherwise) a word and a phrase have at most.
_LENGTHS = {ZH: (4, 9), EN: (2, 6)}


def language(text: str) -> str:
    """ "zh" for Chinese characters, "en" for none, "mixed" for both them and Latin letters."""
    if not CHINESE.search(text):
        return EN
    return MIXED if _LATIN.search(text) else ZH


def length(text: str) -> str:
    """Whether ``text`` is as long as a word, a phrase or a sentence."""
    chinese = len(CHINESE.findall(text))
    units = chinese if chinese else len(text.split())
    word, phrase = _LENGTHS[ZH if chinese else EN]
    return WORD if units <= word else PHRASE if units <= phrase else SENTENCE
