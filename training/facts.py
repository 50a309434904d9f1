"""Captions as facts: what a text asks for, and which scenes have it."""

from __future__ import annotations

from dataclasses import dataclass

from training.scenes import Group, Scene
from training.things import keys_of

# A drawn place and the condition that is called by the same words.
SAME_WORDS = {"rain": "rain", "snow": "snow", "night": "night", "sunset": "dusk"}


def place_of(scene: Scene) -> str:
    """Return the drawn place, or the plain background by its colour."""
    background = scene.background
    return background.kind if background.colour is None else f"plain {background.colour}"


@dataclass(frozen=True)
class ObjectSpec:
    """One thing that a text names; None for what it leaves open."""

    thing: str
    colour: str | None = None
    count: int | None = None

    def fits(self, group: Group) -> bool:
        return (
            self.thing in keys_of(group.thing)
            and (self.colour is None or self.colour == group.visible_colour)
            and (self.count is None or self.count == group.count)
        )


@dataclass(frozen=True)
class CaptionSpec:
    """A text and its facts: the things, the place, the relation of the first thing to the
    second, and weather or time of day."""

    text: str
    objects: tuple[ObjectSpec, ...] = ()
    place: str | None = None
    relation: str | None = None
    conditions: tuple[str, ...] = ()

    def fits(self, scene: Scene) -> bool:
        """Whether the scene has all that the text tells."""
        return self._place_fits(scene) and self._conditions_fit(scene) and self._objects_fit(scene)

    def _place_fits(self, scene: Scene) -> bool:
        if self.place in (None, place_of(scene)):
            return True
        called = SAME_WORDS.get(str(self.place))
        return called is not None and called in (scene.conditions.weather, scene.conditions.time)

    def _conditions_fit(self, scene: Scene) -> bool:
        conditions = {scene.conditions.weather, scene.conditions.time, *_condition_of(scene)}
        return set(self.conditions) <= conditions

    def _objects_fit(self, scene: Scene) -> bool:
        if self.relation is None:
            return all(any(item.fits(group) for group in scene.groups) for item in self.objects)
        if scene.relation != self.relation or len(scene.groups) != len(self.objects):
            return False
        return all(item.fits(group) for item, group in zip(self.objects, scene.groups, strict=True))


def _condition_of(scene: Scene) -> tuple[str, ...]:
    called = SAME_WORDS.get(scene.background.kind)
    return (called,) if called else ()
