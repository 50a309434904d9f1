"""Measure how well confidence tells whether anything relevant is in a gallery.

``python -m benchmarks.calibration [--collections DIR] [--work DIR]``: galleries of 50 to 2,500
drawn scenes, a third of the queries answered there. The functions of ``search/calibration.py`` are
fitted on scenes of their own (the ones in force are compared with the fit), and judged on those of
``training.collections``: AUROC beside that of the best cosine alone and of its z-score, expected
calibration error, and a reliability plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.expansion import MODELS, bank_of, pictures
from benchmarks.record import save
from benchmarks.reliability_plot import draw
from benchmarks.scene_galleries import (
    ABSENT,
    COLOUR,
    FITTED_ON,
    JUDGED_ON,
    NEAR,
    PRESENT,
    LabelledQuery,
    galleries,
    scene_vectors,
)
from soutu.evaluation.absence import fit_logistic
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.query.expansion import LexiconExpander, propose_variants
from soutu.search.calibration import ANY, THIS, Calibration, measure_baseline
from soutu.search.searcher import pool_variants
from soutu.types import Floats
from training.collections import KINDS, ensure, scenes_of
from training.evaluate import COLLECTIONS
from training.scenes import Scene

SIZES = {50: 12, 150: 12, 300: 12, 1000: 6, 2500: 4}  # pictures → galleries
MAIN = 300
TOP = 10
BINS = 10
PLOT = Path(__file__).parents[1] / "docs" / "reliability.svg"

Figures = dict[str, object]


@dataclass(frozen=True)
class Observation:
    """One query in one gallery. ``hits``: (z-score, right) of the ten best."""

    query: LabelledQuery
    images: int
    standing: float
    cosine: float
    z: float
    hits: tuple[tuple[float, bool], ...]

    @property
    def present(self) -> bool:
        return self.query.label == PRESENT


def encode_text(encoder: Encoder, text: str) -> Floats:
    """Return the vector of a text as a gallery searches for it, with its variants."""
    variants, _ = propose_variants(text, LexiconExpander(), encoder.info.languages)
    used = [v for v in variants if not v.unused]
    return pool_variants(encoder.encode_texts([v.text for v in used]), used)[0]


def observe(
    encoder: Encoder, scenes: Sequence[Scene], vectors: Floats, bank: Floats, seed: int
) -> Iterator[Observation]:
    known: dict[str, Floats] = {}
    for size, count in SIZES.items():
        if size >= len(scenes):  # nothing would be absent
            continue
        for gallery in galleries(scenes, size, count, seed + size):
            inside = vectors[list(gallery.scenes)]
            order = np.random.default_rng(0).permutation(size)
            reference = measure_baseline(inside[order], bank, images=size, texts="")
            for query in gallery.queries:
                text = query.caption.text
                if text not in known:
                    known[text] = encode_text(encoder, text)
                scores = inside @ known[text]
                best = np.argsort(-scores, kind="stable")[:TOP]
                hits = tuple(
                    (
                        reference.z_score(float(scores[index]), size),
                        query.caption.fits(scenes[gallery.scenes[index]]),
                    )
                    for index in best
                )
                top = float(scores[best[0]])
                z = (top - float(scores.mean())) / float(scores.std())
                yield Observation(query, size, reference.z_score(top, size), top, z, hits)


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    """The share of (right, wrong) pairs that are in order, a tie counting half."""
    wrong = np.sort(scores[~right])
    below = np.searchsorted(wrong, scores[right], "left")
    level = np.searchsorted(wrong, scores[right], "right")
    return float((below + level).mean() / 2 / len(wrong))


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 2017) over ten bins of equal width."""
    index = np.minimum((p * BINS).astype(int), BINS - 1)
    parts = [(index == bin_) for bin_ in range(BINS) if (index == bin_).any()]
    return float(sum(abs(p[m].mean() - right[m].mean()) * m.mean() for m in parts))


