"""From settings to objects: the only place that knows the implementations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soutu.config import Config
from soutu.encoders.catalog import DEFAULT, EMBEDDED, open_model
from soutu.encoders.onnx import OnnxEncoder
from soutu.query.rules import load_rules
from soutu.store.local import LocalStore

if TYPE_CHECKING:
    from soutu.encoders.base import Encoder
    from soutu.query.expand import Expander
    from soutu.types import ModelCard

RULES = "expansions.yaml"

__all__ = [
    "DEFAULT",
    "EMBEDDED",
    "build_encoder",
    "build_expander",
    "create_store",
    "open_store",
    "recall",
]


def build_encoder(model: str, device: str = "auto") -> Encoder:
    """The encoder of the model called ``model`` (a name or a bundle's folder)."""
    return OnnxEncoder(open_model(model), device)


def build_expander(config: Config, home: Path | None = None) -> Expander | None:
    """The expander that the settings ask for; rules lie in the file named there, else in
    ``expansions.yaml`` of the gallery's ``.soutu`` folder, over the built-in ones."""
    if not config.expand:
        return None
    if config.expansions:
        return load_rules([Path(config.expansions)])
    own = home / RULES if home else None
    return load_rules([own] if own and own.is_file() else [])


def create_store(home: Path, card: ModelCard) -> LocalStore:
    """The index at ``home`` for writing, made where it is not there."""
    return LocalStore.create_or_open(home, card)


def open_store(home: Path, space: str | None = None) -> LocalStore:
    """The index at ``home`` for reading, in ``space`` or the one last indexed with."""
    return LocalStore.open(home, space)


def recall(home: Path, key: str) -> str | None:
    """What the index at ``home`` remembers under ``key``; None where there is no index."""
    return LocalStore.peek(home, key)
