"""Reference texts: the yardstick of a gallery.

Words of the lexicon, plain, with a colour and in a place, drawn without any gallery in mind. What
they find tells what any text would find in it: how high a query's best score must be to mean
something (``search/calibration.py``), and which way all texts lean (``search/calibration.py``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from importlib import resources

from soutu.query.lexicon import Sense, package_files, package_lines, read_line
from soutu.text import EN, ZH

# Phrases of the kind that people search pictures for, in Chinese and English.


def sample_phrases(count: int) -> list[str]:
    """``count`` different phrases (at most 2,560), half of them Chinese, the same every time."""
    import yaml

    file = resources.files("soutu") / "query" / "data" / "phrases.yaml"
    said: list[list[str]] = []
    for words in yaml.safe_load(file.read_text(encoding="utf-8")).values():
        every = [
            words["form"].format(subject=subject, place=place)
            for subject in words["subjects"]
            for place in words["places"]
        ]
        random.Random(0).shuffle(every)
        said.append(every)
    return [phrase for pair in zip(*said, strict=True) for phrase in pair][:count]


PROBE_TEXTS = 2048
RECIPE = 1  # to be raised whenever other texts are drawn from the same words
_THINGS = frozenset({"animal", "clothing", "food", "person", "plant", "thing", "vehicle"})
_NO_PICTURE = frozenset({"count", "measure", "particle", "relation"})


def probe_texts(languages: Sequence[str]) -> list[str]:
    """2,048 texts, the same ones every time, in those of ``languages`` (what the model reads) that
    the lexicon has: half of them words, half with a colour or a place. English where there is no
    such language, both where none is known."""
    spoken = _spoken(languages)
    senses = [sense for sense in map(read_line, package_lines()) if sense.english]
    count = PROBE_TEXTS // len(spoken)
    return [text for language in spoken for text in _texts(senses, language, count)]


def probe_set_name(languages: Sequence[str]) -> str:
    """Changes whenever ``reference_texts`` may have: drawing them takes 30 ms, and this one."""
    digest = blake2b(f"{RECIPE} {' '.join(_spoken(languages))}".encode(), digest_size=8)
    for file in package_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _spoken(languages: Sequence[str]) -> list[str]:
    return [language for language in (ZH, EN) if language in (languages or (ZH, EN))] or [EN]


def _texts(senses: Sequence[Sense], language: str, count: int) -> list[str]:
    draw = random.Random(0)
    words = sorted({_said(s, language) for s in senses if s.kind not in _NO_PICTURE})
    return [*draw.sample(words, count // 2), *_told(senses, language, draw, count - count // 2)]


def _told(senses: Sequence[Sense], language: str, draw: random.Random, count: int) -> Iterator[str]:
    things = [_said(s, language) for s in senses if s.kind in _THINGS]
    colours = [_said(s, language) for s in senses if s.kind == "colour"]
    places = [_said(s, language) for s in senses if s.kind == "place"]
    coloured, placed = ("{}的{}", "{}里的{}") if language == ZH else ("{} {}", "{1} in the {0}")
    for at in range(count):
        form, facts = (placed, places) if at % 2 else (coloured, colours)
        yield form.format(draw.choice(facts), draw.choice(things))


def _said(sense: Sense, language: str) -> str:
    return sense.word if language == ZH else sense.english[0]
