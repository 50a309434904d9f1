"""Soutu (搜图): find images by Chinese or English text, and captions by image."""

import os

# Libraries that report how they are used, ONNX Runtime under an id of its own making, are told not
# to before any of them is imported. Who wants to send it sets the variable.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# NumPy first: imported from deeper down, its typing module sat on the edge of a chunk of CPython
# 3.11's frame stack, which was then mapped and unmapped 1,900 times (36 ms of a cold search).
import numpy  # noqa: F401  isort: skip
from typing import TYPE_CHECKING

from soutu.errors import (
    BadCaptions,
    BadConfig,
    BadImage,
    BadInput,
    BadQuery,
    IndexCorrupt,
    Missing,
    MissingExtra,
    MissingIndex,
    MissingModel,
    ModelMismatch,
    RemoteUnavailable,
    SoutuError,
)
from soutu.gallery import Gallery
from soutu.types import Hit, IndexState, ModelInfo, Query, SearchResult, Term, Variant
from soutu.version import VERSION

if TYPE_CHECKING:
    from soutu.client import AsyncClient, Client
    from soutu.maintenance import GalleryInfo
    from soutu.model import Model, list_models

__version__ = VERSION

__all__ = [
    "AsyncClient",
    "BadCaptions",
    "BadConfig",
    "BadImage",
    "BadInput",
    "BadQuery",
    "Client",
    "Gallery",
    "GalleryInfo",
    "Hit",
    "IndexCorrupt",
    "IndexState",
    "Missing",
    "MissingExtra",
    "MissingIndex",
    "MissingModel",
    "Model",
    "ModelInfo",
    "ModelMismatch",
    "Query",
    "RemoteUnavailable",
    "SearchResult",
    "SoutuError",
    "Term",
    "Variant",
    "__version__",
    "list_models",
]


_LAZY = {
    "AsyncClient": "client",
    "Client": "client",
    "GalleryInfo": "maintenance",
    "Model": "model",
    "list_models": "model",
}


def __getattr__(name: str) -> object:
    """Import what a search of a gallery does not need when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"soutu.{_LAZY[name]}"), name)
