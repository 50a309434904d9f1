"""Can a search tell that nothing which is asked for is there?

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
from benchmarks.galleries import (
    ABSENT,
    COLOUR,
    FITTED_ON,
    JUDGED_ON,
    NEAR,
    PRESENT,
    Ask,
    drawn,
    galleries,
)
from benchmarks.record import save
from benchmarks.reliability_plot import draw
from soutu.evaluation.absence import fit
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.query.expansion import LexiconExpander, select_variants, variants
from soutu.search.calibration import ANY, THIS, Calibration, measure_baseline
from soutu.search.fusion import POOLINGS
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
class Seen:
    """One query in one gallery. ``hits``: (standing, right) of the ten best."""

    ask: Ask
    images: int
    standing: float
    cosine: float
    z: float
    hits: tuple[tuple[float, bool], ...]

    @property
    def present(self) -> bool:
        return self.ask.how == PRESENT


def encoded(encoder: Encoder, text: str) -> Floats:
    """A text's vector as a gallery searches for it."""
    said = variants(text, LexiconExpander())
    used = [v for v in select_variants(said, encoder.info.languages) if not v.unused]
    return POOLINGS["mean"](encoder.encode_texts([v.text for v in used]), used)[0]


def look(
    encoder: Encoder, scenes: Sequence[Scene], vectors: Floats, bank: Floats, seed: int
) -> Iterator[Seen]:
    known: dict[str, Floats] = {}
    for size, count in SIZES.items():
        for gallery in galleries(scenes, size, count, seed + size):
            inside = vectors[list(gallery.scenes)]
            order = np.random.default_rng(0).permutation(size)
            reference = measure_baseline(inside[order], bank, images=size, texts="")
            for ask in gallery.asked:
                text = ask.said.text
                if text not in known:
                    known[text] = encoded(encoder, text)
                scores = inside @ known[text]
                best = np.argsort(-scores, kind="stable")[:TOP]
                hits = tuple(
                    (
                        reference.standing(float(scores[at]), size),
                        ask.said.fits(scenes[gallery.scenes[at]]),
                    )
                    for at in best
                )
                top = float(scores[best[0]])
                z = (top - float(scores.mean())) / float(scores.std())
                yield Seen(ask, size, reference.standing(top, size), top, z, hits)


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    """The share of (right, wrong) pairs that are in order, a tie counting half."""
    wrong = np.sort(scores[~right])
    below = np.searchsorted(wrong, scores[right], "left")
    level = np.searchsorted(wrong, scores[right], "right")
    return float((below + level).mean() / 2 / len(wrong))


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 2017) over ten bins of equal width."""
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    parts = [(at == one) for one in range(BINS) if (at == one).any()]
    return float(sum(abs(p[m].mean() - right[m].mean()) * m.mean() for m in parts))


def judged(seen: Sequence[Seen], calibration: Calibration) -> Figures:
    right = np.array([one.present for one in seen])
    p = probabilities(seen, calibration)
    return {
        "queries": len(seen),
        "AUROC": round(auroc(p, right), 3),
        "AUROC of the best cosine": round(auroc(np.array([s.cosine for s in seen]), right), 3),
        "AUROC of its z-score": round(auroc(np.array([s.z for s in seen]), right), 3),
        "ECE": round(calibration_error(p, right), 3),
    }


def probabilities(seen: Sequence[Seen], calibration: Calibration) -> np.ndarray:
    return np.array([calibration.probability(one.standing, one.images) for one in seen])


def report(seen: Sequence[Seen], calibration: Calibration) -> Figures:
    """All of the galleries of 300, and these by kind of query and by what is wrong with it."""
    main = [one for one in seen if one.images == MAIN]
    found: Figures = {f"{MAIN} pictures": judged(main, calibration)}
    for lang in ("zh", "en"):
        for kind in KINDS:
            part = [one for one in main if (one.ask.lang, one.ask.kind) == (lang, kind)]
            found[f"{lang} {kind}"] = judged(part, calibration)
    for how in (COLOUR, NEAR, ABSENT):
        told = judged([one for one in main if one.ask.how in (PRESENT, how)], calibration)
        found[how] = {name: value for name, value in told.items() if name != "ECE"}
    for size in SIZES:
        sized = [one for one in seen if one.images == size]
        found[f"among {size}"] = judged(sized, calibration)
    found["all sizes"] = judged(seen, calibration)
    return found


def hits_of(seen: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(standing, pictures, right) of every hit."""
    rows = [(s, one.images, right) for one in seen for s, right in one.hits]
    standing, images, right = (np.array(column) for column in zip(*rows, strict=True))
    return standing, images, right.astype(bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    fitting, judging = list(scenes_of(FITTED_ON)), list(scenes_of(JUDGED_ON))
    seen: dict[str, list[Seen]] = {}
    develop: list[Seen] = []
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        develop += look(encoder, fitting, drawn(encoder, FITTED_ON, options.work), bank, 1)
        vectors = pictures(encoder, options.collections / "scenes", options.work)
        seen[model] = list(look(encoder, judging, vectors, bank, 2))
        print(model, len(seen[model]), "queries")
    sizes = np.array([one.images for one in develop])
    standing = np.array([one.standing for one in develop])
    fitted = {
        "any": fit(standing, sizes, np.array([one.present for one in develop])),
        "this": fit(*hits_of(develop)),
    }
    print("fitted", fitted, "in force", ANY, THIS)
    found: Figures = {
        "fitted": {n: [c.scale, c.growth, c.offset] for n, c in fitted.items()},
        "in force": {n: [c.scale, c.growth, c.offset] for n, c in (("any", ANY), ("this", THIS))},
    }
    curves: dict[str, Mapping[str, np.ndarray]] = {}
    for model, ones in seen.items():
        table = report(ones, ANY)
        hits, images, right = hits_of(ones)
        p = np.array([THIS.probability(s, int(n)) for s, n in zip(hits, images, strict=True)])
        table["hits"] = {"AUROC": round(auroc(p, right), 3),
                         "ECE": round(calibration_error(p, right), 3)}  # fmt: skip
        found[model] = table
        for name, row in table.items():
            print(f"  {model:8} {name:18} {row}")
        main_ones = [one for one in ones if one.images == MAIN]
        curves[model] = {
            "p": probabilities(main_ones, ANY),
            "right": np.array([one.present for one in main_ones]),
        }
    draw(curves, PLOT)
    print(save("calibration", found))


if __name__ == "__main__":
    main()
