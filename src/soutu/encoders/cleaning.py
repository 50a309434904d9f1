"""How texts were prepared when a model was trained, by the names that open_clip gives it."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable

PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
# Nothing in such a text can be broken or escaped: ASCII and Chinese characters.
SOUND = re.compile(r"[ -%'-~\u4e00-\u9fff]*")


def mended(text: str) -> str:
    """Broken encodings, full-width letters, ligatures and curly quotes made plain by ftfy, HTML's
    escapes undone, no space around."""
    if not SOUND.fullmatch(text):
        import ftfy  # 40 ms that most queries need not wait for

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return text.strip()


def whitespace(text: str) -> str:
    """Mended, with one space between words."""
    return " ".join(mended(text).split())


def lower(text: str) -> str:
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation left out, one space between words: as for SigLIP."""
    return " ".join(mended(text).translate(PUNCTUATION).lower().split())


CLEANINGS: dict[str, Callable[[str], str]] = {
    "": str,
    "whitespace": whitespace,
    "lower": lower,
    "canonicalize": canonicalize,
}
