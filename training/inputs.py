"""Pictures and texts as the network takes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training.captions import Kind, say
from training.data import TRAIN, scene
from training.facts import CaptionSpec
from training.nouns import Lang
from training.scenes import Scene
from training.tokenizer import train_tokenizer
from training.variety import vary

KINDS: tuple[Kind, ...] = ("word", "phrase", "sentence")
CORPUS = 60_000  # scenes whose captions the tokenizer is made from


def tokens(tokenizer: Tokenizer, texts: list[str], context: int) -> Tensor:
    """Return padded ids (n, longest) of the texts, cut at ``context``."""
    ids = [e.ids[:context] for e in tokenizer.encode_batch(texts)]
    padded = np.zeros((len(ids), max(map(len, ids))), np.int64)
    for row, row_ids in zip(padded, ids, strict=True):
        row[: len(row_ids)] = row_ids
    return torch.from_numpy(padded)


def as_input(pictures: np.ndarray) -> Tensor:
    """uint8 (n, s, s, 3) → float (n, 3, s, s), mean and std 0.5."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    return (x / 127.5 - 1).to(memory_format=torch.channels_last)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 3 px, change light, contrast and tint, add a little noise."""
    n, _, s, _ = x.shape
    dy, dx = (int(v) for v in torch.randint(0, 7, (2,), generator=generator))
    x = F.pad(x, (3, 3, 3, 3), mode="replicate")[:, :, dy : dy + s, dx : dx + s]
    gain = 1 + (torch.rand(n, 1, 1, 1, generator=generator) - 0.5) * 0.4
    tint = (torch.rand(n, 3, 1, 1, generator=generator) - 0.5) * 0.16
    noise = torch.randn(x.shape, generator=generator) * 0.03
    return (x * gain + tint + noise).clamp(-1.2, 1.2).contiguous(memory_format=torch.channels_last)


def typed_caption(scene: Scene, lang: Lang, kind: Kind, rng: random.Random) -> CaptionSpec:
    """Word a caption to train on, as people really type, and its facts."""
    spec = say(scene, lang, kind, rng)
    return replace(spec, text=vary(spec.text, lang, rng))


def prepare_tokenizer(folder: Path, size: int, langs: Sequence[Lang]) -> Tokenizer:
    """Return the run's tokenizer, made from the captions of its scenes when it is not there yet."""
    path = folder / "tokenizer.json"
    if not path.exists():
        rng = random.Random("tokenizer")
        kinds = [rng.choice(KINDS) for _ in range(CORPUS)]
        texts = [
            typed_caption(scene(TRAIN, i), lang, kind, rng).text
            for i, kind in enumerate(kinds)
            for lang in langs
        ]
        train_tokenizer(texts, size=size).save(str(path))
    return Tokenizer.from_file(str(path))
