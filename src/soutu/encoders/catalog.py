"""Finding a model by name: in the package, on the machine, or on a model hub."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from soutu.encoders.bundle import NEEDED, Bundle, read_bundle, write_card
from soutu.errors import MissingModel

DEFAULT = "ViT-B-32"
EMBEDDED = "tiny"


@dataclass(frozen=True)
class HubModel:
    """A public ONNX export. ``space`` names the source weights."""

    repository: str
    space: str
    languages: tuple[str, ...]
    license: str


HUB = {
    DEFAULT: HubModel("immich-app/ViT-B-32__openai", "ViT-B-32/openai", ("en",), "MIT"),
}


def models_folder() -> Path:
    """Where fetched models live: ``$SOUTU_MODELS``, else the user's cache folder."""
    if set_by_user := os.environ.get("SOUTU_MODELS"):
        return Path(set_by_user)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "soutu" / "models"


def open_model(name: str) -> Bundle:
    """The bundle called ``name``: a folder's path, the embedded model, one that was fetched
    before, or one that can be fetched now. Raises MissingModel."""
    if os.sep in name or name.startswith("."):
        if not Path(name).is_dir():
            raise MissingModel("model-folder", folder=name)
        return read_bundle(Path(name).resolve())
    embedded = Path(str(resources.files("soutu"))) / "bundles" / name
    if embedded.is_dir():
        return read_bundle(embedded)
    folder = models_folder() / name
    if not folder.is_dir():
        if name not in HUB:
            known = ", ".join(sorted({EMBEDDED, *HUB}))
            raise MissingModel("model-unknown", name=name, known=known)
        _fetch(name, HUB[name], folder)
    return read_bundle(folder)


def _fetch(name: str, model: HubModel, folder: Path) -> None:
    """Download beside and rename: a broken download leaves nothing that looks installed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    beside = folder.with_name(folder.name + ".part")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        snapshot_download(
            model.repository,
            local_dir=beside,
            allow_patterns=list(NEEDED),
            endpoint=endpoint,
            etag_timeout=10,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as fault:
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else repr(fault)
        raise MissingModel(
            "model-unreachable",
            name=name,
            repository=model.repository,
            folder=folder,
            fault=reason,
        ) from fault
    shutil.rmtree(beside / ".cache", ignore_errors=True)
    read_bundle(beside)
    write_card(
        beside,
        name=name,
        space=model.space,
        languages=list(model.languages),
        license=model.license,
    )
    beside.replace(folder)
