"""A text as it is looked up: one width, one case, simplified; its language and its length."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencc import OpenCC

ZH, EN, MIXED = "zh", "en", "mixed"
WORD, PHRASE, SENTENCE = "word", "phrase", "sentence"

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff〇]")
_LATIN = re.compile(r"[A-Za-z]")
_PUNCTUATION = re.compile(r"[，。！？、；：,.!?;:\"“”'‘’()（）《》【】…~·\s]+")
# How many characters (Chinese) or words (otherwise) a word and a phrase have at most.
_LENGTHS = {ZH: (4, 9), EN: (2, 6)}


def normalized(text: str) -> str:
    """NFKC (full-width letters and digits become plain), lower case, punctuation as one space."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no letter
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _PUNCTUATION.sub(" ", plain).strip()


def simplified(text: str) -> str:
    """Traditional characters as simplified ones: 紅色汽車 → 红色汽车 (OpenCC)."""
    converted: str = _converter().convert(text)
    return converted


def language(text: str) -> str:
    """ "zh" for Chinese characters, "en" for none, "mixed" for both them and Latin letters."""
    if not _CHINESE.search(text):
        return EN
    return MIXED if _LATIN.search(text) else ZH


def length(text: str) -> str:
    """Whether ``text`` is as long as a word, a phrase or a sentence."""
    chinese = len(_CHINESE.findall(text))
    units = chinese if chinese else len(text.split())
    word, phrase = _LENGTHS[ZH if chinese else EN]
    return WORD if units <= word else PHRASE if units <= phrase else SENTENCE


def is_chinese(letter: str) -> bool:
    return _CHINESE.match(letter) is not None


@cache
def _converter() -> OpenCC:
    from opencc import OpenCC  # 10 ms that most queries need not pay

    return OpenCC("t2s")
