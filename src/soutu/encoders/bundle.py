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
from dataclasses import dataclass
from pathlib import Path

from soutu.encoders.layouts import OPEN_CLIP, Layout, TextRules, describe, layout_of, read_json
from soutu.errors import BadConfig, MissingModel
from soutu.types import ModelCard

CARD_FILE = "soutu.json"
VISUAL, TEXTUAL = OPEN_CLIP.visual, OPEN_CLIP.textual
PREPROCESS, TOKENIZER = OPEN_CLIP.preprocess, OPEN_CLIP.tokenizer


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: where its files are and what its model is."""

    folder: Path
    card: ModelCard
    text: TextRules
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
        said = describe(folder, layout)
        card = ModelCard(
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