def evaluate(observations: Sequence[Observation], calibration: Calibration) -> Figures:
    right = np.array([observation.present for observation in observations])
    p = probabilities(observations, calibration)
    return {
        "queries": len(observations),
        "AUROC": round(auroc(p, right), 3),
        "AUROC of the best cosine": round(
            auroc(np.array([s.cosine for s in observations]), right), 3
        ),
        "AUROC of its z-score": round(auroc(np.array([s.z for s in observations]), right), 3),
        "ECE": round(calibration_error(p, right), 3),
    }


def probabilities(observations: Sequence[Observation], calibration: Calibration) -> np.ndarray:
    return np.array(
        [
            calibration.probability(observation.standing, observation.images)
            for observation in observations
        ]
    )


def report(observations: Sequence[Observation], calibration: Calibration) -> Figures:
    """Evaluate the galleries of 300 pictures, also by kind of query and by label, and all sizes."""
    main = [observation for observation in observations if observation.images == MAIN]
    results: Figures = {f"{MAIN} pictures": evaluate(main, calibration)}
    for lang in ("zh", "en"):
        for kind in KINDS:
            part = [
                observation
                for observation in main
                if (observation.query.lang, observation.query.kind) == (lang, kind)
            ]
            results[f"{lang} {kind}"] = evaluate(part, calibration)
    for label in (COLOUR, NEAR, ABSENT):
        figures = evaluate(
            [observation for observation in main if observation.query.label in (PRESENT, label)],
            calibration,
        )
        results[label] = {name: value for name, value in figures.items() if name != "ECE"}
    for size in SIZES:
        sized = [observation for observation in observations if observation.images == size]
        results[f"among {size}"] = evaluate(sized, calibration)
    results["all sizes"] = evaluate(observations, calibration)
    return results


def hits_of(observations: Sequence[Observation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(standing, pictures, right) of every hit."""
    rows = [
        (s, observation.images, right)
        for observation in observations
        for s, right in observation.hits
    ]
    standing, images, right = (np.array(column) for column in zip(*rows, strict=True))
    return standing, images, right.astype(bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    fitting, judging = list(scenes_of(FITTED_ON)), list(scenes_of(JUDGED_ON))
    observations: dict[str, list[Observation]] = {}
    develop: list[Observation] = []
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        develop += observe(
            encoder, fitting, scene_vectors(encoder, FITTED_ON, options.work), bank, 1
        )
        vectors = pictures(encoder, options.collections / "scenes", options.work)
        observations[model] = list(observe(encoder, judging, vectors, bank, 2))
        print(model, len(observations[model]), "queries")
    sizes = np.array([observation.images for observation in develop])
    standing = np.array([observation.standing for observation in develop])
    fitted = {
        "any": fit_logistic(
            standing, sizes, np.array([observation.present for observation in develop])
        ),
        "this": fit_logistic(*hits_of(develop)),
    }
    print("fitted", fitted, "in force", ANY, THIS)
    results: Figures = {
        "fitted": {n: [c.scale, c.growth, c.offset] for n, c in fitted.items()},
        "in force": {n: [c.scale, c.growth, c.offset] for n, c in (("any", ANY), ("this", THIS))},
    }
    curves: dict[str, Mapping[str, np.ndarray]] = {}
    for model, part in observations.items():
        table = report(part, ANY)
        hits, images, right = hits_of(part)
        p = np.array([THIS.probability(s, int(n)) for s, n in zip(hits, images, strict=True)])
        table["hits"] = {"AUROC": round(auroc(p, right), 3),
                         "ECE": round(calibration_error(p, right), 3)}  # fmt: skip
        results[model] = table
        for name, row in table.items():
            print(f"  {model:8} {name:18} {row}")
        main_part = [observation for observation in part if observation.images == MAIN]
        curves[model] = {
            "p": probabilities(main_part, ANY),
            "right": np.array([observation.present for observation in main_part]),
        }
    draw(curves, PLOT)
    print(save("calibration", results))


if __name__ == "__main__":
    main()
