"""Photographs on the training device, and random views of them."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.photo.efficientnet import MEAN, STD

STORED = 224  # the collection's photographs are squashed to this side


def load_photos(path: Path, device: torch.device, limit: int | None = None) -> Tensor:
    """Decode what ``prepare.pack_photos`` wrote (its first ``limit``) to uint8 (n, 3, 224, 224)."""
    with np.load(path) as arrays:
        data, ends = arrays["data"].tobytes(), arrays["ends"].tolist()[:limit]
    starts = [0, *ends[:-1]]

    def decode(index: int) -> np.ndarray:
        with Image.open(io.BytesIO(data[starts[index] : ends[index]])) as image:
            return np.asarray(
                image.convert("RGB").resize((STORED, STORED), Image.Resampling.BICUBIC)
            )

    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(decode, range(len(ends)))))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device)


def whole(pixels: Tensor, size: int) -> Tensor:
    """Normalise whole photographs, resized to ``size`` as the bundle's preprocessing does."""
    x = pixels.float()
    if size != x.shape[-1]:
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return (x - MEAN) / STD


def random_views(
    pixels: Tensor, size: int, generator: torch.Generator, *, smallest: float = 0.5
) -> Tensor:
    """Cut, mirror and recolour at random, and normalise.

    Parameters
    ----------
    pixels : uint8 (n, 3, S, S)
    size : int
        Side of the views.
    generator : torch.Generator
        Of the device of ``pixels``.
    smallest : float
        Smallest share of the area that a view keeps.
    """
    count, device = len(pixels), pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=device, generator=generator) * (high - low) + low

    area, ratio = uniform(smallest, 1), uniform(-0.25, 0.25).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = width * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = F.grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.7, 1.3, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean * uniform(0.8, 1.2, 1, 1, 1) + (x - mean) * uniform(0.75, 1.25, 1, 1, 1)
    return (x.clamp(0, 255) - MEAN) / STD


def mix(images: Tensor, generator: torch.Generator, strength: float = 0.4) -> Tensor:
    """Blend each image with another one of the batch (mixup), for distillation only."""
    share = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) * strength
    order = torch.randperm(len(images), device=images.device, generator=generator)
    return images * (1 - share) + images[order] * share
