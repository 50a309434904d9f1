"""Do pictures that come first for everything get held back, and only where there are such?

``python -m benchmarks.hubs [--collections DIR] [--work DIR]``. The correction (``query/hubs.py``)
and the skewness from which it is used were chosen on scenes as a model has not seen them: grey,
inverted, as outlines and so on. They are judged on collections of low hubness (scenes), and of
high: a style that no model has seen, scenes among near-uniform pictures, and Chinese for a model
that reads none.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.calibration import encoded
from benchmarks.expansion import BATCH, MODELS, Asked, bank_of, generated, pictures
from benchmarks.record import save
from soutu.assemble import build_encoder
from soutu.encoders.base import Encoder
from soutu.query.hubs import ALPHA, AUTO, SKEWED, corrected, strength
from soutu.query.standing import MOST, Reference, measure
from soutu.sources.decode import decode
from soutu.types import Floats, Rgb
from training.collections import ensure
from training.evaluate import COLLECTIONS

NEIGHBOURS = (16, 128)  # NNN with so few of the reference texts, for comparison
UNIFORM = 1500
QUERIES = 500  # of each kind and language
OCCURRENCES = 10
_BLOCK = 256

Figures = dict[str, object]
Picture = Image.Image

CHANGES: Mapping[str, Callable[[Picture], Picture]] = {
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "inverted": ImageOps.invert,
    "outlines": lambda picture: ImageOps.invert(
        ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)
    ).convert("RGB"),
    "contours": lambda picture: picture.filter(ImageFilter.CONTOUR),
    "two tones": lambda picture: ImageOps.posterize(picture, 1),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(5)),
    "dark": lambda picture: picture.point(lambda value: value // 5),
    "coarse": lambda picture: picture.resize((24, 24)).resize((256, 256), Image.Resampling.NEAREST),
}


@dataclass(frozen=True)
class Case:
    """Queries and their vectors (q, dim) over a gallery's pictures (n, dim)."""

    name: str
    images: Floats
    asked: Sequence[Asked]
    queries: Floats


def uniform(count: int) -> list[Rgb]:
    """One colour, with a slight gradient or a little noise."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        picture = np.full((128, 128, 3), rng.integers(0, 256, 3), float)
        slope = np.linspace(-20, 20, 128)
        if number % 4 == 1:
            picture += slope[:, None, None]
        elif number % 4 == 2:
            picture += rng.normal(0, 6, picture.shape)
        elif number % 4 == 3:
            picture += slope[None, :, None] * rng.normal(0, 1, 3)
        made.append(np.clip(picture, 0, 255).astype(np.uint8))
    return made


def kept(file: Path, make: Callable[[], Floats]) -> Floats:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    loaded: Floats = np.load(file)
    return loaded


def changed(encoder: Encoder, folder: Path, change: Callable[[Picture], Picture]) -> Floats:
    paths = sorted((folder / "images").glob("*.jpg"))
    parts = [
        encoder.encode_images(
            [np.asarray(change(Image.fromarray(decode(p).rgb))) for p in paths[at : at + BATCH]]
        )
        for at in range(0, len(paths), BATCH)
    ]
    return np.vstack(parts)


def cases(encoder: Encoder, collections: Path, work: Path) -> dict[str, list[Case]]:
    """By what they are for: "chosen on" and "judged on"."""
    mark = encoder.card.fingerprint[:16]

    def asked(name: str, lang: str, ask: Callable[[str], Floats]) -> tuple[list[Asked], Floats]:
        found = generated(collections / name, lang, QUERIES)
        return found, np.stack([ask(one.zh) for one in found])

    def auto(text: str) -> Floats:
        return encoded(encoder, text)

    vectors = {
        name: pictures(encoder, collections / name, work / name)
        for name in ("scenes", "style", "composition")
    }
    flat = kept(
        work / f"uniform-{mark}.npy", lambda: in_batches_of(encoder.encode_images, uniform(UNIFORM))
    )
    chosen_on, judged_on = [], []
    for lang in ("zh", "en"):
        for name in ("scenes", "style"):
            judged_on.append(Case(f"{name} {lang}", vectors[name], *asked(name, lang, auto)))
        last = judged_on[-2]
        mixed = np.vstack([vectors["scenes"], flat])
        none = np.zeros(len(flat), bool)
        asks = [replace(one, right=np.concatenate([one.right, none])) for one in last.asked]
        judged_on.append(Case(f"uniform {lang}", mixed, asks, last.queries))
        for name, change in CHANGES.items():
            seen = kept(
                work / f"{name.replace(' ', '-')}-{mark}.npy",
                lambda change=change: changed(encoder, collections / "composition", change),  # type: ignore[misc]
            )
            chosen_on.append(Case(f"{name} {lang}", seen, *asked("composition", lang, auto)))
        chosen_on.append(
            Case(f"plain {lang}", vectors["composition"], *asked("composition", lang, auto))
        )
    if "zh" not in encoder.card.languages:
        raw = asked("scenes", "zh", lambda text: encoder.encode_texts([text])[0])
        judged_on.append(Case("scenes zh unread", vectors["scenes"], *raw))
    return {"chosen on": chosen_on, "judged on": judged_on}


def in_batches_of(encode: Callable[[Sequence[Rgb]], Floats], items: Sequence[Rgb]) -> Floats:
    return np.vstack([encode(items[at : at + BATCH]) for at in range(0, len(items), BATCH)])


def first_right(case: Case, queries: Floats, bias: Floats | None = None) -> np.ndarray:
    """Whether each query's first picture is right; ``bias`` (n,) is taken from the scores."""
    right = []
    for at, one in enumerate(case.asked):
        scores = case.images @ queries[at]
        right.append(one.right[int((scores if bias is None else scores - bias).argmax())])
    return np.array(right, bool)


