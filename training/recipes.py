"""How scenes are drawn at random: plain ones, rich ones, and what rich training never sees.

Plain: Noto's drawings under clear conditions. Rich: several artists' drawings, weather, light,
texture, things in front, a camera's faults. Rich training leaves out some combinations of
thing, colour and place, so that it can be tested whether a model composes what it knows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from training.backgrounds import Background
from training.colours import COLOURS
from training.conditions import CLEAR, sample_conditions
from training.facts import place_of
from training.scenes import Group, Scene, compose, sample, sample_background
from training.styles import NOTO, TRAINING, installed_styles

HELD_OUT_SHARE = 16  # one combination in so many
FOUR = 4  # a scene and its three near-misses
CLEAR_SHARE = 0.15  # of the scenes that are trained on, so that clean drawings are known too
# Shares of the drawn scenes that are trained on where nothing is painted (a thing in its own
# colour is easy), where a thing is not an everyday one (few will ask for it), and where nothing
# is an animal.
KEEP_UNPAINTED, KEEP_RARE, KEEP_LIFELESS = 0.5, 0.3, 0.6


def held_out(thing: str, colour: str | None, place: str) -> bool:
    """Whether this combination of a painted thing and a place is kept for the test."""
    if colour is None:
        return False
    digest = hashlib.blake2b(f"{thing}|{colour}|{place}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0


def has_held_out(scene: Scene) -> bool:
    place = place_of(scene)
    return any(held_out(group.thing.key, group.colour, place) for group in scene.groups)


def training_styles() -> tuple[str, ...]:
    """Return the training styles whose artwork is on this machine."""
    return (NOTO, *(style for style in installed_styles() if style in TRAINING))


def in_style(scene: Scene, styles: Sequence[str], rng: random.Random) -> Scene:
    """Have the scene drawn by artists chosen from ``styles``, one for each group."""
    groups: tuple[Group, ...] = tuple(replace(g, style=rng.choice(styles)) for g in scene.groups)
    return replace(scene, groups=groups)


def rich(rng: random.Random, styles: Sequence[str]) -> Scene:
    """Draw a rich scene without held-out combinations."""
    while has_held_out(scene := sample(rng)):
        pass
    return _enrich(scene, styles, rng)


def _enrich(scene: Scene, styles: Sequence[str], rng: random.Random) -> Scene:
    conditions = sample_conditions(scene.background, rng)
    return replace(in_style(scene, styles, rng), conditions=conditions)


def four(rng: random.Random, styles: Sequence[str]) -> tuple[Scene, ...]:
    """Draw what is trained on: a rich scene and three near-misses, which a batch of random scenes
    hardly ever holds; none with a held-out combination."""
    while True:
        base = sample(rng)
        if rng.random() < keep_probability(base):
            scenes = (base, *near_misses(base, rng))
            if not any(map(has_held_out, scenes)):
                break
    rich_scenes = (_enrich(scene, styles, rng) for scene in scenes)
    return tuple(
        replace(scene, conditions=CLEAR) if rng.random() < CLEAR_SHARE else scene
        for scene in rich_scenes
    )


def keep_probability(scene: Scene) -> float:
    """How often a scene that was drawn is trained on."""
    painted = any(group.colour for group in scene.groups)
    everyday = all(group.thing.everyday for group in scene.groups)
    alive = any(group.thing.is_animal for group in scene.groups)
    share = 1.0 if painted else KEEP_UNPAINTED
    return share * (1.0 if everyday else KEEP_RARE) * (1.0 if alive else KEEP_LIFELESS)


def near_misses(base: Scene, rng: random.Random) -> tuple[Scene, Scene, Scene]:
    """Change the main thing to another colour, another place, another number."""
    main, *others = base.groups
    colour = rng.choice([c for c in COLOURS if c != main.visible_colour])
    place = base.background
    while place_of(replace(base, background=place)) == place_of(base):
        place = sample_background(rng)
    # Only one thing can rest on one other: the number changes beside it.
    relation = None if base.relation == "on" else base.relation
    count = rng.choice([n for n in (1, 2, 3) if n != main.count])
    elsewhere = Background(place.kind, place.colour, place.seed)
    return (
        compose([replace(main, colour=colour), *others], base.background, base.relation, rng),
        compose(base.groups, elsewhere, base.relation, rng),
        compose([replace(main, count=count), *others], base.background, relation, rng),
    )
