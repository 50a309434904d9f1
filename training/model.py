"""The dual encoder: a small residual network and a two-layer text transformer, 512-d."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 512


@dataclass(frozen=True)
class Shape:
    """Sizes of both towers; kept in every checkpoint."""

    vocabulary: int
    image_size: int = 80
    context: int = 64
    channels: tuple[int, ...] = (48, 96, 192, 256)
    blocks: tuple[int, ...] = (0, 2, 2, 1)
    width: int = 192
    layers: int = 2
    heads: int = 4


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class ImageTower(nn.Module):
    """(n, 3, S, S) → cells (n, (S/16)², C) → pooled features (n, 3·C), the mean and two learned
    attention pools → unit rows (n, 512)."""

    QUERIES = 2

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for channels, blocks in zip(shape.channels, shape.blocks, strict=True):
            stages += [
                nn.Conv2d(before, channels, 3, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                *(Block(channels) for _ in range(blocks)),
            ]
            before = channels
        self.trunk = nn.Sequential(*stages)
        cells = (shape.image_size // 2 ** len(shape.channels)) ** 2
        self.position = nn.Parameter(torch.randn(1, cells, before) * 0.02)
        self.mix = nn.Sequential(nn.LayerNorm(before), nn.Linear(before, before), nn.GELU())
        self.attention = nn.Linear(before, self.QUERIES)
        self.features = before * (1 + self.QUERIES)
        self.project = nn.Linear(self.features, DIM)

    def cells(self, images: Tensor) -> Tensor:
        """Return what the network sees where, row by row."""
        seen: Tensor = self.trunk(images).flatten(2).transpose(1, 2)
        mixed: Tensor = self.mix(seen + self.position)
        return seen + mixed

    def pool(self, cells: Tensor) -> Tensor:
        weights = self.attention(cells).softmax(dim=1)
        attended = (weights.transpose(1, 2) @ cells).flatten(1)
        return torch.cat([cells.mean(dim=1), attended], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.project(self.pool(self.cells(images))).float(), dim=-1)


class TextLayer(nn.Module):
    """Pre-norm self-attention and MLP, written out so that the export keeps its length free."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        head = x.shape[-1] // self.heads
        q, k, v = (
            part.unflatten(-1, (self.heads, head)).transpose(1, 2)
            for part in self.qkv(self.before_attention(x)).chunk(3, dim=-1)
        )
        weights = (q @ k.transpose(-2, -1) * head**-0.5 + bias).softmax(dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        changed: Tensor = x + self.mlp(self.before_mlp(x))
        return changed


class TextTower(nn.Module):
    """(n, length) token ids, 0 is padding → unit rows (n, 512); masked mean pooling."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.embed.weight, std=0.05)
        self.position = nn.Parameter(torch.randn(shape.context, shape.width) * 0.02)
        self.layers = nn.ModuleList(
            TextLayer(shape.width, shape.heads) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.project = nn.Linear(shape.width, DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens != 0).float()
        bias = (1 - real)[:, None, None, :] * -1e4
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, bias)
        weights = real / real.sum(dim=1, keepdim=True)
        pooled = (self.norm(x) * weights[..., None]).sum(dim=1)
        return F.normalize(self.project(pooled).float(), dim=-1)


class DualEncoder(nn.Module):
    """Both towers, the temperature, and helper heads that only training uses: what is where
    (on a cell), and what there is at all (on the pooled features)."""

    def __init__(self, shape: Shape, *, things: int, colours: int, backgrounds: int) -> None:
        super().__init__()
        self.shape = shape
        self.image, self.text = ImageTower(shape), TextTower(shape)
        self.log_scale = nn.Parameter(torch.tensor(2.8))
        cell, pooled = shape.channels[-1], self.image.features
        self.cell_heads = nn.ModuleDict(
            {"things": nn.Linear(cell, things), "colours": nn.Linear(cell, colours)}
        )
        self.image_heads = nn.ModuleDict(
            {"things": nn.Linear(pooled, things), "backgrounds": nn.Linear(pooled, backgrounds)}
        )
