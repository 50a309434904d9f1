"""Wording: what people would call a scene, in Chinese and English, short or long."""

from __future__ import annotations

import random
from typing import Literal

from training.backgrounds import PLACES
from training.colours import COLOURS
from training.scenes import Group, Scene

Kind = Literal["word", "phrase", "sentence"]
Lang = Literal["zh", "en"]

ZH_NUMBERS = {2: "两", 3: "三", 4: "四", 5: "五"}
EN_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
IRREGULAR = {
    "mouse": "mice", "computer mouse": "computer mice", "goose": "geese", "ox": "oxen",
    "knife": "knives", "kitchen knife": "kitchen knives", "maple leaf": "maple leaves",
    "leaf": "leaves", "scarf": "scarves", "die": "dice", "wolf": "wolves",
}  # fmt: skip
UNCHANGED = {"sheep", "fish", "deer", "bison", "squid", "shrimp", "tropical fish", "dice", "moai"}
CONDITIONS = {
    "rain": (("下雨天", "雨中", "下着雨"), ("in the rain", "on a rainy day")),
    "snow": (("下雪天", "雪中", "下着雪"), ("in falling snow", "while it snows")),
    "fog": (("雾中", "大雾天", "雾蒙蒙"), ("in the fog", "on a foggy day")),
    "night": (("夜晚", "晚上", "夜里"), ("at night", "in the dark")),
    "dusk": (("黄昏", "傍晚", "黄昏时分"), ("at dusk", "in the evening light")),
}
COLOUR_CHARACTERS = set("红橙黄绿蓝紫粉棕灰黑白青金银")


def plural(noun: str) -> str:
    """The English plural of a bare noun."""
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


def caption(scene: Scene, lang: Lang, kind: Kind, rng: random.Random) -> str:
    """One way to say it. ``word`` names one thing (or the place), ``phrase`` adds one fact,
    ``sentence`` tells things, colours, counts, relation and place."""
    if kind == "word":
        return _word(scene, lang, rng)
    if kind == "phrase":
        return _phrase(scene, lang, rng)
    said = _zh_sentence(scene, rng) if lang == "zh" else _en_sentence(scene, rng)
    return _with_conditions(said, scene, lang, rng)


def _with_conditions(said: str, scene: Scene, lang: Lang, rng: random.Random) -> str:
    """Half of the sentences tell the weather and the time of day, if there is any."""
    facts = [f for f in (scene.conditions.weather, scene.conditions.time) if f]
    if not facts or rng.random() < 0.5:
        return said
    when = [rng.choice(CONDITIONS[fact][0 if lang == "zh" else 1]) for fact in facts]
    return f"{'，'.join([*when, said])}" if lang == "zh" else " ".join([said, *when])


def _word(scene: Scene, lang: Lang, rng: random.Random) -> str:
    place = PLACES.get(scene.background.kind)
    if place and rng.random() < 0.12:
        return rng.choice(place.zh if lang == "zh" else place.en)
    group = rng.choice(scene.groups)
    coloured = group.colour is not None and rng.random() < 0.6
    return _noun(group, lang, rng, colour=coloured, broad=0.12)


def _phrase(scene: Scene, lang: Lang, rng: random.Random) -> str:
    if scene.relation == "on" and rng.random() < 0.6:
        upper, lower = scene.groups[0], scene.groups[1]
        first = _noun(upper, lang, rng, colour=rng.random() < 0.4)
        if lang == "zh":
            return f"{_noun(lower, lang, rng, colour=rng.random() < 0.3)}上的{first}"
        return f"{first} on {_counted(lower, lang, rng, colour=rng.random() < 0.3)}"
    group = rng.choice(scene.groups)
    if group.count > 1 and rng.random() < 0.4:
        return _counted(group, lang, rng, colour=rng.random() < 0.5)
    if group.colour is not None and rng.random() < 0.3:
        return _noun(group, lang, rng, colour=True)
    noun = _noun(group, lang, rng, colour=rng.random() < 0.55, broad=0.06)
    if lang == "zh":
        return f"{_where(scene, lang, rng)}的{noun}"
    return f"{noun} {_where(scene, lang, rng)}"


def _colour(group: Group, rng: random.Random) -> str | None:
    """The colour to mention: always the painted one, now and then the drawing's own."""
    if group.colour is not None:
        return group.colour
    named = any(set(name) & COLOUR_CHARACTERS for name in group.thing.zh)
    return group.shown_colour if not named and rng.random() < 0.3 else None


