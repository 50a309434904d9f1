"""Chinese-CLIP (Yang et al., arXiv 2211.01335), which open_clip does not have, from the
transformers library: a ViT for pictures and a Chinese BERT for texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = 52  # tokens, as in the model's training
PREFIX = "chinese-clip"


@dataclass(frozen=True)
class Tokens:
    """The tokenizer as open_clip's are called."""

    tokenizer: Any
    context_length: int = CONTEXT

    def __call__(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            return_tensors="pt",
            max_length=self.context_length,
            padding="max_length",
            truncation=True,
        ).input_ids


class ChineseClip:
    """The model with open_clip's two calls."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def encode_image(self, pixels: Any) -> Any:
        seen = self.model.vision_model(pixel_values=pixels).pooler_output
        return self.model.visual_projection(seen)

    def encode_text(self, ids: Any) -> Any:
        real = (ids != self.model.config.text_config.pad_token_id).long()
        read = self.model.text_model(input_ids=ids, attention_mask=real)
        return self.model.text_projection(read.last_hidden_state[:, 0])

    def to(self, device: str) -> ChineseClip:
        return ChineseClip(self.model.to(device))


def repository(architecture: str, weights: str) -> str:
    """``weights`` is a folder, a repository, or the organisation that has the architecture."""
    return weights if Path(weights).is_dir() or "/" in weights else f"{weights}/{architecture}"


def read(where: str) -> tuple[ChineseClip, Tokens, dict[str, Any], dict[str, Any]]:
    """Model, tokenizer, configuration and preprocessing from a folder or a hub's repository;
    weights as safetensors only."""
    from transformers import AutoTokenizer, ChineseCLIPImageProcessor, ChineseCLIPModel

    model: Any = ChineseCLIPModel.from_pretrained(where, use_safetensors=True)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(where)
    shown = ChineseCLIPImageProcessor.from_pretrained(where)
    # BERT's own vocabulary has full-width punctuation: nothing is mended.
    text = {"context_length": CONTEXT, "hf_model_name": "bert", "tokenizer_kwargs": {"clean": ""}}
    preprocess = {
        "size": [model.config.vision_config.image_size] * 2,
        "mean": list(shown.image_mean),
        "std": list(shown.image_std),
        "interpolation": "bicubic",
        "resize_mode": "shortest" if shown.do_center_crop else "squash",
    }
    config = {"embed_dim": model.config.projection_dim, "text_cfg": text}
    return ChineseClip(model), Tokens(tokenizer), config, preprocess