def occurrences(case: Case, queries: Floats) -> float:
    """Skewness of N₁₀, how often a picture is among a query's first ten."""
    counts = np.zeros(len(case.images))
    for at in range(0, len(queries), _BLOCK):
        scores = queries[at : at + _BLOCK] @ case.images.T
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


def compare(case: Case, bank: Floats, reference: Reference) -> Figures:
    alpha = strength(reference, AUTO)
    off = first_right(case, case.queries)
    moved = np.stack([corrected(query, reference, ALPHA) for query in case.queries])
    on = first_right(case, moved)
    better, worse = int((on & ~off).sum()), int((off & ~on).sum())
    nearest = np.sort(bank @ case.images.T, axis=0)[::-1]
    few = {
        f"NNN, k = {k}": round(
            float(first_right(case, case.queries, ALPHA * nearest[:k].mean(axis=0)).mean()), 4
        )
        for k in NEIGHBOURS
    }
    return {
        "pictures": len(case.images),
        "queries": len(case.asked),
        "skewness": round(reference.skewness, 2),
        "corrects": bool(alpha),
        "R@1 off": round(float(off.mean()), 4),
        "R@1 on": round(float(on.mean()), 4),
        "better, worse": [better, worse],
        "p": round(sign_test(better, worse), 4),
        "k-occurrence skewness off": round(occurrences(case, case.queries), 2),
        "k-occurrence skewness on": round(occurrences(case, moved), 2),
        **few,
    }


def cost(case: Case, reference: Reference) -> float:
    """Microseconds that the correction adds to a query."""
    start = time.perf_counter()
    for query in case.queries:
        corrected(query, reference, ALPHA)
    return (time.perf_counter() - start) / len(case.queries) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    found: Figures = {"alpha": ALPHA, "corrects from": SKEWED}
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank = bank_of(encoder)
        table: dict[str, Figures] = {}
        for purpose, ones in cases(encoder, options.collections, options.work).items():
            table[purpose] = {}
            for case in ones:
                order = np.random.default_rng(0).permutation(len(case.images))[:MOST]
                reference = measure(
                    case.images[order], bank, images=len(case.images), texts="reference"
                )
                row = compare(case, bank, reference)
                table[purpose][case.name] = row
                print(f"{model:8} {purpose:10} {case.name:18} {row}", flush=True)
                table.setdefault("cost in µs", {})[case.name] = round(cost(case, reference), 1)
        found[model] = table
    print(save("hubs", found))


if __name__ == "__main__":
    main()
