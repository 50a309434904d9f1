"""Run any open_clip model on PyTorch, and Chinese-CLIP, which open_clip does not have.

The reference that exports are compared with, and the engine for GPUs. Needs the extra ``torch``.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import BadInput, MissingExtra, MissingModel, SoutuError
from soutu.models.bundle import sha256
from soutu.models.catalog import load_catalog
from soutu.models.checkpoint import CHINESE_CLIP_CONTEXT, ModelSource, clip_tokenizer
from soutu.models.preprocess import fit
from soutu.models.weights import open_clip_towers, transformers_towers
from soutu.text import replace_surrogates
from soutu.types import Floats, ModelInfo, Rgb

if TYPE_CHECKING:
    import torch

CPU_BATCH = 32
# An image of 224 px takes about 12 MB in the widest layer of ViT-L; a third of the memory that
# is free is used, so that the activations of a layer and of the next fit together.
GPU_BYTES_PER_PIXEL = 256
MAX_GPU_BATCH = 1024
CHINESE_CLIP = "chinese-clip"  # what the architecture's name begins with


@dataclass(frozen=True)
class Checkpoint:
    """``architecture`` as open_clip names it; ``weights`` is a tag, a file, or "random:SEED".

    Random weights are for tests and speed measurements.
    """

    architecture: str
    weights: str

    @property
    def file(self) -> Path | None:
        """The weights' file, if they are one."""
        return Path(self.weights) if Path(self.weights).is_file() else None

    @cached_property
    def space(self) -> str:
        """Equal for equal weights, wherever their file lies."""
        if self.file:
            return f"{self.architecture}/sha256:{sha256(self.file)[:16]}"
        return f"{self.architecture}/{self.weights}"


@dataclass(frozen=True)
class LoadedModel:
    """An open_clip model with its tokenizer and configuration."""

    checkpoint: Checkpoint
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]

    def info(self, name: str) -> ModelInfo:
        """Describe the model, which is to be called ``name``."""
        size, space = self.preprocess["size"], self.checkpoint.space
        entry = next((e for e in load_catalog().values() if e.source == space), None)
        return ModelInfo(
            name=name,
            dim=int(self.config["embed_dim"]),
            image_size=size if isinstance(size, int) else int(size[0]),
            context_length=int(self.tokenizer.context_length),
            mean=tuple(self.preprocess["mean"]),
            std=tuple(self.preprocess["std"]),
            interpolation=self.preprocess["interpolation"],
            resize_mode=self.preprocess["resize_mode"],
            languages=entry.languages if entry else (),
            license=entry.license if entry else "",
            space=space,
            fingerprint=hashlib.sha256(space.encode()).hexdigest(),
        )


