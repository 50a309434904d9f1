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

from training.conditions import sample_conditions
from training.facts import place_of
from training.scenes import Group, Scene, sample
from training.styles import NOTO, TRAINING, installed

HELD_OUT_SHARE = 16  # one combination in so many


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
    """The training styles whose artwork is on this machine."""
    return (NOTO, *(style for style in installed() if style in TRAINING))


def in_style(scene: Scene, styles: Sequence[str], rng: random.Random) -> Scene:
    """The scene drawn by artists chosen from ``styles``, one for each group."""
    groups: tuple[Group, ...] = tuple(replace(g, style=rng.choice(styles)) for g in scene.groups)
    return replace(scene, groups=groups)


def rich(rng: random.Random, styles: Sequence[str]) -> Scene:
    """A rich scene without held-out combinations."""
    while has_held_out(scene := sample(rng)):
        pass
    conditions = sample_conditions(scene.background, rng)
    return replace(in_style(scene, styles, rng), conditions=conditions)
