"""How good a bundle is: R@K on unseen scenes, through the encoder that users run.

``python -m training.evaluate [--model tiny]``. R@K here is the hit rate that CLIP papers
print: the share of sentences whose own scene is among the first K of 1,000.
"""

from __future__ import annotations

import argparse
import random

import numpy as np

from soutu.encoders.catalog import open_model
from soutu.encoders.onnx import OnnxEncoder
from soutu.types import Floats
from training.captions import caption
from training.data import scene
from training.nouns import Lang
from training.scenes import render

SIZE = 320  # as a user's file would be: the encoder's own preprocessing takes it from there


def hit_rate(scores: Floats, k: int) -> float:
    """Share of rows whose own column (i, i) has fewer than ``k`` columns above it."""
    own = np.diagonal(scores)[:, None]
    return float(((scores > own).sum(axis=1) < k).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    encoder = OnnxEncoder(open_model(args.model), "cpu")
    scenes = [scene("test", i) for i in range(args.count)]
    images = np.concatenate(
        [encoder.encode_images([np.asarray(render(one, SIZE))]) for one in scenes]
    )
    langs: tuple[Lang, ...] = ("zh", "en")
    print(f"model {encoder.card.name}, {args.count} unseen scenes, sentence queries")
    for lang in langs:
        rng = random.Random(f"test:{lang}")
        texts = [caption(one, lang, "sentence", rng) for one in scenes]
        scores = encoder.encode_texts(texts) @ images.T
        figures = [f"R@{k} {hit_rate(scores, k):.3f}" for k in (1, 5, 10)]
        back = [f"R@{k} {hit_rate(scores.T, k):.3f}" for k in (1, 10)]
        print(f"{lang}  text→image {'  '.join(figures)}   image→text {'  '.join(back)}")


if __name__ == "__main__":
    main()