class OpenClipEncoder:
    """An ``Encoder`` over open_clip.

    On a GPU it works in bfloat16 (float16 where the card has no bfloat16), with batches that
    fit its memory and transfers from pinned memory.
    """

    max_concurrency = 1  # PyTorch's own threads, or the GPU, are busy with one batch

    def __init__(self, loaded: LoadedModel, name: str, device: str = "auto") -> None:
        import torch

        self._device = torch_device(device)
        self._tokenizer, self.info = loaded.tokenizer, loaded.info(name)
        self._model = loaded.model.to(self._device)
        self._half: torch.dtype | None = None
        if self._device == "cuda":
            self._half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    @property
    def batch(self) -> int:
        """On a GPU what fits into a third of its free memory."""
        if self._device != "cuda":
            return CPU_BATCH
        import torch

        free, _ = torch.cuda.mem_get_info()
        count = free // 3 // (self.info.image_size**2 * GPU_BYTES_PER_PIXEL)
        return int(min(MAX_GPU_BATCH, max(1, count)))

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """Return float32 (n, dim), unit rows."""
        import torch

        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1).to(self._device)
            for values in (self.info.mean, self.info.std)
        )
        vectors = [np.empty((0, self.info.dim), np.float32)]
        step = self.batch
        for start in range(0, len(images), step):
            pixels = np.stack([fit(image, self.info) for image in images[start : start + step]])
            batch = self._to_device(torch.from_numpy(pixels)).permute(0, 3, 1, 2)
            vectors.append(self._run(self._model.encode_image, (batch.float() / 255 - mean) / std))
        return np.concatenate(vectors)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return float32 (n, dim), unit rows."""
        vectors = [np.empty((0, self.info.dim), np.float32)]
        for start in range(0, len(texts), CPU_BATCH):
            ids = self._tokenizer([*map(replace_surrogates, texts[start : start + CPU_BATCH])])
            vectors.append(self._run(self._model.encode_text, self._to_device(ids)))
        return np.concatenate(vectors)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """To a GPU from pinned memory, without waiting for it."""
        if self._device == "cuda":
            return tensor.pin_memory().to("cuda", non_blocking=True)
        return tensor.to(self._device)

    def _run(self, tower: Any, batch: torch.Tensor) -> Floats:
        import torch

        half = torch.autocast(self._device, self._half) if self._half else nullcontext()
        with torch.inference_mode(), half:
            vectors = tower(batch).float()
            unit = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
        array: Floats = unit.cpu().numpy()
        return array


def open_encoder(name: str, weights: str | None = None, device: str = "auto") -> OpenClipEncoder:
    """Load a model and wrap it; ``checkpoint_of`` describes ``name`` and ``weights``."""
    device = torch_device(device)
    return OpenClipEncoder(load(checkpoint_of(name, weights), device), name, device)


def torch_device(device: str) -> str:
    """Return ``device``, or for "auto" the best there is. One that is not there is an error."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("extra-torch", error=error) from error
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, is_there in available.items() if is_there)
    if device not in available:
        raise BadInput("device-unknown", device=device)
    if not available[device]:
        names = ", ".join(name for name in ("cpu", "cuda", "mps") if available[name])
        raise MissingExtra("device-absent-torch", device=device, available=names)
    return device


def checkpoint_of(name: str, weights: str | None = None) -> Checkpoint:
    """Find the checkpoint of ``ViT-B-32``, ``ARCHITECTURE/TAG`` or ``ARCHITECTURE//path/to/file``.

    ``weights`` stands for what is behind the first slash.
    """
    entry = load_catalog().get(name)
    architecture, _, tag_or_file = (entry.source if entry else name).partition("/")
    if not (weights or tag_or_file):
        raise MissingModel("open-clip-weights", name=name)
    return Checkpoint(architecture, weights or tag_or_file)


