"""A text's language and its length; and, from ``soutu.text``, the text as it is looked up."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opencc import OpenCC

# A text as it is looked up: one width, one case, simplified characters; and cut into pieces.


Piece: TypeAlias = tuple[str, ...]
"""A run of Chinese characters, one by one; or one word, number or emoji."""

_CONVERTED = frozenset("乾菸薹拚捱摺吒後徵夥榘於袷麴醣麽")
LONGEST = 64  # letters of a word that count

CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff〇]")
_PUNCTUATION = re.compile(r"[，。！？、；：,.!?;:\"“”'‘’()（）《》【】…~·\s]+")

# Scripts that are written without spaces: Chinese characters, those beyond the first plane, kana.
_RUN = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"([{_RUN}]+)|((?:(?![{_RUN}])[^\W_])+)|([^\x00-\x7f\s])")


def normalized(text: str) -> str:
    """NFKC (full-width letters and digits become plain), lower case, punctuation as one space."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no letter
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _PUNCTUATION.sub(" ", plain).strip()


def simplified(text: str) -> str:
    """Traditional characters as simplified ones: 紅色汽車 → 红色汽车 (OpenCC)."""
    if _is_simplified(text):
        return text
    converted: str = _converter().convert(text)
    return converted


def is_chinese(letter: str) -> bool:
    return CHINESE.match(letter) is not None


def pieces(text: str) -> Iterator[Piece]:
    """``text``, normalised and simplified, in pieces: 紅色car → (红, 色), (car,). Punctuation falls
    away. No piece holds ASCII other than lower-case letters and digits."""
    text = normalized(text)
    if CHINESE.search(text):
        text = simplified(text)
    for found in _PIECE.finditer(text):
        run, word, sign = found.groups()
        if run:
            yield tuple(run)
        elif word:
            yield (word[:LONGEST],)
        elif unicodedata.category(sign) == "So":  # emoji; not their joiners, not what punctuates
            yield (sign,)


def _is_simplified(text: str) -> bool:
    """Whether nothing in it is to be converted, told without OpenCC, whose loading costs 10 ms.
    GB 2312 is the standard of simplified characters; of its 6,763 OpenCC converts these."""
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return not _CONVERTED & set(text)


@cache
def _converter() -> OpenCC:
    from opencc import OpenCC  # 10 ms that most queries need not pay

    return OpenCC("t2s")


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
