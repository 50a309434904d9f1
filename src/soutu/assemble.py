"""From settings to objects: the only place that knows the implementations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soutu.config import Config
from soutu.encoders.catalog import (
    DEFAULT,
    EMBEDDED,
    catalogue,
    embedded_folder,
    is_path,
    models_folder,
    open_model,
)
from soutu.encoders.onnx import OnnxEncoder
from soutu.query.rules import load_rules
from soutu.store.local import LocalStore

if TYPE_CHECKING:
    from soutu.encoders.base import Encoder
    from soutu.encoders.install import Verified
    from soutu.query.expand import Expander
    from soutu.types import ModelCard

RULES = "expansions.yaml"

__all__ = [
    "DEFAULT",
    "EMBEDDED",
    "build_encoder",
    "build_expander",
    "catalogue",
    "create_store",
    "describe_model",
    "installed_models",
    "open_store",
    "pull_model",
    "recall",
    "remove_model",
    "verify_model",
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


def describe_model(name: str) -> tuple[ModelCard | None, Path | None]:
    """The card and folder of a model that is on this machine; nothing is fetched."""
    there = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    bundle = open_model(name) if there else None
    return (bundle.card, bundle.folder) if bundle else (None, None)


def installed_models() -> tuple[str, ...]:
    from soutu.encoders.install import installed

    return (EMBEDDED, *installed())


def pull_model(
    name: str, *, revision: str | None = None, called: str | None = None
) -> tuple[ModelCard, Path]:
    """Install a known model from its hub, or the bundle in a folder (``./NAME``) as ``called``."""
    from soutu.encoders.install import install_folder, pull

    folder = Path(name)
    bundle = install_folder(folder, called) if is_path(name) else pull(name, revision=revision)
    return bundle.card, bundle.folder


def verify_model(name: str) -> Verified:
    from soutu.encoders.install import verify

    return verify(name)


def remove_model(name: str) -> int:
    """Returns the bytes freed."""
    from soutu.encoders.install import remove

    return remove(name)
