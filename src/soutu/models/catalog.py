"""Find a model by name: in the package, on the machine, or in the list of known ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from soutu.errors import MissingModel
from soutu.models.bundle import Bundle, read_bundle

DEFAULT = "ViT-B-32"
EMBEDDED = "tiny"


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot text→image hit rate@1 in per cent, and on which test; None: not published."""

    test: str
    zh: float | None
    en: float | None


@dataclass(frozen=True)
class CatalogEntry:
    """A known model; ``catalog.yaml`` describes the fields."""

    name: str
    source: str
    repositories: tuple[str, ...]
    px: int
    dim: int
    parameters: float
    gflops: float
    languages: tuple[str, ...]
    license: str
    recall: ZeroShotResult | None

    @property
    def megabytes(self) -> float:
        """The size on disk and of the download, in float32."""
        return self.parameters * 4


def open_model(name: str) -> Bundle:
    """Open a folder's path, the embedded model, an installed one, or one that can be fetched now.

    Raises MissingModel.
    """
    if is_path(name):
        folder = Path(name).resolve()
        if not folder.is_dir():
            raise MissingModel("model-folder", folder=name)
        return read_bundle(folder)
    folder = embedded_folder(name) or models_folder() / name
    if not folder.is_dir():
        from soutu.models.download import pull

        return pull(name)
    return read_bundle(folder)


def is_path(name: str) -> bool:
    """Whether a model is given by its folder (``./NAME``) and not by its name."""
    return os.sep in name or name.startswith(".")


def embedded_folder(name: str) -> Path | None:
    """Return the folder of a model inside the package."""
    folder = Path(str(resources.files("soutu"))) / "bundles" / name
    return folder if folder.is_dir() else None


def models_folder() -> Path:
    """Return where fetched models live: ``$SOUTU_MODELS``, else the user's cache folder."""
    configured = os.environ.get("SOUTU_MODELS")
    return Path(configured) if configured else cache_folder() / "models"


def cache_folder() -> Path:
    """Return the user's cache: what is in it can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soutu"


@cache
def load_catalog() -> dict[str, CatalogEntry]:
    """Return all known models by name."""
    import yaml  # an installed model needs no catalog: no parser at every start

    text = resources.files("soutu").joinpath("models/catalog.yaml").read_text("utf-8")
    return {name: _read_entry(name, row) for name, row in yaml.safe_load(text).items()}


def _read_entry(name: str, row: dict[str, Any]) -> CatalogEntry:
    recall = ZeroShotResult(**row["recall"]) if row["recall"] else None
    lists = {key: tuple(row[key]) for key in ("languages", "repositories")}
    return CatalogEntry(name, **{**row, **lists, "recall": recall})
