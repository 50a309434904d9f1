"""Small galleries of drawn scenes, and queries of which a third are answered there.

Of the others some ask for what is there in another colour, some for a scene's twin (in another
colour, number or place), and the rest for what is not there at all.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from soutu.models.base import Encoder
from soutu.types import Floats, Rgb
from training.captions import Kind, say
from training.collections import KINDS, LANGS, SPLITS, Split, scenes_of
from training.facts import Said
from training.nouns import Lang
from training.scenes import Scene, render
from training.styles import TRAINING

FITTED_ON = Split("calibration", 3000, TRAINING, 0, lambda _: True)
JUDGED_ON = SPLITS[0]
TWINS = 4  # a scene and its three near-misses follow each other
EACH = 10  # queries of each kind and language that are answered; twice as many are not
BATCH = 64

PRESENT, COLOUR, NEAR, ABSENT = "present", "other colour", "near miss", "absent"


@dataclass(frozen=True)
class Ask:
    lang: Lang
    kind: Kind
    said: Said
    how: str


@dataclass(frozen=True)
class SmallGallery:
    """``scenes``: places in the split, ascending."""

    scenes: tuple[int, ...]
    asked: tuple[Ask, ...]


def galleries(scenes: Sequence[Scene], size: int, count: int, seed: int) -> Iterator[SmallGallery]:
    draw = random.Random(seed)
    for _ in range(count):
        places = sorted(draw.sample(range(len(scenes)), size))
        inside = [scenes[place] for place in places]
        there = set(places)
        twins = [
            twin
            for place in places
            for twin in range(place // TWINS * TWINS, place // TWINS * TWINS + TWINS)
            if twin not in there
        ]
        outside = [place for place in range(len(scenes)) if place not in there]
        sources = {
            PRESENT: inside,
            NEAR: [scenes[place] for place in twins],
            ABSENT: [scenes[place] for place in outside],
        }
        asked = [
            ask for lang in LANGS for kind in KINDS for ask in _asked(sources, lang, kind, draw)
        ]
        yield SmallGallery(tuple(places), tuple(asked))


def _asked(
    sources: dict[str, list[Scene]], lang: Lang, kind: Kind, draw: random.Random
) -> Iterator[Ask]:
    """Words name a thing, so a twin's word is mostly answered: those are drawn from elsewhere."""
    wanted = {PRESENT: EACH, NEAR: 0 if kind == "word" else EACH}
    wanted[ABSENT] = 3 * EACH - sum(wanted.values())
    seen: set[str] = set()
    for source, left in wanted.items():
        for _ in range(100 * left):
            if not left:
                break
            said = say(draw.choice(sources[source]), lang, kind, draw)
            fits = any(said.fits(scene) for scene in sources[PRESENT])
            if said.text in seen or fits != (source == PRESENT):
                continue
            seen.add(said.text)
            left -= 1
            recoloured = not fits and _without_colours(said) != said
            there = recoloured and any(
                _without_colours(said).fits(scene) for scene in sources[PRESENT]
            )
            yield Ask(lang, kind, said, COLOUR if there else source)


def _without_colours(said: Said) -> Said:
    return replace(said, wanted=tuple(replace(one, colour=None) for one in said.wanted))


def drawn(encoder: Encoder, split: Split, work: Path) -> Floats:
    """The vectors of the split's scenes, as JPEG files would give them; kept in ``work``."""
    kept = work / f"{split.name}-{encoder.info.fingerprint[:16]}.npy"
    if not kept.is_file():
        shots = [_shot(scene, split.side) for scene in scenes_of(split)]
        parts = [
            encoder.encode_images([_decoded(shot) for shot in shots[at : at + BATCH]])
            for at in range(0, len(shots), BATCH)
        ]
        work.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.vstack(parts))
    loaded: Floats = np.load(kept)
    return loaded


def _shot(scene: Scene, side: int) -> bytes:
    file = io.BytesIO()
    render(scene, side).save(file, "JPEG", quality=85)
    return file.getvalue()


def _decoded(shot: bytes) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
