"""CLIP in two calls: pictures to vectors, texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence

from soutu.factory import build_encoder
from soutu.models.bundle import DEFAULT
from soutu.types import Floats, Rgb


class CLIPWrapper:
    """``model`` is a name (ViT-B-32, tiny) or a bundle's folder; ``device`` auto, cpu, cuda …;
    ``pretrained`` is a checkpoint file or open_clip's tag: then the model runs on PyTorch."""

    def __init__(
        self, model: str = DEFAULT, device: str = "auto", pretrained: str | None = None
    ) -> None:
        self.model = f"torch:{model}/{pretrained}" if pretrained else model
        self.encoder = build_encoder(self.model, device)

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """RGB uint8 (h, w, 3) each → float32 (n, dim), unit rows."""
        return self.encoder.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """float32 (n, dim), unit rows."""
        return self.encoder.encode_texts(texts)
