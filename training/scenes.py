"""Seeded scenes: one to three kinds of things on a background, and their rendering.

A ``Scene`` is a plain description; the same description and size give the same picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from training.artwork import artwork, colour_of, drawable
from training.backgrounds import PAINTERS, Background, paint
from training.colours import COLOURS
from training.conditions import CLEAR, Conditions, cast_shadow, over, under
from training.styles import NOTO
from training.things import Concept

Box = tuple[float, float, float, float]

# Where the groups of a scene go, by relation (the first group is left of / above / on the second).
LAYOUTS: dict[str, tuple[Box, Box]] = {
    "left": ((0.02, 0.22, 0.5, 0.94), (0.5, 0.22, 0.98, 0.94)),
    "above": ((0.12, 0.02, 0.88, 0.5), (0.12, 0.5, 0.88, 0.98)),
    "on": ((0.3, 0.06, 0.7, 0.46), (0.16, 0.36, 0.84, 0.98)),
}
ALONE: Box = (0.06, 0.08, 0.94, 0.96)
THREE: tuple[Box, Box, Box] = ((0.02, 0.05, 0.5, 0.52), (0.5, 0.05, 0.98, 0.52), (0.2, 0.5, 0.8, 1))


@dataclass(frozen=True)
class Group:
    """``count`` copies of one thing; ``colour`` is None for the drawing's own colours."""

    thing: Concept
    glyph: str
    colour: str | None = None
    count: int = 1
    style: str = NOTO

    @property
    def visible_colour(self) -> str | None:
        """The colour word that is true of it: the painted one, else the drawing's own."""
        return self.colour or colour_of(self.glyph, self.style)


@dataclass(frozen=True)
class Placement:
    """One copy: its centre and longer side in units of the canvas, angle in degrees."""

    group: int
    x: float
    y: float
    size: float
    angle: float
    flipped: bool


@dataclass(frozen=True)
class Scene:
    """``relation`` is "left", "above", "on" (first to second group) or None."""

    background: Background
    groups: tuple[Group, ...]
    relation: str | None
    placements: tuple[Placement, ...]
    conditions: Conditions = CLEAR


def thing_named(name: str) -> Concept:
    """Return the thing that has ``name`` among its names in either language; KeyError if none."""
    for thing in drawable():
        if name in thing.zh or name in {n.lstrip("~+") for n in thing.en}:
            return thing
    raise KeyError(name)


def compose(
    groups: Sequence[Group], background: Background, relation: str | None, rng: random.Random
) -> Scene:
    """Place the groups; the description is taken as given, only the layout is drawn from rng."""
    if len(groups) == 1:
        boxes: Sequence[Box] = (ALONE,)
    elif len(groups) == 2:
        boxes = LAYOUTS[relation or rng.choice(["left", "above"])]
    else:
        boxes = THREE
    placements: list[Placement] = []
    for index, (group, box) in enumerate(zip(groups, boxes, strict=True)):
        placements += _arrange(index, group.count, box, rng)
    if relation == "on":
        upper, lower = placements
        resting = lower.y - 0.3 * lower.size - 0.36 * upper.size
        upper = replace(upper, x=lower.x, y=max(resting, 0.4 * upper.size))
        placements = [lower, upper]  # what lies below is drawn first
    return Scene(background, tuple(groups), relation, tuple(placements))


def _arrange(index: int, count: int, box: Box, rng: random.Random) -> list[Placement]:
    """``count`` copies on a jittered grid inside ``box``."""
    x0, y0, x1, y1 = box
    columns = max(1, round(math.sqrt(count * (x1 - x0) / (y1 - y0))))
    rows = math.ceil(count / columns)
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    size = min(width, height) * rng.uniform(0.62, 1.0)
    placed = []
    for i in range(count):
        row, column = divmod(i, columns)
        in_row = min(columns, count - row * columns)
        slack_x, slack_y = max(0.0, width - size) / 2, max(0.0, height - size) / 2
        x = x0 + (x1 - x0) * (column + 0.5) / in_row + rng.uniform(-slack_x, slack_x)
        y = y0 + height * (row + 0.5) + rng.uniform(-slack_y, slack_y)
        angle = rng.uniform(-24, 24) if rng.random() < 0.4 else 0.0
        placed.append(
            Placement(index, x, y, size * rng.uniform(0.9, 1.0), angle, rng.random() < 0.5)
        )
    return placed


def sample(rng: random.Random) -> Scene:
    """Draw a random scene: mostly one thing, sometimes several, two in five recoloured."""
    kinds = rng.choices([1, 2, 3], weights=[52, 38, 10])[0]
    chosen: list[Concept] = []
    while len(chosen) < kinds:
        thing = rng.choice(drawable())
        if all(thing.key != other.key for other in chosen):
            chosen.append(thing)
    groups = []
    for thing in chosen:
        colour = rng.choice(list(COLOURS)) if rng.random() < 0.4 else None
        many = rng.random() < (0.35 if kinds == 1 else 0.15 if kinds == 2 else 0.0)
        count = rng.randint(2, 4 if kinds == 1 else 3) if many else 1
        groups.append(Group(thing, rng.choice(thing.glyphs), colour, count))
    relation = rng.choice(["left", "above", "on", None]) if kinds == 2 else None
    if relation == "on":  # one thing rests on one other
        groups = [Group(g.thing, g.glyph, g.colour) for g in groups]
    return compose(groups, sample_background(rng), relation, rng)


def sample_background(rng: random.Random) -> Background:
    draw = rng.random()
    if draw < 0.68:
        return Background(rng.choice(list(PAINTERS)), None, rng.getrandbits(32))
    kind = "plain" if draw < 0.88 else "gradient"
    return Background(kind, rng.choice(list(COLOURS)), rng.getrandbits(32))


def render(scene: Scene, size: int) -> Image.Image:
    """Render the scene as an RGB picture of ``size`` px squared."""
    # Small pictures are drawn twice as large and averaged down: no jagged edges at 64 px.
    canvas = size * 2 if size <= 128 else size
    picture = under(paint(scene.background, canvas), scene.conditions)
    longest = 80 if canvas <= 160 else 136
    for place in scene.placements:
        group = scene.groups[place.group]
        drawn = artwork(group.glyph, group.colour, longest, group.style)
        scale = place.size * canvas / longest
        target = (max(2, round(drawn.width * scale)), max(2, round(drawn.height * scale)))
        copy = drawn.resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
        if place.flipped:
            copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if place.angle:
            copy = copy.rotate(place.angle, Image.Resampling.BILINEAR, expand=True)
        straight = copy.convert("RGBA")
        corner = (
            round(place.x * canvas - straight.width / 2),
            round(place.y * canvas - straight.height / 2),
        )
        if scene.conditions.shadow:
            cast_shadow(picture, straight, corner, scene.conditions.shadow)
        picture.paste(straight, corner, straight)
    if scene.conditions != CLEAR:
        picture = over(picture, scene.conditions)
    return picture.reduce(2) if canvas != size else picture
