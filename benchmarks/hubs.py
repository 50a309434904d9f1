"""Measure the hubness correction: what it gains where there are hubs, and costs elsewhere.

``python -m benchmarks.hubs [--collections DIR] [--work DIR]``. The correction
(``search/calibration.py``),
the skewness from which it is used and how it grows with it were chosen on the galleries of
``benchmarks/hub_galleries.py``: scenes as a model has not seen them. They are judged on collections
of low hubness (scenes), and of high: a style that no model has seen, scenes among near-uniform
pictures, and Chinese for a model that reads none.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.calibration import encode_text
from benchmarks.expansion import MODELS, JudgedQuery, bank_of, generated_queries, pictures
from benchmarks.hub_galleries import in_batches_of, load_or_compute, odd, uniform
from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.search.calibration import (
    AUTO,
    DEFAULT_HUB_CORRECTION,
    MAX_ALPHA,
    ON,
    ScoreBaseline,
    correct_query,
    correction_alpha,
    measure_baseline,
)
from soutu.search.calibration import MAX_IMAGES as LOOKED_AT
from soutu.types import Floats
from training.collections import ensure
from training.evaluate import COLLECTIONS

ALPHAS = (0.2, 0.35, 0.5, 0.65, 0.8)
LEVELS = (
    0.0,
    DEFAULT_HUB_CORRECTION.skewed,
    4.5,
    7.0,
    12.0,
    math.inf,
)  # of skewness, for the choice
NEIGHBOURS = (16, 128)  # NNN with so few of the reference texts, for comparison
UNIFORM = 1500
QUERIES = 500  # of each kind and language
OCCURRENCES = 10
_BLOCK = 256

Figures = dict[str, object]
Ask = Callable[[str], Floats]


@dataclass(frozen=True)
class Case:
    """Queries and their vectors (q, dim), and a gallery's pictures (n, dim)."""

    name: str
    images: Floats
    judged: Sequence[JudgedQuery]
    queries: Floats


@dataclass(frozen=True)
class Collections:
    """Where the pictures are, and what a model makes of them and of their queries."""

    encoder: Encoder
    folder: Path
    work: Path

    def pictures(self, name: str) -> Floats:
        return pictures(self.encoder, self.folder / name, self.work / name)

    def case(self, name: str, lang: str, ask: Ask | None = None) -> Case:
        judged = generated_queries(self.folder / name, lang, QUERIES)
        ask = ask or (lambda text: encode_text(self.encoder, text))
        queries = np.stack([ask(query.zh) for query in judged])
        return Case(f"{name} {lang}", self.pictures(name), judged, queries)

    def judged_on(self) -> Iterator[Case]:
        mark = self.encoder.info.fingerprint[:16]
        flat = load_or_compute(
            self.work / f"uniform-{mark}.npy",
            lambda: in_batches_of(self.encoder.encode_images, uniform(UNIFORM)),
        )
        none = np.zeros(len(flat), bool)
        for lang in ("zh", "en"):
            scenes = self.case("scenes", lang)
            yield scenes
            yield self.case("style", lang)
            mixed = np.vstack([scenes.images, flat])
            asks = [replace(a, right=np.concatenate([a.right, none])) for a in scenes.judged]
            yield Case(f"uniform {lang}", mixed, asks, scenes.queries)
        if "zh" not in self.encoder.info.languages:
            raw = self.case("scenes", "zh", lambda text: self.encoder.encode_texts([text])[0])
            yield replace(raw, name="scenes zh unread")

    def chosen_on(self) -> Iterator[Case]:
        name = "composition"
        cases = [self.case(name, lang) for lang in ("zh", "en")]
        yield from cases
        plain = self.pictures(name)
        for changed, vectors in odd(self.encoder, self.folder / name, plain, self.work):
            for case in cases:
                yield replace(case, name=f"{changed}, {case.name}", images=vectors)


def reference_of(case: Case, bank: Floats) -> ScoreBaseline:
    order = np.random.default_rng(0).permutation(len(case.images))[:LOOKED_AT]
    return measure_baseline(case.images[order], bank, images=len(case.images), texts="reference")


def first_right(case: Case, queries: Floats, bias: Floats | None = None) -> np.ndarray:
    """Whether each query's first picture is right; ``bias`` (n,) is taken from the scores."""
    right = []
    for query, vector in zip(case.judged, queries, strict=True):
        scores = case.images @ vector
        right.append(query.right[int((scores if bias is None else scores - bias).argmax())])
    return np.array(right, bool)


