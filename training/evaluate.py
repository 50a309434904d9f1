"""How good a bundle is, through the encoder that users run.

``python -m training.evaluate [--model tiny]`` prints R@K on 1,000 unseen scenes, plain and rich;
``--all`` prints everything that is judged, on the collections of ``training.collections`` too
(they are written first where they are not there). R@K is the hit rate that CLIP papers print:
the share of queries with a right picture among the first K.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from soutu.images.decode import decode
from soutu.models.base import Encoder
from soutu.models.bundle import Bundle, open_model, read_bundle
from soutu.models.onnx import OnnxEncoder
from soutu.types import Floats, Rgb
from training.captions import caption
from training.collections import ensure, generator_hash
from training.data import scene
from training.nouns import Lang
from training.scenes import Scene, render

SIZE = 320  # as a user's file would be: the encoder's own preprocessing takes it from there
LANGS: tuple[Lang, ...] = ("zh", "en")
SPLITS_UNSEEN = {"test": "plain", "rich-test": "rich"}
COLLECTIONS = Path("training/runs/collections")


@dataclass(frozen=True)
class JudgedQueries:
    """Queries of one kind in one language: their scores (q, n) and which pictures are right."""

    scores: Floats
    right: np.ndarray

    def hit_rate(self, k: int) -> float:
        """Share of queries with a right picture among the first ``k``; a tie with a wrong one
        counts against it."""
        best = np.where(self.right, self.scores, -np.inf).max(axis=1, keepdims=True)
        above = ((self.scores >= best) & ~self.right).sum(axis=1)
        return float((above < k).mean())

    def precision(self, k: int) -> float:
        """Mean share of right pictures among the first ``k``."""
        first = np.argsort(-self.scores, axis=1, kind="stable")[:, :k]
        return float(np.take_along_axis(self.right, first, axis=1).mean())

    def at_least(self, relevant: int) -> JudgedQueries:
        """Only the queries with so many right pictures."""
        keep = self.right.sum(axis=1) >= relevant
        return JudgedQueries(self.scores[keep], self.right[keep])


def encode(encoder: Encoder, pictures: Sequence[Callable[[], Rgb]]) -> Floats:
    """Vectors of pictures that are made or read one batch at a time."""
    parts = [
        encoder.encode_images([make() for make in pictures[start : start + 64]])
        for start in range(0, len(pictures), 64)
    ]
    return np.concatenate(parts)


def _render(item: Scene) -> Rgb:
    return np.asarray(render(item, SIZE))


def _read(path: Path) -> Rgb:
    return decode(path).rgb


def unseen(encoder: Encoder, split: str, count: int) -> dict[Lang, JudgedQueries]:
    """One sentence for each of the first ``count`` scenes of a split that training never draws
    from; only its own scene is right."""
    scenes = [scene(split, i) for i in range(count)]
    images = encode(encoder, [partial(_render, item) for item in scenes])
    judged: dict[Lang, JudgedQueries] = {}
    for lang in LANGS:
        rng = random.Random(f"test:{lang}")
        texts = [caption(item, lang, "sentence", rng) for item in scenes]
        scores = encoder.encode_texts(texts) @ images.T
        judged[lang] = JudgedQueries(scores, np.eye(count, dtype=bool))
    return judged


def collection(encoder: Encoder, folder: Path) -> dict[tuple[str, str], JudgedQueries]:
    """Judge the queries of a collection on disk, by (language, kind)."""
    paths = sorted(p.relative_to(folder).as_posix() for p in (folder / "images").iterdir())
    images = encode(encoder, [partial(_read, folder / path) for path in paths])
    column = {path: i for i, path in enumerate(paths)}
    queries: dict[tuple[str, str], list[dict[str, object]]] = {}
    for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        queries.setdefault((row["lang"], row["kind"]), []).append(row)
    judged = {}
    for key, rows in queries.items():
        right = np.zeros((len(rows), len(paths)), bool)
        for query, row in zip(right, rows, strict=True):
            query[[column[path] for path in row["relevant"]]] = True  # type: ignore[attr-defined]
        vectors = encoder.encode_texts([str(row["text"]) for row in rows])
        judged[key] = JudgedQueries(vectors @ images.T, right)
    return judged


def agreement(encoder: Encoder, count: int = 1000) -> dict[str, float]:
    """How near Chinese and English captions of one scene are, beside those of different ones."""
    pairs: dict[str, str] = {}
    for index in range(2 * count):
        item, rng = scene("pairs", index), random.Random(f"pairs:{index}")
        zh, en = (caption(item, lang, "sentence", rng) for lang in LANGS)
        if zh not in pairs and en not in pairs.values() and len(pairs) < count:
            pairs[zh] = en
    cosines = encoder.encode_texts(list(pairs)) @ encoder.encode_texts(list(pairs.values())).T
    same = np.eye(len(pairs), dtype=bool)
    return {
        "paired": float(cosines[same].mean()),
        "unpaired": float(cosines[~same].mean()),
        "zh→en R@1": JudgedQueries(cosines, same).hit_rate(1),
    }


def milliseconds(work: Callable[[], object], runs: int = 50) -> float:
    """Median time of one call."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1000)


