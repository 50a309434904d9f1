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
from training.facts import CaptionSpec
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
class LabelledQuery:
    lang: Lang
    kind: Kind
    caption: CaptionSpec
    label: str


@dataclass(frozen=True)
class SmallGallery:
    """``scenes``: places in the split, ascending."""

    scenes: tuple[int, ...]
    queries: tuple[LabelledQuery, ...]


def galleries(scenes: Sequence[Scene], size: int, count: int, seed: int) -> Iterator[SmallGallery]:
    draw = random.Random(seed)
    for _ in range(count):
        positions = sorted(draw.sample(range(len(scenes)), size))
        inside = [scenes[position] for position in positions]
        members = set(positions)
        twins = [
            twin
            for position in positions
            for twin in range(position // TWINS * TWINS, position // TWINS * TWINS + TWINS)
            if twin not in members
        ]
        outside = [position for position in range(len(scenes)) if position not in members]
        sources = {
            PRESENT: inside,
            NEAR: [scenes[position] for position in twins],
            ABSENT: [scenes[position] for position in outside],
        }
        queries = [
            query
            for lang in LANGS
            for kind in KINDS
            for query in _sample_queries(sources, lang, kind, draw)
        ]
        yield SmallGallery(tuple(positions), tuple(queries))


def _sample_queries(
    sources: dict[str, list[Scene]], lang: Lang, kind: Kind, draw: random.Random
) -> Iterator[LabelledQuery]:
    """Sample queries. A word names a thing, so a twin mostly answers it: take none from twins."""
    quotas = {PRESENT: EACH, NEAR: 0 if kind == "word" else EACH}
    quotas[ABSENT] = 3 * EACH - sum(quotas.values())
    seen: set[str] = set()
    for source, left in quotas.items():
        for _ in range(100 * left):
            if not left:
                break
            caption = say(draw.choice(sources[source]), lang, kind, draw)
            fits = any(caption.fits(scene) for scene in sources[PRESENT])
            if caption.text in seen or fits != (source == PRESENT):
                continue
            seen.add(caption.text)
            left -= 1
            recoloured = not fits and _without_colours(caption) != caption
            other_colour = recoloured and any(
                _without_colours(caption).fits(scene) for scene in sources[PRESENT]
            )
            yield LabelledQuery(lang, kind, caption, COLOUR if other_colour else source)


def _without_colours(caption: CaptionSpec) -> CaptionSpec:
    return replace(caption, objects=tuple(replace(item, colour=None) for item in caption.objects))


def scene_vectors(encoder: Encoder, split: Split, work: Path) -> Floats:
    """Return the vectors of the split's scenes as JPEG files; ``work`` caches them."""
    cache = work / f"{split.name}-{encoder.info.fingerprint[:16]}.npy"
    if not cache.is_file():
        shots = [_shot(scene, split.side) for scene in scenes_of(split)]
        parts = [
            encoder.encode_images([_decode(shot) for shot in shots[start : start + BATCH]])
            for start in range(0, len(shots), BATCH)
        ]
        work.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.vstack(parts))
    loaded: Floats = np.load(cache)
    return loaded


def _shot(scene: Scene, side: int) -> bytes:
    file = io.BytesIO()
    render(scene, side).save(file, "JPEG", quality=85)
    return file.getvalue()


def _decode(shot: bytes) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