def load(
    checkpoint: Checkpoint, device: str = "cpu", *, quick_gelu: bool | None = None
) -> LoadedModel:
    """Load a model in evaluation mode, float32.

    Parameters
    ----------
    checkpoint
        Read as safetensors or with PyTorch's restricted unpickler, never otherwise.
    device
        "cpu", "cuda" or "mps".
    quick_gelu
        Whether the activation is QuickGELU; None takes that of the tag's training (OpenAI's
        weights: QuickGELU).

    Raises
    ------
    MissingExtra, MissingModel, BadInput
        BadInput for a file that cannot be used.
    """
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise MissingExtra("extra-torch", error=error) from error
    architecture, weights = checkpoint.architecture, checkpoint.weights
    if architecture.startswith(CHINESE_CLIP):
        with _translate_errors(checkpoint):
            return _load_chinese_clip(checkpoint)
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise MissingModel("open-clip-architecture", name=architecture)
    seed = weights.removeprefix("random:") if weights.startswith("random:") else ""
    tag = open_clip.get_pretrained_cfg(architecture, weights)
    if not (seed or tag or checkpoint.file):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "-"
        raise MissingModel("open-clip-tag", name=architecture, weights=weights, tags=tags)
    quick = bool(tag.get("quick_gelu")) if quick_gelu is None and tag else bool(quick_gelu)
    with _translate_errors(checkpoint), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if seed:
            torch.manual_seed(int(seed))
        model = open_clip.create_model(
            architecture,
            pretrained=None if seed else weights,
            device=device,
            force_quick_gelu=quick,
            pretrained_text=False,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    preprocess = dict(model.visual.preprocess_cfg)
    config["quick_gelu"] = quick or bool(config.get("quick_gelu"))
    return LoadedModel(checkpoint, model.eval(), tokenizer, config, preprocess)


def model_source(loaded: LoadedModel) -> ModelSource:
    """Return the weights of a loaded model, and what a bundle has beside them.

    Raises BadInput for an architecture that has no graph here.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    is_chinese_clip = isinstance(model, ChineseClip)
    state = (model.model if is_chinese_clip else model).state_dict()
    tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    if is_chinese_clip:
        images, texts = transformers_towers(tensors, model.model.config.to_dict())
    else:
        text_model = getattr(getattr(model, "text", None), "config", None)
        described = text_model.to_dict() if text_model else None
        images, texts = open_clip_towers(tensors, loaded.config, described)
    hf_tokenizer = getattr(tokenizer, "tokenizer", None)
    if hf_tokenizer:
        text, pad = hf_tokenizer.backend_tokenizer.to_str(), hf_tokenizer.pad_token
    else:
        merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
        text, pad = clip_tokenizer(tokenizer.encoder, merges), None
    context = {"context_length": int(tokenizer.context_length)}
    config = {**loaded.config, "text_cfg": {**context, **loaded.config["text_cfg"]}}
    preprocess = {**loaded.preprocess}
    return ModelSource(images, texts, config, preprocess, text, pad)


@contextmanager
def _translate_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Raise open_clip's many kinds of failure as ours; what it logs of them is said once."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except SoutuError:
        raise
    except Exception as error:  # hub, pickle and shape errors share no narrower base
        reason = " ".join(str(error).split())[:300]
        fields = {
            "name": checkpoint.architecture, "weights": checkpoint.weights, "error": reason
        }  # fmt: skip
        if checkpoint.file:
            raise BadInput("checkpoint-unusable", **fields) from error
        raise MissingModel("open-clip-load", **fields) from error
    finally:
        logging.disable(level)


# Chinese-CLIP (Yang et al., arXiv 2211.01335): a ViT for images and a Chinese BERT for texts


class ChineseClip:
    """transformers' model with open_clip's two calls."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def encode_image(self, pixels: Any) -> Any:
        """Return (n, dim) for pixels (n, 3, S, S)."""
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return self.model.visual_projection(pooled)

    def encode_text(self, ids: Any) -> Any:
        """Return (n, dim) for token ids (n, context)."""
        mask = (ids != self.model.config.text_config.pad_token_id).long()
        output = self.model.text_model(input_ids=ids, attention_mask=mask)
        return self.model.text_projection(output.last_hidden_state[:, 0])

    def to(self, device: str) -> ChineseClip:
        """Move the model to ``device``."""
        return ChineseClip(self.model.to(device))


@dataclass(frozen=True)
class _ChineseClipTokenizer:
    """transformers' tokenizer as open_clip's are called."""

    tokenizer: Any
    context_length: int = CHINESE_CLIP_CONTEXT

    def __call__(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            return_tensors="pt",
            max_length=self.context_length,
            padding="max_length",
            truncation=True,
        ).input_ids


def _load_chinese_clip(checkpoint: Checkpoint) -> LoadedModel:
    """From a folder, a hub's repository, or the organisation that has the architecture.

    Weights as safetensors only.
    """
    from transformers import AutoTokenizer, ChineseCLIPImageProcessor, ChineseCLIPModel

    source = checkpoint.weights
    if not (Path(source).is_dir() or "/" in source):
        source = f"{source}/{checkpoint.architecture}"
    model: Any = ChineseCLIPModel.from_pretrained(source, use_safetensors=True)
    model.eval()
    processor = ChineseCLIPImageProcessor.from_pretrained(source)
    preprocess = {
        "size": [model.config.vision_config.image_size] * 2,
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "interpolation": "bicubic",
        "resize_mode": "shortest" if processor.do_center_crop else "squash",
    }
    # BERT's own vocabulary has full-width punctuation: nothing is cleaned.
    text = {
        "context_length": CHINESE_CLIP_CONTEXT,
        "hf_model_name": "bert",
        "tokenizer_kwargs": {"clean": ""},
    }
    config = {"embed_dim": model.config.projection_dim, "text_cfg": text}
    tokenizer = _ChineseClipTokenizer(AutoTokenizer.from_pretrained(source))
    return LoadedModel(checkpoint, ChineseClip(model), tokenizer, config, preprocess)
