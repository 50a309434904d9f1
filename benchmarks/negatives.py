"""Compare ways to use a negative term: subtract it, or penalise pictures that show it.

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

from benchmarks.calibration import encode_text
from benchmarks.expansion import MODELS, bank_of, interval, pictures
from benchmarks.record import save
from benchmarks.scene_galleries import FITTED_ON, JUDGED_ON, scene_vectors
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.search.calibration import ScoreBaseline, measure_baseline
from soutu.search.searcher import PENALTY_WEIGHT, PENALTY_Z_SCORE
from soutu.types import Floats
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
class NegativeQuery:
    """``A - B``: ``right`` pictures show A and not B, ``both`` show both."""

    positive: str
    negative: str
    right: np.ndarray
    both: np.ndarray


def sample_queries(scenes: Sequence[Scene], lang: Lang) -> Iterator[NegativeQuery]:
    draw = random.Random(f"negatives:{lang}")
    left = QUERIES
    while left:
        positive = say(draw.choice(scenes), lang, "word", draw)
        showing = [scene for scene in scenes if positive.fits(scene)]
        negative = say(draw.choice(showing), lang, "word", draw)
        showing_positive = np.array([positive.fits(scene) for scene in scenes])
        showing_negative = np.array([negative.fits(scene) for scene in scenes])
        query = NegativeQuery(
            positive.text,
            negative.text,
            showing_positive & ~showing_negative,
            showing_positive & showing_negative,
        )
        if positive.text != negative.text and query.right.sum() >= 3 and query.both.sum() >= 3:
            left -= 1
            yield query


def ways(images: Floats, reference: ScoreBaseline) -> Mapping[str, object]:
    """Return by name how the vectors of A and B become scores (n,) of the pictures."""

    def subtract(weight: float) -> object:
        return lambda a, b: images @ (a - weight * b)

    def penalise(standing: float, weight: float) -> object:
        threshold = reference.cosine(standing, len(images))
        return lambda a, b: images @ a - weight * np.maximum(0, images @ b - threshold)

    return {
        "the wanted alone": lambda a, b: images @ a,
        **{f"subtracted, {weight:g}": subtract(weight) for weight in SUBTRACTED},
        **{
            f"penalised above {standing:g}, {weight:g}": penalise(standing, weight)
            for standing in THRESHOLDS
            for weight in WEIGHTS
        },
    }


def evaluate(scores: Floats, query: NegativeQuery) -> tuple[float, float, float]:
    """Average precision, whether the first is right, and how many of the first ten show both."""
    order = np.lexsort((query.right, -scores))
    ranks = np.flatnonzero(query.right[order]) + 1
    precision = float((np.arange(1, len(ranks) + 1) / ranks).mean())
    return precision, float(ranks[0] == 1), float(query.both[order[:FIRST]].mean())


def table(encoder: Encoder, scenes: Sequence[Scene], images: Floats, bank: Floats) -> Figures:
    order = np.random.default_rng(0).permutation(len(images))
    reference = measure_baseline(images[order], bank, images=len(images), texts="")
    results: Figures = {}
    for lang in LANGS:
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for query in sample_queries(scenes, lang):
            positive, negative = (
                encode_text(encoder, query.positive),
                encode_text(encoder, query.negative),
            )
            for name, way in ways(images, reference).items():
                rows.setdefault(name, []).append(evaluate(way(positive, negative), query))  # type: ignore[operator]
        results[lang] = {
            name: dict(zip(("mAP", "right first", "unwanted of ten"),
                           map(interval, np.array(row).T), strict=True))
            for name, row in rows.items()
        }  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    results: Figures = {"in force": f"penalised above {PENALTY_Z_SCORE:g}, {PENALTY_WEIGHT:g}"}
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        parts = {
            "chosen on": (FITTED_ON, scene_vectors(encoder, FITTED_ON, options.work)),
            "judged on": (
                JUDGED_ON, pictures(encoder, options.collections / "scenes", options.work)
            ),
        }  # fmt: skip
        results[model] = {
            purpose: table(encoder, list(scenes_of(split)), images, bank)
            for purpose, (split, images) in parts.items()
        }
        for purpose, figures in results[model].items():  # type: ignore[attr-defined]
            for lang, rows in figures.items():
                for way, row in rows.items():
                    cells = "  ".join(f"{metric} {value[0]:.3f}" for metric, value in row.items())
                    print(f"{model:8} {purpose} {lang} {way:24} {cells}")
    print(save("negatives", results))


if __name__ == "__main__":
    main()
