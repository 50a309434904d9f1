"""How people really type: now and then in traditional characters, or with a slip of the finger."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

from training.nouns import Lang

if TYPE_CHECKING:
    from opencc import OpenCC

TRADITIONAL, SLIP = 0.06, 0.05  # shares of the texts


@cache
def _converter() -> OpenCC:
    from opencc import OpenCC

    return OpenCC("s2t")


def traditional(text: str) -> str:
    """``text`` in traditional characters."""
    return str(_converter().convert(text))


def vary(text: str, lang: Lang, rng: random.Random) -> str:
    """``text`` as it is, or in traditional characters, or with one slip."""
    draw = rng.random()
    if lang == "zh" and draw < TRADITIONAL:
        return traditional(text)
    if TRADITIONAL <= draw < TRADITIONAL + SLIP:
        return slip(text, lang, rng)
    return text


def slip(text: str, lang: Lang, rng: random.Random) -> str:
    """One mistake: in English two letters swapped, one left out or doubled, in a word of five
    letters or more; in Chinese a 的 or a measure word's number left out."""
    if lang == "zh":
        return text.replace("的", "", 1) if "的" in text else text.removeprefix("一")
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    index = rng.choice(long)
    word = words[index]
    i = rng.randrange(1, len(word) - 1)
    words[index] = rng.choice(
        [
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
        ]
    )
    return " ".join(words)
