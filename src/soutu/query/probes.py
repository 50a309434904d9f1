"""Probe texts and sample phrases: texts that nobody asked for, with which a gallery is measured.

What probe texts find tells what any text would find in a gallery: how high a query's best score
must be to mean something, and which way all texts lean (both in ``search/calibration.py``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from importlib import resources

from soutu.query.lexicon import Sense, package_files, package_lines, parse_line
from soutu.text import EN, ZH

PROBE_TEXTS = 2048
RECIPE = 1  # to be raised whenever other texts are drawn from the same words

_THINGS = frozenset({"animal", "clothing", "food", "person", "plant", "thing", "vehicle"})
_NO_PICTURE = frozenset({"count", "measure", "particle", "relation"})


def probe_texts(languages: Sequence[str]) -> list[str]:
    """Draw the 2,048 probe texts of a model that reads ``languages``; every time the same.

    They are in those of its languages that the lexicon has; in English where there is none, in both
    where none is known. Half are words, half have a colour or a place.
    """
    drawn_in = _probe_languages(languages)
    senses = [sense for sense in map(parse_line, package_lines()) if sense.english]
    count = PROBE_TEXTS // len(drawn_in)
    return [text for language in drawn_in for text in _draw_texts(senses, language, count)]


def probe_set_name(languages: Sequence[str]) -> str:
    """Name the set that ``probe_texts`` draws, without the 30 ms that drawing takes.

    The name changes whenever the texts may have changed.
    """
    recipe = f"{RECIPE} {' '.join(_probe_languages(languages))}"
    digest = blake2b(recipe.encode(), digest_size=8)
    for file in package_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def sample_phrases(count: int) -> list[str]:
    """Return ``count`` different phrases (at most 2,688) of the kind that people search for.

    Half of them are Chinese; they are the same every time. At the beginning one in four is a word
    alone: what reached a recall of 0.99 on phrases with a place reached 0.984 on words, among
    8,000 photographs (benchmarks/photos.py).
    """
    import yaml

    file = resources.files("soutu") / "query" / "data" / "phrases.yaml"
    by_language: list[list[str]] = []
    for parts in yaml.safe_load(file.read_text(encoding="utf-8")).values():
        phrases = [
            parts["form"].format(subject=subject, place=place)
            for subject in parts["subjects"]
            for place in parts["places"]
        ]
        draw = random.Random(0)
        draw.shuffle(phrases)
        for number, word in enumerate(draw.sample(parts["subjects"], len(parts["subjects"]))):
            phrases.insert(4 * number + 3, word)
        by_language.append(phrases)
    return [phrase for pair in zip(*by_language, strict=True) for phrase in pair][:count]


def _probe_languages(languages: Sequence[str]) -> list[str]:
    return [language for language in (ZH, EN) if language in (languages or (ZH, EN))] or [EN]


def _draw_texts(senses: Sequence[Sense], language: str, count: int) -> list[str]:
    def words(kinds: frozenset[str]) -> list[str]:
        chosen = [sense for sense in senses if sense.kind in kinds]
        return [sense.word if language == ZH else sense.english[0] for sense in chosen]

    draw = random.Random(0)
    visible = words(frozenset(sense.kind for sense in senses) - _NO_PICTURE)
    texts = draw.sample(sorted(set(visible)), count // 2)
    things, colours, places = map(words, (_THINGS, frozenset({"colour"}), frozenset({"place"})))
    coloured, placed = ("{}的{}", "{}里的{}") if language == ZH else ("{} {}", "{1} in the {0}")
    for i in range(count - count // 2):
        form, attributes = (placed, places) if i % 2 else (coloured, colours)
        texts.append(form.format(draw.choice(attributes), draw.choice(things)))
    return texts
