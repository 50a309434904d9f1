"""The text tower: multilingual USE, a bag of words and characters, two heads and a gate.

A query's vector has a caption part and a name part, as a photograph's has. The gate is an angle:
the parts weigh cos θ and sin θ, so a sentence can rely on what captions taught and 雪纳瑞 on what
the ImageNet classifier knows, without either costing the other.

The bag knows Chinese by characters and pairs of characters, English by pieces and pairs of
pieces. Pairs inside a piece are looked up once, at export; pairs across pieces are hashed in the
graph from the last unit of one piece and the first of the next.
"""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.photo.image_tower import CAPTION_DIM, NAME_DIM
from training.photo.sentence_encoder import DIM, SentenceEncoder
from training.photo.vocabulary import HAN, SPACE, SPECIAL

BUCKETS = 16381  # prime: rows for pairs; row 0 of the units is the padding
MULTIPLIER = 7919
WIDTH = 128


def units_of(piece: str) -> list[str]:
    """Split a piece into what the bag counts: Chinese characters, or the piece itself."""
    if piece in SPECIAL or piece == SPACE:
        return []
    body = piece.removeprefix(SPACE)
    return list(body) if re.fullmatch(f"[{HAN}]+", body) else [piece]


def pair_bucket(first: Tensor, second: Tensor) -> Tensor:
    """Hash two unit ids (int64, broadcast) to a bucket from 0 to ``BUCKETS - 1``."""
    return (first * MULTIPLIER + second) % BUCKETS


class Bag(nn.Module):
    """Mean embedding of a text's units and of the pairs of neighbouring units.

    Parameters
    ----------
    pieces : tuple of str
        The vocabulary; its units become rows of the unit table.
    width : int
        Dimensions of the embeddings.
    """

    inside: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, pieces: tuple[str, ...], width: int = WIDTH) -> None:
        super().__init__()
        known: dict[str, int] = {}
        split = [[known.setdefault(u, len(known) + 1) for u in units_of(p)] for p in pieces]
        longest = max(map(len, split))
        inside = torch.zeros(len(pieces), longest, dtype=torch.int64)
        for row, units in zip(inside, split, strict=True):
            row[: len(units)] = torch.tensor(units)
        ends = torch.tensor([[u[0], u[-1]] if u else [0, 0] for u in split])
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("first", ends[:, 0].clone(), persistent=False)
        self.register_buffer("last", ends[:, 1].clone(), persistent=False)
        self.units = nn.Embedding(len(known) + 1, width, padding_idx=0)
        self.pairs = nn.Embedding(BUCKETS, width)
        nn.init.normal_(self.units.weight, std=0.05)
        nn.init.normal_(self.pairs.weight, std=0.02)
        self.units.weight.data[0] = 0

    def piece_rows(self) -> Tensor:
        """Sum each piece's units and inner pairs: (pieces, width), the exported table."""
        return self._rows(self.inside)

    def _rows(self, inside: Tensor) -> Tensor:
        pairs = pair_bucket(inside[..., :-1], inside[..., 1:])
        real = ((inside[..., :-1] > 0) & (inside[..., 1:] > 0)).unsqueeze(-1)
        rows: Tensor = self.units(inside).sum(-2) + (self.pairs(pairs) * real).sum(-2)
        return rows

    def forward(self, ids: Tensor, drop: float = 0.0) -> Tensor:
        """Return the bag of token ids (n, length); ``drop`` is the share of tokens left out."""
        left, right = self.last[ids[:, :-1]], self.first[ids[:, 1:]]
        single = self._rows(self.inside[ids])
        double = self.pairs(pair_bucket(left, right))
        real = ((left > 0) & (right > 0)).to(double.dtype)
        counts = (self.first[ids] > 0).to(double.dtype)
        if drop:
            keep = (torch.rand_like(counts) >= drop).to(double.dtype)
            single, counts = single * keep[..., None], counts * keep
            real = real * (torch.rand_like(real) >= drop)
        total: Tensor = single.sum(1) + (double * real[..., None]).sum(1)
        return total / (counts.sum(1, keepdim=True) + real.sum(1, keepdim=True)).clamp(min=1)


class TextHead(nn.Module):
    """Sentence vector and bag to a unit vector."""

    def __init__(self, dim: int, width: int = WIDTH, hidden: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, dim)
        self.up, self.down = nn.Linear(DIM, hidden), nn.Linear(hidden, dim)
        self.bag = nn.Linear(width, dim, bias=False)
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, sentence: Tensor, bag: Tensor) -> Tensor:
        y = self.linear(sentence) + 0.3 * self.down(F.gelu(self.up(sentence))) + self.bag(bag)
        return F.normalize(y, dim=1)


class Gate(nn.Module):
    """The angle between the parts: 0 is captions alone, π/2 names alone."""

    def __init__(self, width: int = WIDTH, hidden: int = 128) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(DIM + width + 1, hidden), nn.Linear(hidden, 1)

    def forward(self, sentence: Tensor, bag: Tensor, ids: Tensor) -> Tensor:
        length = ((ids != 0).sum(1, keepdim=True).float() - 2).clamp(min=1).log()
        x = torch.cat([sentence * 4, bag, length], 1)
        return torch.sigmoid(self.down(F.gelu(self.up(x)))) * (math.pi / 2)


class TextTower(nn.Module):
    """Token ids to unit vectors of ``CAPTION_DIM + NAME_DIM + 1`` dimensions.

    Parameters
    ----------
    sentence : SentenceEncoder
        USE with the pruned vocabulary.
    pieces : tuple of str
        The same vocabulary's pieces.
    """

    def __init__(self, sentence: SentenceEncoder, pieces: tuple[str, ...]) -> None:
        super().__init__()
        self.sentence, self.bag = sentence, Bag(pieces)
        self.captions, self.names = TextHead(CAPTION_DIM), TextHead(NAME_DIM)
        self.gate = Gate()
        self.bag_drop, self.noise = 0.25, 0.01

    def parts(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return caption part (n, 320), name part (n, 191), both unit, and angle (n, 1)."""
        sentence = self.sentence(ids)
        bag = self.bag(ids, self.bag_drop if self.training else 0.0)
        if self.training:
            sentence = F.normalize(sentence + self.noise * torch.randn_like(sentence), dim=1)
        gate = self.gate(sentence, bag, ids)
        return self.captions(sentence, bag), self.names(sentence, bag), gate

    def forward(self, ids: Tensor) -> Tensor:
        """Return unit vectors, float32 (n, 512), of token ids, int64 (n, length)."""
        captions, names, angle = self.parts(ids)
        filler = torch.zeros_like(angle)
        return torch.cat([angle.cos() * captions, angle.sin() * names, filler], 1)
