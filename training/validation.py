"""Fixed scenes that training never sees, to watch it by."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.captions import caption
from training.data import pictures, scene
from training.inputs import as_input, tokens
from training.model import DualEncoder, Shape
from training.nouns import Lang


def hit_rate(queries: Tensor, images: Tensor, k: int) -> float:
    """Share of queries whose own image is among the first ``k``."""
    scores = queries @ images.T
    own = scores.diagonal()[:, None]
    return float(((scores > own).sum(dim=1) < k).float().mean())


class Validation:
    """1,000 unseen scenes, one sentence in each language, always the same."""

    def __init__(self, tokenizer: Tokenizer, shape: Shape, split: str) -> None:
        count = 1000
        self.images = as_input(pictures(split, range(count), shape.image_size))
        self.tokens = {}
        langs: tuple[Lang, ...] = ("zh", "en")
        for lang in langs:
            rng = random.Random(f"val:{lang}")
            texts = [caption(scene(split, i), lang, "sentence", rng) for i in range(count)]
            self.tokens[lang] = tokens(tokenizer, texts, shape.context)

    @torch.no_grad()
    def __call__(self, model: DualEncoder) -> dict[str, float]:
        model.eval()
        images = torch.cat([model.image(part) for part in torch.split(self.images, 250)])
        found = {}
        for lang, ids in self.tokens.items():
            queries = model.text(ids)
            for k in (1, 10):
                found[f"{lang} R@{k}"] = round(hit_rate(queries, images, k), 4)
        model.train()
        return found
