"""Any open_clip model on PyTorch: the reference that exports are compared with, and the engine
for GPUs. Needs the extra ``torch``."""

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
from soutu.models.catalog import load_catalog
from soutu.models.download import sha256
from soutu.models.preprocess import fit
from soutu.types import Floats, ModelInfo, Rgb

if TYPE_CHECKING:
    import torch

# Chinese-CLIP (Yang et al., arXiv 2211.01335), which open_clip does not have, from the
# transformers library: a ViT for pictures and a Chinese BERT for texts.


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


DEVICES = ("cpu", "cuda", "mps")
CPU_BATCH = 32
# A picture of 224 px takes about 12 MB in the widest layer of ViT-L; a third of the memory that
# is free is asked for, so that the activations of a layer and of the next fit together.
GPU_BYTES_A_PIXEL = 256
GPU_LARGEST = 1024


@dataclass(frozen=True)
class Checkpoint:
    """``architecture`` as open_clip names it; ``weights`` is a tag, a file, or "random" with a
    seed ("random:0"), which is for tests and speed measurements."""

    architecture: str
    weights: str

    @property
    def file(self) -> Path | None:
        return Path(self.weights) if Path(self.weights).is_file() else None

    @cached_property
    def space(self) -> str:
        """Equal for equal weights, wherever their file lies."""
        if self.file:
            return f"{self.architecture}/sha256:{sha256(self.file)[:16]}"
        return f"{self.architecture}/{self.weights}"


def checkpoint_of(name: str, weights: str | None = None) -> Checkpoint:
    """``ViT-B-32``, ``ARCHITECTURE/TAG`` or ``ARCHITECTURE//path/to/checkpoint``; ``weights``
    stands for what is behind the first slash."""
    listed = load_catalog().get(name)
    architecture, _, given = (listed.source if listed else name).partition("/")
    chosen = weights or given
    if not chosen:
        raise MissingModel("open-clip-weights", name=name)
    return Checkpoint(architecture, chosen)


@dataclass(frozen=True)
class LoadedModel:
    """An open_clip model with its tokenizer and configuration."""

    source: Checkpoint
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]

    def info(self, name: str) -> ModelInfo:
        side = self.preprocess["size"]
        width = side if isinstance(side, int) else int(side[0])
        space = self.source.space
        listed = next((m for m in load_catalog().values() if m.source == space), None)
        return ModelInfo(
            name=name,
            dim=int(self.config["embed_dim"]),
            image_size=width,
            context_length=int(self.tokenizer.context_length),
            mean=tuple(self.preprocess["mean"]),
            std=tuple(self.preprocess["std"]),
            interpolation=self.preprocess["interpolation"],
            resize_mode=self.preprocess["resize_mode"],
            languages=listed.languages if listed else (),
            license=listed.license if listed else "",
            space=space,
            fingerprint=hashlib.sha256(space.encode()).hexdigest(),
        )


