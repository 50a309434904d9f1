"""Short queries against a whole vocabulary: the hard negatives of single words.

In a batch of random scenes a sentence is told from the others by its background or a colour,
so the word 猫 meets hardly any picture that is nearly a cat. Here each picture is compared with
the names of all things, of what is broader (动物) and of all places, with the colours it has and
with colours it has not; which of them are true of it is known from the scene.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from training.artwork import drawable
from training.backgrounds import PLACES
from training.colours import COLOURS
from training.facts import CaptionSpec, ObjectSpec
from training.nouns import Lang, colourless, inherent_colour
from training.scenes import Group, Scene
from training.things import keys_of

Label = tuple[str, str | None]
"""A key (see ``names``) and a colour word, or None for the bare name."""
PLACE = "@"


@cache
def names(lang: Lang) -> dict[str, tuple[str, ...]]:
    """Return what everything is called: things and what is broader than they by key, places by
    ``@`` and key."""
    language = 0 if lang == "zh" else 1
    result = {thing.key: colourless(thing, lang) for thing in drawable()}
    for thing in drawable():
        if thing.broader:
            result.setdefault(thing.broader[1], (thing.broader[language],))
    return result | {PLACE + p.key: (p.zh, p.en)[language] for p in PLACES.values()}


@cache
def everyday() -> tuple[str, ...]:
    return tuple(thing.key for thing in drawable() if thing.everyday)


def is_true(label: Label, group: Group) -> bool:
    """Whether the name fits the group: the thing or a broader name (a poodle is a dog),
    and its painted or own colour."""
    if label == (group.thing.key, None) and group.colour is not None:
        # a 红包 painted blue is no 红包
        return inherent_colour(group.thing) in (None, group.colour)
    return ObjectSpec(*label).fits(group)


def pool(scenes: Sequence[Scene], rng: random.Random) -> list[Label]:
    """Names to compare with: every bare name; the things in the batch, and what is broader than
    they, in a true and in false colours; and, for each colour in the batch, some everyday thing
    in that colour."""
    labels: dict[Label, None] = dict.fromkeys((key, None) for key in names("en"))
    colours = list(COLOURS)
    for scene in scenes:
        for group in scene.groups:
            if colour := group.visible_colour:
                for key in keys_of(group.thing):
                    labels[key, colour] = None
                    for false in rng.sample(colours, 2 if key == group.thing.key else 1):
                        labels[key, false] = None
                labels[rng.choice(everyday()), colour] = None
    return list(labels)


def say(label: Label, lang: Lang, rng: random.Random) -> str:
    """Put the name in words: 灰猫, 灰色的猫, gray cat."""
    key, colour = label
    ways = names(lang)[key]
    name = (ways[0] if rng.random() < 0.5 else rng.choice(ways)).lstrip("~+")
    if colour is None:
        return name
    if lang == "en":
        return f"{'grey' if colour == 'gray' and rng.random() < 0.3 else colour} {name}"
    short = COLOURS[colour].zh
    if len(name) <= 2 and rng.random() < 0.6:
        return short + name
    return f"{short}色的{name}" if rng.random() < 0.6 else f"{short}色{name}"


def truth(labels: Sequence[Label], scenes: Sequence[Scene]) -> Tensor:
    """bool (scenes, labels): which names are true of which scene."""
    columns: dict[str, list[int]] = {}
    for column, (key, _) in enumerate(labels):
        columns.setdefault(key, []).append(column)
    keys = [key for key in columns if key.startswith(PLACE)]
    places = [(CaptionSpec("", place=key[1:]), columns[key][0]) for key in keys]
    true = torch.zeros(len(scenes), len(labels), dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            for column in (c for key in keys_of(group.thing) for c in columns.get(key, ())):
                true[row, column] |= is_true(labels[column], group)
        for spec, column in places:
            true[row, column] = spec.fits(scene)
    return true


def merge_texts(texts: Sequence[str], true: Tensor) -> tuple[list[str], Tensor]:
    """Each text once; what is said of two things is true of the scenes of both."""
    column = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    result = torch.zeros(len(true), len(column), dtype=torch.bool)
    for text, answers in zip(texts, true.T, strict=True):
        result[:, column[text]] |= answers
    return list(column), result


def word_loss(images: Tensor, names: Tensor, true: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy with several right answers, each an equal share of the target;
    names that are true of no picture here are only negatives."""
    logits = scale * images @ names.T
    by_image = true / true.sum(dim=1, keepdim=True)
    has_image = true.sum(dim=0) > 0
    by_name = (true / true.sum(dim=0, keepdim=True).clamp(min=1)).T[has_image]
    return (F.cross_entropy(logits, by_image) + F.cross_entropy(logits.T[has_image], by_name)) / 2
