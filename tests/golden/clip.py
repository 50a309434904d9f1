"""Golden vectors of a seeded random ViT-B/32: ``python -m tests.golden.clip`` writes them anew.

The weights come from a formula of ours and not from PyTorch's generator, whose numbers may
change from release to release.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.conftest import picture

FILE = Path(__file__).with_name("clip.json")
IMAGES = [picture(1, 300, 260), picture(2, 224, 400)]
TEXTS = ["a photo of a gray cat", "灰猫"]


def load():
    """ViT-B/32 with weights drawn by numpy, parameter by parameter in the order of their names."""
    import torch

    from soutu.models.open_clip import Checkpoint, load

    loaded = load(Checkpoint("ViT-B-32", "random:0"))
    rng = np.random.default_rng(20260401)
    with torch.no_grad():
        for name, parameter in sorted(loaded.model.named_parameters()):
            drawn = rng.standard_normal(tuple(parameter.shape), np.float32)
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(drawn) * parameter.shape[-1] ** -0.5)
            elif name.endswith("weight"):
                parameter.copy_(torch.from_numpy(1 + 0.2 * drawn))
            elif parameter.ndim == 1:
                parameter.copy_(torch.from_numpy(0.1 * drawn))
    return loaded


def vectors(encoder) -> dict[str, list[list[float]]]:
    """The first 8 numbers of each vector."""
    images, texts = encoder.encode_images(IMAGES), encoder.encode_texts(TEXTS)
    return {"images": images[:, :8].tolist(), "texts": texts[:, :8].tolist()}


def main() -> None:
    from soutu.models.open_clip import OpenClipEncoder

    found = vectors(OpenClipEncoder(load(), "ViT-B-32", "cpu"))
    rounded = {k: [[round(x, 5) for x in row] for row in rows] for k, rows in found.items()}
    FILE.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
