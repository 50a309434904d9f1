"""Chinese and English texts: normalise them, cut them into pieces, tell language and length."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opencc import OpenCC

ZH, EN, MIXED = "zh", "en", "mixed"
WORD, PHRASE, SENTENCE = "word", "phrase", "sentence"
MAX_PIECE_LENGTH = 64  # letters of a word that count

CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff〇]")

Piece: TypeAlias = tuple[str, ...]
"""A run of Chinese characters, one by one; or one word, number or emoji."""

_LATIN = re.compile(r"[A-Za-z]")
# How many characters (Chinese) or words (otherwise) a word and a phrase have at most.
_MAX_UNITS = {ZH: (4, 9), EN: (2, 6)}
_PUNCTUATION = re.compile(r"[，。！？、；：,.!?;:\"“”'‘’()（）《》【】…~·\s]+")
# Scripts that are written without spaces: Chinese characters, those beyond the first plane, kana.
_RUN = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"([{_RUN}]+)|((?:(?![{_RUN}])[^\W_])+)|([^\x00-\x7f\s])")
# GB 2312 is the standard of simplified characters; of its 6,763 OpenCC converts these.
_CONVERTED = frozenset("乾菸薹拚捱摺吒後徵夥榘於袷麴醣麽")


def language(text: str) -> str:
    """Tell "zh" for Chinese characters, "en" for none, "mixed" for both them and Latin letters."""
    if not CHINESE.search(text):
        return EN
    return MIXED if _LATIN.search(text) else ZH


def length(text: str) -> str:
    """Tell whether ``text`` is as long as a word, a phrase or a sentence."""
    chinese = len(CHINESE.findall(text))
    units = chinese if chinese else len(text.split())
    word, phrase = _MAX_UNITS[ZH if chinese else EN]
    return WORD if units <= word else PHRASE if units <= phrase else SENTENCE


def sentence_share(text: str) -> float:
    """Return how much of a sentence a text is: 0 a word, ½ a phrase, 1 a sentence.

    Probe texts are words and phrases; sentences reach higher cosines, right or wrong.
    """
    return {WORD: 0.0, PHRASE: 0.5, SENTENCE: 1.0}[length(text)]


def pieces(text: str) -> Iterator[Piece]:
    """Cut a text into pieces, normalised and simplified: 紅色car → (红, 色), (car,).

    Punctuation falls away. No piece holds ASCII other than lower-case letters and digits.
    """
    text = normalize(text)
    if CHINESE.search(text):
        text = simplify(text)
    for run, word, symbol in _PIECE.findall(text):
        if run:
            yield tuple(run)
        elif word:
            yield (word[:MAX_PIECE_LENGTH],)
        elif unicodedata.category(symbol) == "So":  # emoji; not joiners, not punctuation
            yield (symbol,)


def is_text(text: str) -> bool:
    """Whether ``text`` has a UTF-8 form: lone surrogates stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def repair_text(text: str) -> str:
    """Decode what a locale without UTF-8 left undecoded; the rest stays as it is."""
    if is_text(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return text


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by question marks, as no tokenizer takes them."""
    return text.encode("utf-8", "replace").decode()


def normalize(text: str) -> str:
    """Apply NFKC (full-width letters become plain), fold case, make punctuation one space."""
    plain = unicodedata.normalize("NFKC", replace_surrogates(text)).casefold()
    return _PUNCTUATION.sub(" ", plain).strip()


def simplify(text: str) -> str:
    """Convert traditional characters to simplified ones: 紅色汽車 → 红色汽车 (OpenCC)."""
    if _is_simplified(text):
        return text
    converted: str = _converter().convert(text)
    return converted


def _is_simplified(text: str) -> bool:
    """Tell without OpenCC, whose loading costs 10 ms, that nothing is to be converted."""
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return not _CONVERTED & set(text)


@cache
def _converter() -> OpenCC:
    from opencc import OpenCC

    return OpenCC("t2s")
