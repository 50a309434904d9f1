"""The test collections: pictures, captions, queries and which pictures answer each query.

``python -m training.collections OUT`` writes three of them, always the same:

    scenes        5,000 rich scenes in the training styles
    style         1,000 scenes in an artist's style that no model has seen (OpenMoji)
    composition   1,000 scenes with a thing-colour-place combination kept out of training

and, if asked for, ``slice``: 200 small ones like the first.

Pictures come in fours: a scene and three near-misses that share its main thing, in another
colour, in another place, in another number. A query's relevant pictures are all that have
what it tells, not only the one it was worded for.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.artwork import MissingArtwork, drawable
from training.backgrounds import PAINTERS
from training.captions import Kind, say
from training.conditions import sample_conditions
from training.facts import CaptionSpec, place_of
from training.nouns import Lang
from training.recipes import held_out, in_style, near_misses
from training.scenes import Scene, render, sample
from training.styles import NOTO, TRAINING, UNSEEN, installed_styles

QUALITY = 85
LANGS: tuple[Lang, ...] = ("zh", "en")
KINDS: tuple[Kind, ...] = ("word", "phrase", "sentence")
GENERATOR = (
    "artwork.py", "backgrounds.py", "captions.py", "collections.py", "colours.py",
    "conditions.py", "data/everyday.tsv", "facts.py", "nouns.py", "recipes.py", "scenes.py",
    "styles.py", "things.py",
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """``queries`` are asked for of each kind in each language; ``main`` says whether a scene's
    main thing suits the split; pictures are ``side`` px squared."""

    name: str
    pictures: int
    styles: tuple[str, ...]
    queries: int
    main: Callable[[Scene], bool]
    side: int = 256


def _has_new_combination(scene: Scene) -> bool:
    group = scene.groups[0]
    return held_out(group.thing.key, group.colour, place_of(scene))


def _any(scene: Scene) -> bool:
    return True


SPLITS = (
    Split("scenes", 5000, TRAINING, 1000, _any),
    Split("style", 1000, (UNSEEN,), 500, _any),
    Split("composition", 1000, TRAINING, 500, _has_new_combination),
)
# What the project's tests carry with them, in tests/collection.
SLICE = Split("slice", 200, TRAINING, 60, _any, side=224)


def generator_hash() -> str:
    """sha256 (first 16 hex digits) over everything that decides what the collections are: the
    code, our list of names, and the things that the installed artwork and names give."""
    digest = hashlib.sha256()
    for name in GENERATOR:
        digest.update((Path(__file__).parent / name).read_bytes())
    digest.update(repr(drawable()).encode())
    return digest.hexdigest()[:16]


def scenes_of(split: Split) -> Iterator[Scene]:
    """Yield the scenes, each followed by its three near-misses."""
    rng = random.Random(f"collection:{split.name}")
    for _ in range(split.pictures // 4):
        while not split.main(base := sample(rng)):
            pass
        for variation in (base, *near_misses(base, rng)):
            conditions = sample_conditions(variation.background, rng)
            yield replace(in_style(variation, split.styles, rng), conditions=conditions)


def queries_of(split: Split, scenes: Sequence[Scene]) -> Iterator[tuple[Lang, Kind, CaptionSpec]]:
    """Yield queries worded for scenes drawn at random, no text twice in a language."""
    rng = random.Random(f"queries:{split.name}")
    for lang in LANGS:
        seen: set[str] = set()
        for kind in KINDS:
            remaining, tries = split.queries, 0
            while remaining and tries < 50 * split.queries:
                tries += 1
                spec = say(rng.choice(scenes), lang, kind, rng)
                if spec.text not in seen:
                    seen.add(spec.text)
                    remaining -= 1
                    yield lang, kind, spec


def write(split: Split, folder: Path) -> int:
    """Write images/, captions.csv and queries.jsonl; returns how many queries there are."""
    missing = set(split.styles) - {NOTO, *installed_styles()}
    if missing:
        raise MissingArtwork(f"artwork is missing: {', '.join(sorted(missing))}; see styles.py")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    scenes = list(scenes_of(split))
    paths = [f"images/{number:05d}.jpg" for number in range(1, len(scenes) + 1)]
    rng = random.Random(f"captions:{split.name}")
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image_path", "caption", "lang"])
        for path, scene in zip(paths, scenes, strict=True):
            render(scene, split.side).save(folder / path, quality=QUALITY)
            for lang in LANGS:
                rows.writerow([path, say(scene, lang, "sentence", rng).text, lang])
    count = 0
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for lang, kind, spec in queries_of(split, scenes):
            count += 1
            relevant = [p for p, scene in zip(paths, scenes, strict=True) if spec.fits(scene)]
            row = {"id": f"{lang}-{kind}-{count}", "lang": lang, "kind": kind}
            row |= {"text": spec.text, "relevant": relevant}  # type: ignore[dict-item]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def ensure(folder: Path) -> None:
    """Write the collections into ``folder`` unless those of today's generator are there."""
    mark = folder / "generator.txt"
    if not mark.is_file() or mark.read_text() != generator_hash():
        for split in SPLITS:
            write(split, folder / split.name)
        mark.write_text(generator_hash())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=[s.name for s in (*SPLITS, SLICE)], help="only this one")
    args = parser.parse_args()
    print(f"generator {generator_hash()}, {len(drawable())} things, {len(PAINTERS)} places")
    for split in (*SPLITS, SLICE):
        if args.split == split.name or (args.split is None and split is not SLICE):
            count = write(split, args.out / split.name)
            print(f"{args.out / split.name}: {split.pictures} pictures, {count} queries")


if __name__ == "__main__":
    main()
