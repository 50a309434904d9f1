"""A model bundle: a folder with two ONNX towers, their preprocessing and a tokenizer.

    config.json                  embed_dim, text_cfg.context_length
    visual/model.onnx            image float32 [n, 3, S, S] → embedding [n, D]
    visual/preprocess_cfg.json   size, mean, std, interpolation, resize_mode
    textual/model.onnx           text int [n, length] → embedding [n, D]
    textual/tokenizer.json       a ``tokenizers`` file
    textual/tokenizer_config.json   the pad token (optional)
    soutu.json                   name, languages, license, space, fingerprint (ours, optional)

This is the layout that open_clip's public ONNX exports use; ``soutu.json`` is added when a
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
from soutu.types import ModelCard

CARD_FILE = "soutu.json"
VISUAL, TEXTUAL = "visual/model.onnx", "textual/model.onnx"
PREPROCESS, TOKENIZER = "visual/preprocess_cfg.json", "textual/tokenizer.json"
TOKENIZER_CONFIG = "textual/tokenizer_config.json"
NEEDED = ("config.json", PREPROCESS, TOKENIZER, VISUAL, TEXTUAL)
OPTIONAL = (TOKENIZER_CONFIG,)


@dataclass(frozen=True)
class TextRules:
    """How the text tower wants its input. ``pad`` is the token that fills up shorter texts
    (None: id 0). A causal CLIP tower pools at the end token and a BERT-like one masks the
    padding, so for both the padding changes nothing and a batch is padded to its longest text;
    a tower that sees its padding (SigLIP) gets all its context (``whole``). ``canonical``:
    lower case without punctuation, as SigLIP was trained."""

    context_length: int
    pad: str | None = None
    whole: bool = False
    canonical: bool = False


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: where its files are and what its model is."""

    folder: Path
    card: ModelCard
    text: TextRules

    @property
    def visual(self) -> Path:
        return self.folder / VISUAL

    @property
    def textual(self) -> Path:
        return self.folder / TEXTUAL

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER


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
    absent = [name for name in NEEDED if not (folder / name).is_file()]
    if absent:
        raise MissingModel("bundle-incomplete", folder=folder, absent=", ".join(absent))
    config, preprocess = _json(folder / "config.json"), _json(folder / PREPROCESS)
    own = _json(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else {}
    print_of_files = own.get("fingerprint") or fingerprint(folder)
    try:
        text = _text_rules(config["text_cfg"], folder / TOKENIZER_CONFIG)
        card = ModelCard(
            name=str(own.get("name", folder.name)),
            dim=int(config["embed_dim"]),
            image_size=_side(preprocess["size"]),
            context_length=text.context_length,
            mean=_three(preprocess["mean"]),
            std=_three(preprocess["std"]),
            interpolation=str(preprocess.get("interpolation", "bicubic")),
            resize_mode=str(preprocess.get("resize_mode", "shortest")),
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
    return Bundle(folder, card, text)


def _text_rules(described: dict[str, Any], tokenizer_config: Path) -> TextRules:
    """From open_clip's ``text_cfg`` (its context is 77 where nothing is said) and the
    tokenizer's own description."""
    masked = bool(described.get("hf_model_name"))
    whole = bool(described.get("no_causal_mask")) and not masked
    pad = None
    if (masked or whole) and tokenizer_config.is_file():
        pad = _json(tokenizer_config).get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
    cleaning = (described.get("tokenizer_kwargs") or {}).get("clean")
    return TextRules(
        int(described.get("context_length", 77)),
        str(pad) if pad is not None else None,
        whole,
        cleaning == "canonicalize",
    )


def write_card(folder: Path, **known: object) -> None:
    """Install step: hash the bundle once and keep the result with what else is known of it."""
    described = {**known, "fingerprint": fingerprint(folder)}
    text = json.dumps(described, ensure_ascii=False, indent=2)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise BadConfig("bundle-config", folder=path, fault=str(fault)) from fault
    if not isinstance(loaded, dict):
        raise BadConfig("bundle-config", folder=path, fault="not an object")
    return loaded


def _side(size: object) -> int:
    """``size`` is 224 or [224, 224] in the wild."""
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ValueError(f"size {size} is not square")
    return size


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c
