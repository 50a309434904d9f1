"""Soutu (搜图): find images by Chinese or English text, and captions by image."""

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
from soutu.maintenance import GalleryInfo
from soutu.model import Model, list_models
from soutu.types import Hit, IndexState, ModelInfo, Query, SearchResult, Term, Variant

if TYPE_CHECKING:
    from soutu.client import AsyncClient, Client

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
    "list_models",
]


def __getattr__(name: str) -> object:
    """Import the clients when they are first used: a search of a gallery needs neither."""
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from soutu import client

    return getattr(client, name)