def _noun(group: Group, lang: Lang, rng: random.Random, *, colour: bool, broad: float = 0.0) -> str:
    """The thing's name with its colour if asked for; no article, no count."""
    thing = group.thing
    names = thing.zh if lang == "zh" else thing.en
    name = names[0] if rng.random() < 0.6 else rng.choice(names)
    if thing.broader and rng.random() < broad:
        name = thing.broader[0 if lang == "zh" else 1]
    tint = _colour(group, rng) if colour else None
    if lang == "zh":
        return name if tint is None else _zh_tint(tint, name, rng)
    name = name.lstrip("~+")
    if tint is None:
        return name
    return f"{'grey' if tint == 'gray' and rng.random() < 0.3 else tint} {name}"


def _zh_tint(colour: str, name: str, rng: random.Random) -> str:
    short = COLOURS[colour].zh
    if len(name) <= 2 and rng.random() < 0.5:
        return short + name
    return f"{short}色的{name}" if rng.random() < 0.75 else f"{short}色{name}"


def _counted(group: Group, lang: Lang, rng: random.Random, *, colour: bool = True) -> str:
    """The noun with its number and measure word, or its article."""
    noun = _noun(group, lang, rng, colour=colour)
    if lang == "zh":
        number = ZH_NUMBERS.get(group.count, "一")
        return f"{number}{group.thing.classifier}{noun}"
    marked = {n.lstrip("~+"): n[0] for n in group.thing.en if n[0] in "~+"}
    mark = next((m for name, m in marked.items() if noun.endswith(name)), "")
    if group.count > 1:
        return f"{EN_NUMBERS[group.count]} {noun if mark == '+' else plural(noun)}"
    return (
        f"some {noun}"
        if mark and rng.random() < 0.4
        else (noun if mark else f"{article(noun)} {noun}")
    )


def _where(scene: Scene, lang: Lang, rng: random.Random) -> str:
    background = scene.background
    place = PLACES.get(background.kind)
    if place:
        ways = place.zh_where if lang == "zh" else place.en_where
        return ways[0] if rng.random() < 0.5 else rng.choice(ways)
    colour = COLOURS[str(background.colour)]
    if lang == "zh":
        return rng.choice([f"{colour.zh}色背景前", f"{colour.zh}色背景上", f"{colour.zh}背景前"])
    return rng.choice([f"on {article(colour.en)} {colour.en} background", f"against {colour.en}"])


def _zh_sentence(scene: Scene, rng: random.Random) -> str:
    where = _where(scene, "zh", rng)
    said = [_counted(g, "zh", rng) for g in scene.groups]
    if len(said) == 1:
        verbs = ["在"]
        if scene.groups[0].thing.is_animal:
            verbs = ["在", "站在", "蹲在", "坐在", "趴在"]
        return rng.choice(
            [
                f"{said[0]}{rng.choice(verbs)}{where}",
                f"{said[0]}{rng.choice(verbs)}{where}",
                f"{where}有{said[0]}",
                f"{where}的{said[0]}",
            ]
        )
    if len(said) == 3:
        listed = f"{said[0]}、{said[1]}和{said[2]}"
        return rng.choice([f"{listed}在{where}", f"{where}有{listed}"])
    first, second = said
    if scene.relation is None:
        return rng.choice(
            [
                f"{first}和{second}在{where}",
                f"{where}有{first}和{second}",
                f"{where}的{first}和{second}",
            ]
        )
    side, other = {"left": ("左边", "右边"), "above": ("上面", "下面"), "on": ("上", "下面")}[
        scene.relation
    ]
    ways = [f"{first}在{second}{side}", f"{second}{side}有{first}"]
    if scene.relation != "on":
        ways += [f"{second}在{first}{other}", f"{side}是{first}，{other}是{second}"]
    return f"{where}，{rng.choice(ways)}" if rng.random() < 0.5 else f"{rng.choice(ways)}，{where}"


def _en_sentence(scene: Scene, rng: random.Random) -> str:
    where = _where(scene, "en", rng)
    said = [_counted(g, "en", rng) for g in scene.groups]
    if len(said) == 1:
        verbs = ["", ""]
        if scene.groups[0].thing.is_animal:
            verbs = ["", " sitting", " standing", " resting"]
        lead = rng.choice(["", "", "a picture of ", "there is "])
        if lead == "there is " and scene.groups[0].count > 1:
            lead = "there are "
        return f"{lead}{said[0]}{rng.choice(verbs)} {where}"
    if len(said) == 3:
        return f"{said[0]}, {said[1]} and {said[2]} {where}"
    first, second = said
    if scene.relation is None:
        return f"{first} and {second} {where}"
    ways = {
        "left": [
            f"{first} to the left of {second}",
            f"{first} left of {second}",
            f"{second} to the right of {first}",
        ],
        "above": [f"{first} above {second}", f"{second} below {first}"],
        "on": [f"{first} on {second}", f"{first} on top of {second}"],
    }[scene.relation]
    return f"{rng.choice(ways)} {where}" if rng.random() < 0.75 else f"{where}, {rng.choice(ways)}"
