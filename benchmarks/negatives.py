"""What should a minus do: be subtracted from the query, or count against what shows it?

``python -m benchmarks.negatives [--collections DIR] [--work DIR]``: queries ``A - B``, of which a
right picture shows A and not B, on drawn scenes. Threshold and weight of ``search/searcher.py`` are
chosen on scenes of their own and judged on those of ``training.collections``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.calibration import encoded
from benchmarks.expansion import MODELS, bank_of, interval, pictures
from benchmarks.galleries import FITTED_ON, JUDGED_ON, drawn
from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.search.calibration import ScoreBaseline, measure_baseline
from soutu.search.searcher import CLEAR, PENALTY, QueryScorer
from soutu.types import Floats, Penalty
from training.captions import say
from training.collections import LANGS, ensure, scenes_of
from training.evaluate import COLLECTIONS
from training.nouns import Lang
from training.scenes import Scene

QUERIES = 200  # in each language
SUBTRACTED = (0.25, 0.5, 1.0)
THRESHOLDS = (-3.0, -2.0, -1.0, 0.0)
WEIGHTS = (1.0, 2.0, 4.0)
FIRST = 10

Figures = dict[str, object]


@dataclass(frozen=True)
class Asked:
    """``right``: shows the wanted and not the unwanted; ``both``: shows both."""

    wanted: str
    unwanted: str
    right: np.ndarray
    both: np.ndarray


def asked(scenes: Sequence[Scene], lang: Lang) -> Iterator[Asked]:
    draw = random.Random(f"negatives:{lang}")
    left = QUERIES
    while left:
        wanted = say(draw.choice(scenes), lang, "word", draw)
        showing = [scene for scene in scenes if wanted.fits(scene)]
        unwanted = say(draw.choice(showing), lang, "word", draw)
        shown = np.array([wanted.fits(scene) for scene in scenes])
        spoilt = np.array([unwanted.fits(scene) for scene in scenes])
        one = Asked(wanted.text, unwanted.text, shown & ~spoilt, shown & spoilt)
        if one.wanted != one.unwanted and one.right.sum() >= 3 and one.both.sum() >= 3:
            left -= 1
            yield one


def ways(images: Floats, reference: ScoreBaseline) -> Mapping[str, object]:
    """Scores (n,) of the pictures for the vectors of what is wanted and unwanted, by each way."""

    def subtracted(weight: float) -> object:
        return lambda a, b: images @ (a - weight * b)

    def penalised(standing: float, weight: float) -> object:
        threshold = reference.cosine(standing, len(images))
        return lambda a, b: QueryScorer(a[None], [Penalty(b, weight, threshold)]).scores(images)

    return {
        "the wanted alone": lambda a, b: images @ a,
        **{f"subtracted, {weight:g}": subtracted(weight) for weight in SUBTRACTED},
        **{
            f"penalised above {standing:g}, {weight:g}": penalised(standing, weight)
            for standing in THRESHOLDS
            for weight in WEIGHTS
        },
    }


def judged(scores: Floats, one: Asked) -> tuple[float, float, float]:
    """Average precision, whether the first is right, and how many of the first ten show both."""
    order = np.lexsort((one.right, -scores))
    at = np.flatnonzero(one.right[order]) + 1
    precision = float((np.arange(1, len(at) + 1) / at).mean())
    return precision, float(at[0] == 1), float(one.both[order[:FIRST]].mean())


def table(encoder: Encoder, scenes: Sequence[Scene], images: Floats, bank: Floats) -> Figures:
    order = np.random.default_rng(0).permutation(len(images))
    reference = measure_baseline(images[order], bank, images=len(images), texts="")
    found: Figures = {}
    for lang in LANGS:
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for one in asked(scenes, lang):
            wanted, unwanted = encoded(encoder, one.wanted), encoded(encoder, one.unwanted)
            for name, way in ways(images, reference).items():
                rows.setdefault(name, []).append(judged(way(wanted, unwanted), one))  # type: ignore[operator]
        found[lang] = {
            name: dict(zip(("mAP", "right first", "unwanted of ten"),
                           map(interval, np.array(row).T), strict=True))
            for name, row in rows.items()
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    found: Figures = {"in force": f"penalised above {CLEAR:g}, {PENALTY:g}"}
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        parts = {
            "chosen on": (FITTED_ON, drawn(encoder, FITTED_ON, options.work)),
            "judged on": (
                JUDGED_ON, pictures(encoder, options.collections / "scenes", options.work)
            ),
        }  # fmt: skip
        found[model] = {
            purpose: table(encoder, list(scenes_of(split)), images, bank)
            for purpose, (split, images) in parts.items()
        }
        for purpose, figures in found[model].items():  # type: ignore[attr-defined]
            for lang, rows in figures.items():
                for way, row in rows.items():
                    told = "  ".join(f"{metric} {value[0]:.3f}" for metric, value in row.items())
                    print(f"{model:8} {purpose} {lang} {way:24} {told}")
    print(save("negatives", found))


if __name__ == "__main__":
    main()
