"""The image tower: EfficientNet-Lite2 with a caption head and a name head.

A photograph's vector has two parts of equal length. The caption part comes from features tuned on
captions; the name part is the mean of class vectors under the probabilities of the ImageNet
classifier, which keeps the network's last blocks as published. One more dimension fills the name
part up to unit length, so that an unsure classifier gives low scores and no vector is rescaled.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.photo.efficientnet import FEATURES, MEAN, STD, EfficientNetLite

CAPTION_DIM = 320
NAME_DIM = 191  # and one dimension that fills up
HALF = 0.5**0.5


class CaptionHead(nn.Module):
    """Pooled features to unit caption vectors: a linear map plus a small perceptron.

    ``standardise`` sets the mean and the deviation of √features, which lie closer to a normal
    distribution than the features themselves.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int = CAPTION_DIM, hidden: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.linear = nn.Linear(FEATURES, dim)
        self.up, self.down = nn.Linear(FEATURES, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        root = features.clamp(min=0).sqrt()
        self.mean.copy_(root.mean(0))
        self.scale.copy_(1 / (root.std(0) + 0.05))

    def forward(self, features: Tensor) -> Tensor:
        root = (features.clamp(min=0) + 1e-6).sqrt()
        x = self.dropout((root - self.mean) * self.scale)
        y = self.linear(x) + self.down(self.dropout(F.gelu(self.up(x))))
        return F.normalize(y, dim=1)


class NameHead(nn.Module):
    """Class probabilities to a vector of length one, the last dimension filling it up."""

    def __init__(self, classes: Tensor) -> None:
        super().__init__()
        self.classes = nn.Parameter(classes.clone())  # (1000, NAME_DIM)
        self.sharpness = nn.Parameter(torch.tensor(1.0))

    def forward(self, logits: Tensor) -> Tensor:
        probabilities = (logits * self.sharpness).softmax(1)
        mean = probabilities @ F.normalize(self.classes, dim=1)
        rest = (1 - mean.square().sum(1, keepdim=True)).clamp(min=1e-6).sqrt()
        return torch.cat([mean, rest], 1)


class ImageTower(nn.Module):
    """Photographs to unit vectors of ``CAPTION_DIM + NAME_DIM + 1`` dimensions.

    Parameters
    ----------
    backbone : EfficientNetLite
        With its published weights.
    branch : int
        Blocks from this one on exist twice, once tuned on captions, once as published. The
        blocks before it are shared and stay as published.
    classes : float32 (1000, NAME_DIM)
        Initial class vectors.
    """

    def __init__(self, backbone: EfficientNetLite, branch: int, classes: Tensor) -> None:
        super().__init__()
        self.backbone, self.branch = backbone, branch
        self.tuned = nn.ModuleDict(
            {
                "blocks": copy.deepcopy(backbone._blocks[branch:]),
                "head": copy.deepcopy(backbone._conv_head),
            }
        )
        self.captions = CaptionHead()
        self.names = NameHead(classes)

    def shared(self, images: Tensor) -> Tensor:
        """Run the shared blocks on normalised images (n, 3, S, S)."""
        return self.backbone.blocks(self.backbone.stem(images), 0, self.branch)

    def features(self, shared: Tensor) -> Tensor:
        """Return the tuned branch's pooled features, (n, 1280)."""
        x = shared
        for block in self.tuned["blocks"]:  # type: ignore[attr-defined]
            x = block(x)
        return F.relu6(self.tuned["head"](x)).mean((2, 3))

    def logits(self, shared: Tensor) -> Tensor:
        """Return the published network's class logits, (n, 1000)."""
        return self.backbone.logits(self.backbone.pool(self.backbone.blocks(shared, self.branch)))

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors, float32 (n, 512), of normalised images."""
        shared = self.shared(images)
        parts = [self.captions(self.features(shared)), self.names(self.logits(shared))]
        return torch.cat(parts, 1) * HALF


class PixelTower(nn.Module):
    """What the bundle exports: bytes (n, S, S, 3) in, unit vectors out."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - MEAN) / STD
        vectors: Tensor = self.tower(x)
        return vectors
