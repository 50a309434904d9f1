"""Finding a model by name: in the package, on the machine, or in the list of known ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

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
    """A known model; the fields are told in ``catalog.yaml``."""

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
        """On disk and to download, in float32."""
        return self.parameters * 4


@cache
def load_catalog() -> dict[str, CatalogEntry]:
    """All known models by name."""
    import yaml  # a model that is installed needs no list: no parser at every start

    text = resources.files("soutu").joinpath("models/catalog.yaml").read_text("utf-8")
    return {name: _listed(name, row) for name, row in yaml.safe_load(text).items()}


def _listed(name: str, row: dict[str, object]) -> CatalogEntry:
    recall = row.pop("recall")
    lists: dict[str, object] = {key: tuple(row[key]) for key in ("languages", "repositories")}  # type: ignore[arg-type]
    values = {**row, **lists}
    kept = (
        ZeroShotResult(**{str(k): v for k, v in recall.items()})
        if isinstance(recall, dict)
        else None
    )
    return CatalogEntry(name, recall=kept, **values)  # type: ignore[arg-type]


def models_folder() -> Path:
    """Where fetched models live: ``$SOUTU_MODELS``, else the user's cache folder."""
    if set_by_user := os.environ.get("SOUTU_MODELS"):
        return Path(set_by_user)
    return cache_folder() / "models"


def cache_folder() -> Path:
    """The user's cache: what is in it can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soutu"


def is_path(name: str) -> bool:
    """Whether a model is given by its folder (``./NAME``) and not by its name."""
    return os.sep in name or name.startswith(".")


def embedded_folder(name: str) -> Path | None:
    folder = Path(str(resources.files("soutu"))) / "bundles" / name
    return folder if folder.is_dir() else None


def open_model(name: str) -> Bundle:
    """The bundle called ``name``: a folder's path, the embedded model, one that was installed
    before, or one that can be fetched now. Raises MissingModel."""
    if is_path(name):
        if not Path(name).is_dir():
            raise MissingModel("model-folder", folder=name)
        return read_bundle(Path(name).resolve())
    folder = embedded_folder(name) or models_folder() / name
    if not folder.is_dir():
        from soutu.models.download import pull

        return pull(name)
    return read_bundle(folder)


def known_names() -> str:
    """For messages: every name that can be given."""
    return ", ".join(sorted({EMBEDDED, *load_catalog()}))
