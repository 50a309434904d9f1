"""Detailed pictures for timing: several octaves of noise, lit edges and shapes, as JPEG."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from soutu.types import Floats, Rgb

BASES = 6  # textures; each picture is one of them shifted, mirrored, tinted and drawn over
QUALITY = 90
DECAY = 0.72  # so that a megapixel takes 0.3 MB, as a photograph does


def texture(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Noise of many scales with the spectrum of photographs (each octave weaker than the last)."""
    total = np.zeros((height, width, 3), np.float32)
    cells, strength = 4, 1.0
    while cells < width:
        rows = max(2, cells * height // width)
        coarse = rng.standard_normal((rows, cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel]).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            total[..., channel] += strength * np.asarray(plane)
        cells, strength = cells * 2, strength * DECAY
    grain: Floats = total / total.std()
    return grain


def picture(rng: np.random.Generator, base: Floats) -> Rgb:
    height, width, _ = base.shape
    shifted = np.roll(base, (int(rng.integers(height)), int(rng.integers(width))), (0, 1))
    shifted = shifted[:, ::-1] if rng.random() < 0.5 else shifted
    tinted = 128 + shifted * rng.uniform(30, 60) + rng.uniform(-50, 50, 3)
    image = Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        side = int(rng.integers(width // 40, width // 6))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + side, y + int(side * rng.uniform(0.5, 1.5))), fill=colour)
    return np.asarray(image)


def write(folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> Path:
    """``count`` JPEGs of ``size`` (width, height) in ``folder``, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    if len([*folder.glob("*.jpg")]) >= count:
        return folder
    rng = np.random.default_rng(seed)
    bases = [texture(rng, *size) for _ in range(min(BASES, count))]
    for number in range(count):
        file = folder / f"{number:04d}.jpg"
        Image.fromarray(picture(rng, bases[number % len(bases)])).save(file, quality=QUALITY)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(1152, 864))
    args = parser.parse_args()
    print(write(args.folder, args.count, tuple(args.size)))


if __name__ == "__main__":
    main()