def print_unseen(encoder: Encoder, count: int) -> dict[str, float]:
    """R@K on plain and on rich scenes; returns R@1 by split and language."""
    first = {}
    for split, label in SPLITS_UNSEEN.items():
        for lang, judged in unseen(encoder, split, count).items():
            back = JudgedQueries(judged.scores.T, judged.right.T)
            figures = "  ".join(f"R@{k} {judged.hit_rate(k):.3f}" for k in (1, 5, 10))
            print(f"{label:<12} {lang} sentence  {figures}   image→text R@1 {back.hit_rate(1):.3f}")
            first[f"{label} {lang}"] = judged.hit_rate(1)
    return first


def print_collections(encoder: Encoder, folder: Path) -> None:
    """Everything that is judged on the three collections."""
    for name in ("scenes", "style", "composition"):
        for (lang, kind), judged in collection(encoder, folder / name).items():
            figures = [f"R@{k} {judged.hit_rate(k):.3f}" for k in (1, 5, 10)]
            many = judged.at_least(10)
            if kind == "word" and len(many.scores):
                figures.append(f"P@5 {many.precision(5):.3f} (of {len(many.scores)} words)")
            print(f"{name:<12} {lang} {kind:<9} {'  '.join(figures)}")


def print_rest(bundle: Bundle) -> None:
    """Agreement of the languages, time on one core, size."""
    encoder = OnnxEncoder(bundle, "cpu", threads=1)
    figures = agreement(encoder)
    print("captions     " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    picture = np.zeros((300, 300, 3), np.uint8)
    image_ms = milliseconds(lambda: encoder.encode_images([picture]))
    text_ms = milliseconds(lambda: encoder.encode_texts(["雪地里的一只灰猫"]))
    size = sum(p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file())
    print(f"one core     image {image_ms:.2f} ms  query {text_ms:.2f} ms   {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="an embedded model or a bundle folder")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--all", action="store_true", help="judge on the collections as well")
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--against", type=Path, help="a float32 bundle of the same model")
    args = parser.parse_args()
    bundle = open_model(args.model)
    encoder = OnnxEncoder(bundle, "cpu")
    print(f"model {encoder.info.space}, {args.count} unseen scenes, generator {generator_hash()}")
    first = print_unseen(encoder, args.count)
    if args.all:
        ensure(args.collections)
        print_collections(encoder, args.collections)
        print_rest(bundle)
    if args.against:
        print(f"against {args.against}:")
        float32 = print_unseen(OnnxEncoder(read_bundle(args.against), "cpu"), args.count)
        lost = "  ".join(f"{name} {float32[name] - first[name]:+.3f}" for name in first)
        print(f"R@1 lost by packing: {lost}")


if __name__ == "__main__":
    main()
