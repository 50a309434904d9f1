"""A model without a gallery, for those who want only vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu.factory import build_encoder, installed_models

if TYPE_CHECKING:
    from PIL import Image

    from soutu.types import Floats, ModelInfo, Rgb


class Model:
    """A CLIP model by name: images and texts to vectors of one space.

    Parameters
    ----------
    name
        A name of ``list_models()``, fetched where it is not installed; a bundle's folder
        (``./NAME``); or ``torch:NAME`` for open_clip on PyTorch.
    device
        "auto", "cpu", "cuda", "mps" or "coreml".

    Raises
    ------
    MissingModel
        If there is no such model, or it cannot be fetched.

    Examples
    --------
    >>> import numpy as np
    >>> import soutu
    >>> model = soutu.Model("tiny")
    >>> texts = model.encode_texts(["一只灰猫", "a grey cat"])
    >>> images = model.encode_images([np.zeros((64, 64, 3), np.uint8)])
    >>> (texts @ images.T).shape
    (2, 1)
    """

    def __init__(self, name: str, *, device: str = "auto") -> None:
        self.name = name
        self._encoder = build_encoder(name, device)

    def __repr__(self) -> str:
        """Return the name and the length of a vector."""
        return f"Model({self.name!r}, dim={self.dim})"

    @property
    def info(self) -> ModelInfo:
        """What the model is, and which vectors its own may be compared with."""
        return self._encoder.info

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.info.dim

    def encode_images(self, images: Sequence[str | Path | Image.Image | Rgb]) -> Floats:
        """Encode images: paths, Pillow images or RGB arrays, uint8 (height, width, 3).

        Returns
        -------
        float32 (n, dim)
            Unit rows, in order.

        Raises
        ------
        BadImage
            If an image cannot be decoded.
        BadInput
            If an array has another shape or dtype.
        """
        from soutu.images.decode import load_rgb

        # In parts, so that the pixels of a long list are never all in memory.
        size = max(1, self._encoder.batch * self._encoder.max_concurrency)
        parts = [images[start : start + size] for start in range(0, len(images), size)] or [[]]
        return np.concatenate(
            [self._encoder.encode_images([load_rgb(image) for image in part]) for part in parts]
        )

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts; those longer than ``info.context_length`` tokens are truncated.

        Returns
        -------
        float32 (n, dim)
            Unit rows, in order.
        """
        return self._encoder.encode_texts(texts)


def list_models(*, installed: bool = False) -> list[str]:
    """Return the names that ``Model`` opens, or only those installed on this machine, sorted."""
    names = set(installed_models())
    if not installed:
        from soutu.models.catalog import load_catalog

        names.update(load_catalog())
    return sorted(names)
