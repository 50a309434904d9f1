"""A model bundle: a folder with two ONNX towers, their preprocessing and a tokenizer.

    config.json                  embed_dim, text_cfg.context_length
    visual/model.onnx            image float32 [n, 3, S, S] → embedding [n, D]
    visual/preprocess_cfg.json   size, mean, std, interpolation, resize_mode
    textual/model.onnx           text int [n, length] → embedding [n, D]
    textual/tokenizer.json       a ``tokenizers`` file
    textual/tokenizer_config.json   the pad token (optional)
    soutu.json                   name, languages, license, space, fingerprint (ours, optional)

This is the layout of open_clip's public ONNX exports; that of the transformers library
(``onnx/vision_model.onnx`` …, see ``layouts``) is read as well. ``soutu.json`` is added when a
bundle is installed, so that 600 MB are hashed once and not at every start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soutu.errors import BadConfig, MissingModel
from soutu.types import ModelInfo

# The two layouts that public ONNX exports of CLIP models have, read into one description.


CONFIG = "config.json"
DATA = (".data", "_data")  # what follows a graph's name in that of its arrays' file
CLIP_VOCABULARY = 49408  # that of CLIP's own byte pairs, which come with a cleaning of their own


@dataclass(frozen=True)
class Layout:
    """Where an export keeps its files, relative to its folder."""

    visual: str
    textual: str
    preprocess: str
    tokenizer: str
    tokenizer_config: str

    @property
    def needed(self) -> tuple[str, ...]:
        return (CONFIG, self.preprocess, self.tokenizer, self.visual, self.textual)

    @property
    def files(self) -> tuple[str, ...]:
        """All that may belong to it; large arrays may lie in files beside the graphs."""
        beside = (f"{graph}{end}" for graph in (self.visual, self.textual) for end in DATA)
        return (*self.needed, self.tokenizer_config, *beside)


OPEN_CLIP = Layout(
    visual="visual/model.onnx",
    textual="textual/model.onnx",
    preprocess="visual/preprocess_cfg.json",
    tokenizer="textual/tokenizer.json",
    tokenizer_config="textual/tokenizer_config.json",
)
TRANSFORMERS = Layout(
    visual="onnx/vision_model.onnx",
    textual="onnx/text_model.onnx",
    preprocess="preprocessor_config.json",
    tokenizer="tokenizer.json",
    tokenizer_config="tokenizer_config.json",
)


def layout_of(folder: Path) -> Layout:
    """The layout of the export in ``folder``; open_clip's where nothing speaks for the other."""
    return TRANSFORMERS if (folder / TRANSFORMERS.visual).is_file() else OPEN_CLIP


@dataclass(frozen=True)
class TextConfig:
    """How the text tower wants its input. ``pad`` is the token that fills up shorter texts
    (None: id 0). A causal CLIP tower pools at the end token and a BERT-like one masks the
    padding, so for both the padding changes nothing and a batch is padded to its longest text;
    a tower that sees its padding (SigLIP) gets all its context (``whole``). ``clean`` names how
    texts are prepared (``cleaning.CLEANINGS``)."""

    context_length: int
    pad: str | None = None
    whole: bool = False
    clean: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """What an export says of itself, whichever its layout."""

    dim: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    text: TextConfig


def read_model_config(folder: Path, layout: Layout) -> ModelConfig:
    """Read the descriptions. Raises KeyError, TypeError, ValueError or AttributeError where one
    is not as it should be, BadConfig where one is no JSON object."""
    config, preprocess = read_json(folder / CONFIG), read_json(folder / layout.preprocess)
    tokenizer = folder / layout.tokenizer_config
    pad = _pad_token(read_json(tokenizer)) if tokenizer.is_file() else None
    read = _from_transformers if layout is TRANSFORMERS else _from_open_clip
    return read(config, preprocess, pad)


def _from_open_clip(
    config: dict[str, Any], preprocess: dict[str, Any], pad: str | None
) -> ModelConfig:
    """open_clip's model config (its context is 77 where nothing is said)."""
    text = config["text_cfg"]
    masked = bool(text.get("hf_model_name"))
    whole = bool(text.get("no_causal_mask")) and not masked
    clean = (text.get("tokenizer_kwargs") or {}).get("clean")
    if clean is None and masked | whole | bool(text.get("hf_tokenizer_name")):
        clean = "whitespace"
    elif clean is None:
        clean = "lower" if text.get("vocab_size") == CLIP_VOCABULARY else ""
    return ModelConfig(
        dim=int(config["embed_dim"]),
        image_size=_side(preprocess["size"]),
        mean=_three(preprocess["mean"]),
        std=_three(preprocess["std"]),
        interpolation=str(preprocess.get("interpolation", "bicubic")),
        resize_mode=str(preprocess.get("resize_mode", "shortest")),
        text=TextConfig(
            int(text.get("context_length", 77)),
            pad if masked or whole else None,
            whole,
            clean,
        ),
    )


RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def _from_transformers(
    config: dict[str, Any], preprocess: dict[str, Any], pad: str | None
) -> ModelConfig:
    """The configs of the transformers library, which leave out what is usual: a context of 77
    for CLIP, 64 for SigLIP, and SigLIP's tower has no projection."""
    kind, text = str(config.get("model_type", "clip")), config.get("text_config") or {}
    siglip, masked = kind.startswith("siglip"), kind == "chinese_clip"
    usual = 64 if siglip else 512 if masked else 77
    resample = preprocess.get("resample", 3)
    dim = config.get("projection_dim", text.get("projection_dim", 512))
    if siglip:
        dim = text.get("projection_size", text.get("hidden_size", 768))
    return ModelConfig(
        dim=int(dim),
        image_size=_side(preprocess.get("crop_size") or preprocess["size"]),
        mean=_three(preprocess["image_mean"]),
        std=_three(preprocess["image_std"]),
        interpolation=RESAMPLING.get(resample, f"resample {resample}"),
        resize_mode="shortest" if preprocess.get("do_center_crop", not siglip) else "squash",
        text=TextConfig(
            int(text.get("max_position_embeddings", usual)),
            pad if masked or siglip else None,
            siglip,
            "canonicalize" if siglip else "",
        ),
    )


def read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise BadConfig("bundle-config", folder=path, fault=str(fault)) from fault
    if not isinstance(loaded, dict):
        raise BadConfig("bundle-config", folder=path, fault="not an object")
    return loaded


def _pad_token(config: dict[str, Any]) -> str | None:
    pad = config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    return str(pad) if pad is not None else None


def _side(size: object) -> int:
    """``size`` is 224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, dict):
        size = list(size.values())
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ValueError(f"size {size} is not square")
    return size


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


CARD_FILE = "soutu.json"
VISUAL, TEXTUAL = OPEN_CLIP.visual, OPEN_CLIP.textual
PREPROCESS, TOKENIZER = OPEN_CLIP.preprocess, OPEN_CLIP.tokenizer


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: where its files are and what its model is."""

    folder: Path
    info: ModelInfo
    text: TextConfig
    layout: Layout

    @property
    def visual(self) -> Path:
        return self.folder / self.layout.visual

    @property
    def textual(self) -> Path:
        return self.folder / self.layout.textual

    @property
    def tokenizer(self) -> Path:
        return self.folder / self.layout.tokenizer


def fingerprint(folder: Path) -> str:
    """sha256 (hex) over the names and bytes of the bundle's files, ``soutu.json`` aside."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == CARD_FILE or name.startswith(".") or path.suffix == ".md":
            continue
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read the descriptions of the bundle in ``folder``; the towers are not loaded.

    Raises MissingModel when files are absent, BadConfig when a description is unusable.
    """
    layout = layout_of(folder)
    absent = [name for name in layout.needed if not (folder / name).is_file()]
    if absent:
        raise MissingModel("bundle-incomplete", folder=folder, absent=", ".join(absent))
    own = read_json(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else {}
    print_of_files = own.get("fingerprint") or fingerprint(folder)
    try:
        said = read_model_config(folder, layout)
        card = ModelInfo(
            name=str(own.get("name", folder.name)),
            dim=said.dim,
            image_size=said.image_size,
            context_length=said.text.context_length,
            mean=said.mean,
            std=said.std,
            interpolation=said.interpolation,
            resize_mode=said.resize_mode,
            languages=tuple(own.get("languages", ())),
            license=str(own.get("license", "")),
            space=str(own.get("space", f"sha256:{print_of_files[:16]}")),
            fingerprint=str(print_of_files),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        raise BadConfig("bundle-config", folder=folder, fault=repr(fault)) from fault
    if card.resize_mode not in ("shortest", "squash") or card.interpolation not in (
        "bicubic",
        "bilinear",
    ):
        fault_text = f"resize_mode {card.resize_mode}, interpolation {card.interpolation}"
        raise BadConfig("bundle-config", folder=folder, fault=fault_text)
    return Bundle(folder, card, said.text, layout)


def write_card(folder: Path, **known: object) -> None:
    """Install step: hash the bundle once and keep the result with what else is known of it."""
    described = {**known, "fingerprint": fingerprint(folder)}
    text = json.dumps(described, ensure_ascii=False, indent=2)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")
