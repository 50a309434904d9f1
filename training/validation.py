"""Fixed scenes that training never sees, to watch it by."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.captions import caption, say
from training.data import pictures, scene
from training.inputs import as_input, tokens
from training.model import DualEncoder, Shape
from training.nouns import Lang

SPLIT, SENTENCES, SCENES = "rich-val", 1000, 2000
MANY = 10  # a word is asked for when so many scenes answer it


def hit_rate(queries: Tensor, images: Tensor, k: int) -> float:
    """Share of queries whose own image is among the first ``k``."""
    scores = queries @ images.T
    own = scores.diagonal()[:, None]
    return float(((scores > own).sum(dim=1) < k).float().mean())


def precision(queries: Tensor, images: Tensor, right: Tensor, k: int) -> float:
    """Mean share of right images, ``right`` bool (queries, images), among the first ``k``."""
    first = (queries @ images.T).topk(k, dim=1).indices
    return float(right.gather(1, first).float().mean())


class Validation:
    """1,000 unseen scenes with one sentence in each language, and words that have at least ten
    answers among 2,000; always the same."""

    def __init__(self, tokenizer: Tokenizer, shape: Shape, langs: Sequence[Lang]) -> None:
        self.images = as_input(pictures(SPLIT, range(SCENES), shape.image_size))
        scenes = [scene(SPLIT, i) for i in range(SCENES)]
        self.sentences, self.words = {}, {}
        for lang in langs:
            rng = random.Random(f"val:{lang}")
            texts = [caption(item, lang, "sentence", rng) for item in scenes[:SENTENCES]]
            self.sentences[lang] = tokens(tokenizer, texts, shape.context)
            specs = {spec.text: spec for item in scenes if (spec := say(item, lang, "word", rng))}
            right = torch.tensor([[spec.fits(s) for s in scenes] for spec in specs.values()])
            many = right.sum(dim=1) >= MANY
            texts = [text for text, keep in zip(specs, many, strict=True) if keep]
            self.words[lang] = tokens(tokenizer, texts, shape.context), right[many]

    @torch.no_grad()
    def __call__(self, model: DualEncoder) -> dict[str, float]:
        model.eval()
        images = torch.cat([model.image(part) for part in torch.split(self.images, 250)])
        figures = {}
        for lang, ids in self.sentences.items():
            queries = model.text(ids)
            for k in (1, 10):
                figures[f"{lang} R@{k}"] = round(hit_rate(queries, images[:SENTENCES], k), 4)
            ids, right = self.words[lang]
            figures[f"{lang} word P@5"] = round(precision(model.text(ids), images, right, 5), 4)
        return figures
