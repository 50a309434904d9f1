"""Words for one thing and for a place, in both languages, with the facts they tell."""

from __future__ import annotations

import random
import re
from typing import Literal

from training.backgrounds import PLACES
from training.colours import COLOURS
from training.facts import ObjectSpec
from training.scenes import Group, Scene
from training.things import Concept

Lang = Literal["zh", "en"]

ZH_NUMBERS = {2: "两", 3: "三", 4: "四", 5: "五"}
EN_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
IRREGULAR = {
    "mouse": "mice", "computer mouse": "computer mice", "goose": "geese", "ox": "oxen",
    "knife": "knives", "kitchen knife": "kitchen knives", "maple leaf": "maple leaves",
    "leaf": "leaves", "scarf": "scarves", "die": "dice", "wolf": "wolves",
}  # fmt: skip
UNCHANGED = {"sheep", "fish", "deer", "bison", "squid", "shrimp", "tropical fish", "dice", "moai"}
COLOUR_CHARACTERS = set("红橙黄绿蓝紫粉棕灰黑白青金银")
COLOUR_WORD = re.compile(
    r"\b(red|orange|yellow|green|blue|purple|pink|brown|gr[ae]y|black|white)\b"
)


def colourless(thing: Concept, lang: Lang) -> tuple[str, ...]:
    """Return the names that tell no colour (苹果, not 红苹果); all names if each does (红包)."""
    if lang == "zh":
        names = tuple(n for n in thing.zh if not set(n) & COLOUR_CHARACTERS)
    else:
        names = tuple(n for n in thing.en if not COLOUR_WORD.search(n))
    return names or (thing.zh if lang == "zh" else thing.en)


def inherent_colour(thing: Concept) -> str | None:
    """Return the colour that is part of every name in both languages (红包, red envelope), or None;
    黄瓜 tells none, for a cucumber is green."""
    for colour in COLOURS.values():
        words = [word for name in thing.en for word in name.split()]
        if colour.en in words and all(colour.zh in name for name in thing.zh):
            return colour.en
    return None


def plural(noun: str) -> str:
    """Return the English plural of a bare noun."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in UNCHANGED:
        return noun
    head, of, tail = noun.partition(" of ")
    if of:
        return plural(head) + of + tail
    if noun.endswith(("s", "x", "z", "ch", "sh")) or noun in {"tomato", "potato", "mango"}:
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(noun: str) -> str:
    starts_with_vowel = noun[0] in "aeiou" and not noun.startswith(("uni", "eu", "one"))
    return "an" if starts_with_vowel or noun.startswith(("x-ray", "hour")) else "a"


def name(
    group: Group, lang: Lang, rng: random.Random, *, colour: bool, broad: float = 0.0
) -> tuple[str, ObjectSpec]:
    """Return the thing's name, with its colour if asked for; no article, no count. ``broad`` is how
    often the broader name (动物, dog) stands for it."""
    thing, key = group.thing, group.thing.key
    names = thing.zh if lang == "zh" else thing.en
    if group.colour is not None:  # a red apple that is painted blue is a blue apple
        names = colourless(thing, lang)
    word = names[0] if rng.random() < 0.6 else rng.choice(names)
    if thing.broader and rng.random() < broad:
        word, key = thing.broader[0 if lang == "zh" else 1], thing.broader[1]
    tint = _colour(group, rng) if colour else None
    if lang == "zh":
        text = word if tint is None else _zh_tint(tint, word, rng)
    else:
        text = word.lstrip("~+")
        if tint is not None:
            text = f"{'grey' if tint == 'gray' and rng.random() < 0.3 else tint} {text}"
    return text, ObjectSpec(key, tint)


def count_phrase(
    group: Group, lang: Lang, rng: random.Random, *, colour: bool = True
) -> tuple[str, ObjectSpec]:
    """Return the name with its number and measure word, or its article."""
    noun, item = name(group, lang, rng, colour=colour)
    item = ObjectSpec(item.thing, item.colour, group.count)
    if lang == "zh":
        return f"{ZH_NUMBERS.get(group.count, '一')}{group.thing.classifier}{noun}", item
    marked = {n.lstrip("~+"): n[0] for n in group.thing.en if n[0] in "~+"}
    mark = next((m for word, m in marked.items() if noun.endswith(word)), "")
    if group.count > 1:
        return f"{EN_NUMBERS[group.count]} {noun if mark == '+' else plural(noun)}", item
    if mark and rng.random() < 0.4:
        return f"some {noun}", item
    return noun if mark else f"{article(noun)} {noun}", item


def where(scene: Scene, lang: Lang, rng: random.Random) -> str:
    """草地上, on the grass, 黄色背景前, against yellow."""
    background = scene.background
    place = PLACES.get(background.kind)
    if place:
        ways = place.zh_where if lang == "zh" else place.en_where
        return ways[0] if rng.random() < 0.5 else rng.choice(ways)
    colour = COLOURS[str(background.colour)]
    if lang == "zh":
        return rng.choice([f"{colour.zh}色背景前", f"{colour.zh}色背景上", f"{colour.zh}背景前"])
    return rng.choice([f"on {article(colour.en)} {colour.en} background", f"against {colour.en}"])


def _colour(group: Group, rng: random.Random) -> str | None:
    """Choose the colour to mention: always the painted one, now and then the drawing's own."""
    if group.colour is not None:
        return group.colour
    named = any(set(word) & COLOUR_CHARACTERS for word in group.thing.zh)
    return group.visible_colour if not named and rng.random() < 0.3 else None


def _zh_tint(colour: str, word: str, rng: random.Random) -> str:
    short = COLOURS[colour].zh
    if len(word) <= 2 and rng.random() < 0.5:
        return short + word
    return f"{short}色的{word}" if rng.random() < 0.75 else f"{short}色{word}"