def corrected_queries(case: Case, reference: ScoreBaseline, alpha: float) -> Floats:
    """The queries, corrected."""
    return np.stack([correct_query(query, reference, alpha) for query in case.queries])


def occurrences(case: Case, queries: Floats) -> float:
    """Skewness of N₁₀, how often a picture is among a query's first ten."""
    counts = np.zeros(len(case.images))
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ case.images.T
        best = np.argpartition(-scores, OCCURRENCES, axis=1)[:, :OCCURRENCES]
        np.add.at(counts, best.ravel(), 1)
    deviation = counts - counts.mean()
    third, spread = float((deviation**3).mean()), float(deviation.std())
    return third / float(spread**3)


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact p of a paired comparison that differs in so many queries (McNemar)."""
    n = better + worse
    tail: float = sum(math.comb(n, i) for i in range(min(better, worse) + 1)) / 2**n
    return min(1.0, 2 * tail)


def compare(case: Case, bank: Floats) -> Figures:
    reference = reference_of(case, bank)
    alpha = correction_alpha(reference, ON)
    off = first_right(case, case.queries)
    moved = corrected_queries(case, reference, alpha)
    on = first_right(case, moved)
    better, worse = int((on & ~off).sum()), int((off & ~on).sum())
    nearest = np.sort(bank @ case.images.T, axis=0)[::-1]
    few = {
        f"NNN, k = {k}": round(
            float(first_right(case, case.queries, alpha * nearest[:k].mean(axis=0)).mean()), 4
        )
        for k in NEIGHBOURS
    }
    return {
        "pictures": len(case.images),
        "queries": len(case.judged),
        "skewness": round(reference.skewness, 2),
        "alpha": round(alpha, 3),
        "corrects": correction_alpha(reference, AUTO) > 0,
        "R@1 off": round(float(off.mean()), 4),
        "R@1 on": round(float(on.mean()), 4),
        "better, worse": [better, worse],
        "p": round(sign_test(better, worse), 4),
        "k-occurrence skewness off": round(occurrences(case, case.queries), 2),
        "k-occurrence skewness on": round(occurrences(case, moved), 2),
        **few,
        "cost in µs": round(cost(case, reference, alpha), 1),
    }


def cost(case: Case, reference: ScoreBaseline, alpha: float) -> float:
    """Microseconds that the correction adds to a query."""
    start = time.perf_counter()
    for query in case.queries:
        correct_query(query, reference, alpha)
    return (time.perf_counter() - start) / len(case.queries) * 1e6


def gains(case: Case, bank: Floats) -> tuple[float, list[float]]:
    """Skewness, and by how many points of R@1 each of ``ALPHAS`` and what is taken by itself are
    above nothing."""
    reference = reference_of(case, bank)
    off = first_right(case, case.queries).mean()
    tried = (*ALPHAS, correction_alpha(reference, AUTO))
    on = [first_right(case, corrected_queries(case, reference, alpha)).mean() for alpha in tried]
    return reference.skewness, [100 * float(rate - off) for rate in on]


def choice(results: Sequence[tuple[float, list[float]]]) -> list[Figures]:
    """The mean gains by level of skewness."""
    rows: list[Figures] = []
    for low, high in pairwise(LEVELS):
        of_level = [points for skewness, points in results if low <= skewness < high]
        means = np.mean(of_level, axis=0).round(2).tolist()
        names = [*(f"{alpha:g}" for alpha in ALPHAS), "by itself"]
        points = dict(zip(names, means, strict=True))
        rows.append({"skewness from": low, "cases": len(of_level), "points of R@1": points})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    results: Figures = {"correction": {**vars(DEFAULT_HUB_CORRECTION), "most": MAX_ALPHA}}
    points = []
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        collections = Collections(encoder, options.collections, options.work)
        points += [gains(case, bank) for case in collections.chosen_on()]
        results[model] = table = {}
        for case in collections.judged_on():
            table[case.name] = compare(case, bank)
            print(f"{model:8} {case.name:18} {table[case.name]}", flush=True)
    results["chosen on"] = choice(points)
    print(results["chosen on"])
    print(save("hubs", results))


if __name__ == "__main__":
    main()
