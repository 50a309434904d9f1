"""Wording: what people would call a scene, in Chinese and English, short or long."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from training.backgrounds import PLACES
from training.facts import Said, place_of
from training.nouns import Lang, counted, name, where
from training.scenes import Scene

Kind = Literal["word", "phrase", "sentence"]

CONDITIONS = {
    "rain": (("下雨天", "雨中", "下着雨"), ("in the rain", "on a rainy day")),
    "snow": (("下雪天", "雪中", "下着雪"), ("in falling snow", "while it snows")),
    "fog": (("雾中", "大雾天", "雾蒙蒙"), ("in the fog", "on a foggy day")),
    "night": (("夜晚", "晚上", "夜里"), ("at night", "in the dark")),
    "dusk": (("黄昏", "傍晚", "黄昏时分"), ("at dusk", "in the evening light")),
}


def caption(scene: Scene, lang: Lang, kind: Kind, rng: random.Random) -> str:
    """One way to say it."""
    return say(scene, lang, kind, rng).text


def say(scene: Scene, lang: Lang, kind: Kind, rng: random.Random) -> Said:
    """One way to say it, with the facts it tells. ``word`` names one thing (or the place),
    ``phrase`` adds one fact, ``sentence`` tells things, colours, counts, relation and place."""
    if kind == "word":
        return _word(scene, lang, rng)
    if kind == "phrase":
        return _phrase(scene, lang, rng)
    said = _sentence(scene, lang, rng)
    return _with_conditions(said, scene, lang, rng)


def _with_conditions(said: Said, scene: Scene, lang: Lang, rng: random.Random) -> Said:
    """Half of the sentences tell the weather and the time of day, if there is any."""
    facts = tuple(f for f in (scene.conditions.weather, scene.conditions.time) if f)
    if not facts or rng.random() < 0.5:
        return said
    when = [rng.choice(CONDITIONS[fact][0 if lang == "zh" else 1]) for fact in facts]
    text = "，".join([*when, said.text]) if lang == "zh" else " ".join([said.text, *when])
    return replace(said, text=text, conditions=facts)


def _word(scene: Scene, lang: Lang, rng: random.Random) -> Said:
    place = PLACES.get(scene.background.kind)
    if place and rng.random() < 0.12:
        return Said(rng.choice(place.zh if lang == "zh" else place.en), place=place.key)
    group = rng.choice(scene.groups)
    coloured = group.colour is not None and rng.random() < 0.6
    text, wanted = name(group, lang, rng, colour=coloured, broad=0.12)
    return Said(text, (wanted,))


def _phrase(scene: Scene, lang: Lang, rng: random.Random) -> Said:
    if scene.relation == "on" and rng.random() < 0.6:
        upper, lower = scene.groups[0], scene.groups[1]
        first, above = name(upper, lang, rng, colour=rng.random() < 0.4)
        if lang == "zh":
            second, below = name(lower, lang, rng, colour=rng.random() < 0.3)
            return Said(f"{second}上的{first}", (above, below), relation="on")
        second, below = counted(lower, lang, rng, colour=rng.random() < 0.3)
        return Said(f"{first} on {second}", (above, below), relation="on")
    group = rng.choice(scene.groups)
    if group.count > 1 and rng.random() < 0.4:
        text, wanted = counted(group, lang, rng, colour=rng.random() < 0.5)
        return Said(text, (wanted,))
    if group.colour is not None and rng.random() < 0.3:
        text, wanted = name(group, lang, rng, colour=True)
        return Said(text, (wanted,))
    text, wanted = name(group, lang, rng, colour=rng.random() < 0.55, broad=0.06)
    there = where(scene, lang, rng)
    text = f"{there}的{text}" if lang == "zh" else f"{text} {there}"
    return Said(text, (wanted,), place_of(scene))


def _sentence(scene: Scene, lang: Lang, rng: random.Random) -> Said:
    there = where(scene, lang, rng)
    things = [counted(group, lang, rng) for group in scene.groups]
    said = [text for text, _ in things]
    build = _zh_sentence if lang == "zh" else _en_sentence
    text = build(scene, there, said, rng)
    return Said(text, tuple(wanted for _, wanted in things), place_of(scene), scene.relation)


def _zh_sentence(scene: Scene, there: str, said: list[str], rng: random.Random) -> str:
    if len(said) == 1:
        verbs = ["在"]
        if scene.groups[0].thing.is_animal:
            verbs = ["在", "站在", "蹲在", "坐在", "趴在"]
        return rng.choice(
            [
                f"{said[0]}{rng.choice(verbs)}{there}",
                f"{said[0]}{rng.choice(verbs)}{there}",
                f"{there}有{said[0]}",
                f"{there}的{said[0]}",
            ]
        )
    if len(said) == 3:
        listed = f"{said[0]}、{said[1]}和{said[2]}"
        return rng.choice([f"{listed}在{there}", f"{there}有{listed}"])
    first, second = said
    if scene.relation is None:
        return rng.choice(
            [
                f"{first}和{second}在{there}",
                f"{there}有{first}和{second}",
                f"{there}的{first}和{second}",
            ]
        )
    side, other = {"left": ("左边", "右边"), "above": ("上面", "下面"), "on": ("上", "下面")}[
        scene.relation
    ]
    ways = [f"{first}在{second}{side}", f"{second}{side}有{first}"]
    if scene.relation != "on":
        ways += [f"{second}在{first}{other}", f"{side}是{first}，{other}是{second}"]
    return f"{there}，{rng.choice(ways)}" if rng.random() < 0.5 else f"{rng.choice(ways)}，{there}"


def _en_sentence(scene: Scene, there: str, said: list[str], rng: random.Random) -> str:
    if len(said) == 1:
        verbs = ["", ""]
        if scene.groups[0].thing.is_animal:
            verbs = ["", " sitting", " standing", " resting"]
        lead = rng.choice(["", "", "a picture of ", "there is "])
        if lead == "there is " and scene.groups[0].count > 1:
            lead = "there are "
        return f"{lead}{said[0]}{rng.choice(verbs)} {there}"
    if len(said) == 3:
        return f"{said[0]}, {said[1]} and {said[2]} {there}"
    first, second = said
    if scene.relation is None:
        return f"{first} and {second} {there}"
    ways = {
        "left": [
            f"{first} to the left of {second}",
            f"{first} left of {second}",
            f"{second} to the right of {first}",
        ],
        "above": [f"{first} above {second}", f"{second} below {first}"],
        "on": [f"{first} on {second}", f"{first} on top of {second}"],
    }[scene.relation]
    return f"{rng.choice(ways)} {there}" if rng.random() < 0.75 else f"{there}, {rng.choice(ways)}"
