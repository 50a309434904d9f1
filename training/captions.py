"""Wording: what people would call a scene, in Chinese and English, short or long."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from training.backgrounds import PLACES
from training.facts import CaptionSpec, place_of
from training.nouns import Lang, count_phrase, name, where
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


def say(scene: Scene, lang: Lang, kind: Kind, rng: random.Random) -> CaptionSpec:
    """One way to say it, with the facts it tells. ``word`` names one thing (or the place),
    ``phrase`` adds one fact, ``sentence`` tells things, colours, counts, relation and place."""
    if kind == "word":
        return _word(scene, lang, rng)
    if kind == "phrase":
        return _phrase(scene, lang, rng)
    return _add_conditions(_sentence(scene, lang, rng), scene, lang, rng)


def _add_conditions(spec: CaptionSpec, scene: Scene, lang: Lang, rng: random.Random) -> CaptionSpec:
    """Half of the sentences tell the weather and the time of day, if there is any."""
    facts = tuple(f for f in (scene.conditions.weather, scene.conditions.time) if f)
    if not facts or rng.random() < 0.5:
        return spec
    when = [rng.choice(CONDITIONS[fact][0 if lang == "zh" else 1]) for fact in facts]
    text = "，".join([*when, spec.text]) if lang == "zh" else " ".join([spec.text, *when])
    return replace(spec, text=text, conditions=facts)


def _word(scene: Scene, lang: Lang, rng: random.Random) -> CaptionSpec:
    place = PLACES.get(scene.background.kind)
    if place and rng.random() < 0.12:
        return CaptionSpec(rng.choice(place.zh if lang == "zh" else place.en), place=place.key)
    group = rng.choice(scene.groups)
    coloured = group.colour is not None and rng.random() < 0.6
    text, item = name(group, lang, rng, colour=coloured, broad=0.12)
    return CaptionSpec(text, (item,))


def _phrase(scene: Scene, lang: Lang, rng: random.Random) -> CaptionSpec:
    if scene.relation == "on" and rng.random() < 0.6:
        upper, lower = scene.groups[0], scene.groups[1]
        first, above = name(upper, lang, rng, colour=rng.random() < 0.4)
        if lang == "zh":
            second, below = name(lower, lang, rng, colour=rng.random() < 0.3)
            return CaptionSpec(f"{second}上的{first}", (above, below), relation="on")
        second, below = count_phrase(lower, lang, rng, colour=rng.random() < 0.3)
        return CaptionSpec(f"{first} on {second}", (above, below), relation="on")
    group = rng.choice(scene.groups)
    if group.count > 1 and rng.random() < 0.4:
        text, item = count_phrase(group, lang, rng, colour=rng.random() < 0.5)
        return CaptionSpec(text, (item,))
    if group.colour is not None and rng.random() < 0.3:
        text, item = name(group, lang, rng, colour=True)
        return CaptionSpec(text, (item,))
    text, item = name(group, lang, rng, colour=rng.random() < 0.55, broad=0.06)
    setting = where(scene, lang, rng)
    text = f"{setting}的{text}" if lang == "zh" else f"{text} {setting}"
    return CaptionSpec(text, (item,), place_of(scene))


def _sentence(scene: Scene, lang: Lang, rng: random.Random) -> CaptionSpec:
    setting = where(scene, lang, rng)
    pairs = [count_phrase(group, lang, rng) for group in scene.groups]
    nouns = [text for text, _ in pairs]
    build = _zh_sentence if lang == "zh" else _en_sentence
    text = build(scene, setting, nouns, rng)
    return CaptionSpec(text, tuple(item for _, item in pairs), place_of(scene), scene.relation)


def _zh_sentence(scene: Scene, place: str, nouns: list[str], rng: random.Random) -> str:
    if len(nouns) == 1:
        verbs = ["在"]
        if scene.groups[0].thing.is_animal:
            verbs = ["在", "站在", "蹲在", "坐在", "趴在"]
        return rng.choice(
            [
                f"{nouns[0]}{rng.choice(verbs)}{place}",
                f"{nouns[0]}{rng.choice(verbs)}{place}",
                f"{place}有{nouns[0]}",
                f"{place}的{nouns[0]}",
            ]
        )
    if len(nouns) == 3:
        enumeration = f"{nouns[0]}、{nouns[1]}和{nouns[2]}"
        return rng.choice([f"{enumeration}在{place}", f"{place}有{enumeration}"])
    first, second = nouns
    if scene.relation is None:
        return rng.choice(
            [
                f"{first}和{second}在{place}",
                f"{place}有{first}和{second}",
                f"{place}的{first}和{second}",
            ]
        )
    side, other = {"left": ("左边", "右边"), "above": ("上面", "下面"), "on": ("上", "下面")}[
        scene.relation
    ]
    ways = [f"{first}在{second}{side}", f"{second}{side}有{first}"]
    if scene.relation != "on":
        ways += [f"{second}在{first}{other}", f"{side}是{first}，{other}是{second}"]
    return f"{place}，{rng.choice(ways)}" if rng.random() < 0.5 else f"{rng.choice(ways)}，{place}"


def _en_sentence(scene: Scene, place: str, nouns: list[str], rng: random.Random) -> str:
    if len(nouns) == 1:
        verbs = ["", ""]
        if scene.groups[0].thing.is_animal:
            verbs = ["", " sitting", " standing", " resting"]
        lead = rng.choice(["", "", "a picture of ", "there is "])
        if lead == "there is " and scene.groups[0].count > 1:
            lead = "there are "
        return f"{lead}{nouns[0]}{rng.choice(verbs)} {place}"
    if len(nouns) == 3:
        return f"{nouns[0]}, {nouns[1]} and {nouns[2]} {place}"
    first, second = nouns
    if scene.relation is None:
        return f"{first} and {second} {place}"
    ways = {
        "left": [
            f"{first} to the left of {second}",
            f"{first} left of {second}",
            f"{second} to the right of {first}",
        ],
        "above": [f"{first} above {second}", f"{second} below {first}"],
        "on": [f"{first} on {second}", f"{first} on top of {second}"],
    }[scene.relation]
    return f"{rng.choice(ways)} {place}" if rng.random() < 0.75 else f"{place}, {rng.choice(ways)}"