def load(source: Checkpoint, device: str = "cpu", *, quick_gelu: bool | None = None) -> LoadedModel:
    """The model in evaluation mode, float32, on ``device``. ``quick_gelu`` None takes the
    activation that the tag was trained with (OpenAI's weights: QuickGELU).

    Weights are read as safetensors or with PyTorch's restricted unpickler, never otherwise.
    Raises MissingExtra, MissingModel or BadInput.
    """
    try:
        import open_clip
        import torch
    except ImportError as fault:
        raise MissingExtra("extra-torch", fault=fault) from fault
    if source.architecture.startswith(PREFIX):
        with _explained(source):
            where = repository(source.architecture, source.weights)
            return LoadedModel(source, *read(where))
    config = open_clip.get_model_config(source.architecture)
    if config is None:
        raise MissingModel("open-clip-architecture", name=source.architecture)
    seed = source.weights.partition("random:")[2] if source.weights.startswith("random:") else ""
    tag = open_clip.get_pretrained_cfg(source.architecture, source.weights)
    if not (seed or tag or source.file):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(source.architecture)) or "-"
        raise MissingModel(
            "open-clip-tag", name=source.architecture, weights=source.weights, tags=tags
        )
    quick = bool(tag.get("quick_gelu")) if quick_gelu is None and tag else bool(quick_gelu)
    with _explained(source), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if seed:
            torch.manual_seed(int(seed))
        model = open_clip.create_model(
            source.architecture,
            pretrained=None if seed else source.weights,
            device=device,
            force_quick_gelu=quick,
            pretrained_text=False,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(source.architecture)
    return LoadedModel(source, model.eval(), tokenizer, config, dict(model.visual.preprocess_cfg))


@contextmanager
def _explained(source: Checkpoint) -> Iterator[None]:
    """open_clip's many kinds of failure as ours; what it logs of them is told once."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except SoutuError:
        raise
    except Exception as fault:  # hub, pickle and shape errors share no narrower base
        said = " ".join(str(fault).split())[:300]
        told = {"name": source.architecture, "weights": source.weights, "fault": said}
        if source.file:
            raise BadInput("checkpoint-unusable", **told) from fault
        raise MissingModel("open-clip-load", **told) from fault
    finally:
        logging.disable(before)


def torch_device(device: str) -> str:
    """``device``, or the best there is for "auto". One that is not there is an error."""
    try:
        import torch
    except ImportError as fault:
        raise MissingExtra("extra-torch", fault=fault) from fault
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if device not in there:
        raise BadInput("device-unknown", device=device)
    if not there[device]:
        available = ", ".join(name for name, is_there in there.items() if is_there)
        raise MissingExtra("device-absent-torch", device=device, available=available)
    return device


class OpenClipEncoder:
    """``Encoder`` over open_clip. On a GPU it works in bfloat16 (float16 where the card has no
    bfloat16), with batches that fit its memory and transfers from pinned memory."""

    def __init__(self, loaded: LoadedModel, name: str, device: str = "auto") -> None:
        import torch

        self._device = torch_device(device)
        self._loaded, self._card = loaded, loaded.info(name)
        self._model = loaded.model.to(self._device)
        self._half: torch.dtype | None = None
        if self._device == "cuda":
            self._half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    @property
    def info(self) -> ModelInfo:
        return self._card

    @property
    def max_concurrency(self) -> int:
        return 1  # PyTorch's own threads, or the GPU, are busy with one batch

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        import torch

        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self._card.mean, self._card.std))
        mean, std = mean.to(self._device), std.to(self._device)
        vectors = [np.empty((0, self._card.dim), np.float32)]
        step = self.batch
        for start in range(0, len(images), step):
            pixels = np.stack([fit(image, self._card) for image in images[start : start + step]])
            batch = self._sent(torch.from_numpy(pixels)).permute(0, 3, 1, 2)
            normal = (batch.float() / 255 - mean) / std
            vectors.append(self._run(self._model.encode_image, normal))
        return np.concatenate(vectors)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        vectors = [np.empty((0, self._card.dim), np.float32)]
        for start in range(0, len(texts), CPU_BATCH):
            ids = self._loaded.tokenizer(list(texts[start : start + CPU_BATCH]))
            vectors.append(self._run(self._model.encode_text, self._sent(ids)))
        return np.concatenate(vectors)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """On the device; to a GPU from pinned memory, without waiting for it."""
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

    @property
    def batch(self) -> int:
        """On a GPU what fits into a third of its free memory."""
        if self._device != "cuda":
            return CPU_BATCH
        import torch

        free, _ = torch.cuda.mem_get_info()
        fitting = free // 3 // (self._card.image_size**2 * GPU_BYTES_A_PIXEL)
        return int(min(GPU_LARGEST, max(1, fitting)))


def open_encoder(name: str, weights: str | None = None, device: str = "auto") -> OpenClipEncoder:
    """Load and wrap in one call; see ``source_of`` for the names."""
    wanted = torch_device(device)
    source = checkpoint_of(name, weights)
    return OpenClipEncoder(load(source, wanted), name, wanted)
