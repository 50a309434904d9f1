"""``photo-en``: the text tower of a model that has seen no Chinese, for measuring expansion.

A small convolutional network from nothing, whose vocabulary is Latin and whose training texts are
English. It learns to give a text the vector that ``photo``'s text tower gives it, so both share
the image tower. Chinese characters are unknown tokens to it, as they nearly are to CLIP.

``python -m training.photo.english --run RUN --photos FOLDER --out RUN``
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.photo import corpus
from training.photo.fitting import load
from training.photo.objectives import imitate
from training.photo.packed_inputs import read_inputs
from training.photo.prepare import INPUTS, TEMPLATES, token_ids
from training.photo.text_tower import TextTower
from training.photo.vocabulary import HAN, SPECIAL, Vocabulary, build_tokenizer

WIDTH, DIM, LAYERS = 192, 512, 3
SPANS = 12000  # parts of captions, as short queries are
SCALE = 20.0


class EnglishTower(nn.Module):
    """Embeddings, residual convolutions of three tokens, mean and maximum, two linear layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size, WIDTH, padding_idx=0)
        self.layers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS))
        self.up, self.down = nn.Linear(2 * WIDTH, DIM), nn.Linear(DIM, DIM)
        nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Return unit vectors, float32 (n, 512), of token ids, int64 (n, length)."""
        mask = (ids != 0).float().unsqueeze(2)
        x = self.table(ids) * mask
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = (x + F.gelu(layer(norm(x).mul(mask).transpose(1, 2)).transpose(1, 2))) * mask
        mean = x.sum(1) / mask.sum(1).clamp(min=1)
        most = (x - (1 - mask) * 1e4).amax(1)
        y = self.down(F.gelu(self.up(torch.cat([mean, most], 1))))
        return F.normalize(y, dim=1)


def latin_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    """Keep the special tokens and every piece without a Chinese character."""
    places = [
        i
        for i, piece in enumerate(vocabulary.pieces)
        if piece in SPECIAL or not re.search(f"[{HAN}]", piece)
    ]
    return Vocabulary(
        tuple(vocabulary.pieces[i] for i in places),
        tuple(vocabulary.scores[i] for i in places),
        vocabulary.rows[places],
    )


def spans(captions: list[str], count: int, seed: int) -> list[str]:
    """Cut ``count`` parts of two to six words out of captions."""
    draw, parts = random.Random(seed), []
    for _ in range(count):
        words = draw.choice(captions).rstrip(" .").split()
        length = min(len(words), draw.randint(2, 6))
        start = draw.randint(0, len(words) - length)
        parts.append(" ".join(words[start : start + length]))
    return parts


def english_texts(root: Path, seed: int) -> list[str]:
    """Collect captions, parts of captions, names in and out of templates."""
    captions = [c for five in corpus.read_split(root, "train").captions["en"] for c in five[:3]]
    words = [*corpus.read_class_names(root), *corpus.read_tags(root), *corpus.read_lexicon()]
    words += [word for word, _ in corpus.read_broader()]
    names = sorted({name for word in words for name in word.english})
    framed = [TEMPLATES[0][i % 2].format(name) for i, name in enumerate(names)]
    return [*captions, *spans(captions, SPANS, seed), *names, *framed]


def encode(tower: nn.Module, tokenizer: Tokenizer, texts: list[str], batch: int = 256) -> Tensor:
    """Encode texts in order of length, which saves padding."""
    ids = torch.from_numpy(token_ids(tokenizer, texts)).long()
    order = (ids != 0).sum(1).argsort()
    vectors = torch.empty(len(texts), DIM)
    with torch.no_grad():
        for rows in torch.split(order, batch):
            chunk = ids[rows]
            vectors[rows] = tower(chunk[:, : int((chunk != 0).sum(1).max())])
    return vectors


def train(
    teacher: TextTower, vocabulary: Vocabulary, texts: list[str], *, steps: int, seed: int
) -> tuple[EnglishTower, Vocabulary]:
    """Train the tower to the teacher's vectors of ``texts``."""
    torch.manual_seed(seed)
    latin = latin_vocabulary(vocabulary)
    target = encode(teacher.eval(), build_tokenizer(vocabulary.pieces, vocabulary.scores), texts)
    print("teacher's vectors computed", flush=True)
    ids = torch.from_numpy(token_ids(build_tokenizer(latin.pieces, latin.scores), texts)).long()
    tower = EnglishTower(len(latin))
    optimiser = torch.optim.AdamW(tower.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        rows = torch.randint(len(texts), (192,))
        chunk = ids[rows][:, : int((ids[rows] != 0).sum(1).max())]
        mine, theirs = tower(chunk), target[rows]
        loss = 3 * (1 - (mine * theirs).sum(1).mean())
        loss = loss + imitate(SCALE * mine @ theirs.T, SCALE * theirs @ theirs.T)
        for group in optimiser.param_groups:
            group["lr"] = (
                2e-3 * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            cosine = float((mine * theirs).sum(1).mean().detach())
            print(f"{step}: loss {loss.item():.3f}, cosine {cosine:.3f}", flush=True)
    return tower.eval(), latin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    inputs = read_inputs(args.inputs, torch.device("cpu"))
    model, _ = load(inputs, args.run)
    texts = english_texts(args.photos, args.seed)
    tower, latin = train(model.text, inputs.vocabulary, texts, steps=args.steps, seed=args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(tower.state_dict(), args.out / "english.pt")
    described = {"pieces": latin.pieces, "scores": [round(s, 3) for s in latin.scores]}
    (args.out / "english.json").write_text(json.dumps(described), encoding="utf-8")


if __name__ == "__main__":
    main()
