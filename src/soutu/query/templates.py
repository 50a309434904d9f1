"""Prompts such as "a photo of a cat": what CLIP was trained on are captions of photos, not words.

They are off by default: the embedded models were trained on drawn scenes and find less with them
(``tiny-en``, hand-written words: mAP 0.55 without, 0.43 with; benchmarks/results/expansion.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

from soutu.query.english import NUMBERS, with_article
from soutu.query.normalize import EN, WORD, ZH, language, length
from soutu.types import Variant

TEMPLATES = "templates"
_PLAIN, _WITH_ARTICLE = "{X}", "{a X}"
_DETERMINED = ("a", "an", "the", "some", "many", "my", *NUMBERS)
_SAID = ("照片", "图片", "相片", "photo", "picture", "image")  # the text is a prompt already


@dataclass(frozen=True)
class Templates:
    """Says what is short as a caption in its own language; what is longer is one already."""

    name: ClassVar[str] = TEMPLATES

    def expand(self, text: str) -> list[Variant]:
        """For a word, and what an article or a number makes a phrase. They share a weight of 1."""
        text = text.strip()
        # What cannot be printed, or holds no letter, is nothing that a photo shows.
        if not text.isprintable() or not any(map(str.isalnum, text)):
            return []
        if length(_bare(text)) != WORD or any(word in text.casefold() for word in _SAID):
            return []
        own = _built_in()[EN if language(text) == EN else ZH]
        return [Variant(_filled(one, text), 1 / len(own), TEMPLATES) for one in own]


def _bare(text: str) -> str:
    """Without the article or number that it begins with."""
    first, _, rest = text.partition(" ")
    return rest if rest and first.casefold() in _DETERMINED else text


def _filled(template: str, text: str) -> str:
    mark = _WITH_ARTICLE if _WITH_ARTICLE in template else _PLAIN
    before, _, after = template.partition(mark)
    noun = with_article(text) if mark == _WITH_ARTICLE and _bare(text) == text else text
    return f"{before}{noun}{after}"


@cache
def _built_in() -> dict[str, list[str]]:
    import yaml

    file = resources.files("soutu") / "query" / "data" / "templates.yaml"
    loaded: dict[str, list[str]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded
