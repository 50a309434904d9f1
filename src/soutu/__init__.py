"""Soutu (搜图): find images by Chinese or English text, and captions by image."""

# NumPy first: imported from deeper down, its typing module sat on the edge of a chunk of CPython
# 3.11's frame stack, which was then mapped and unmapped 1,900 times (36 ms of a cold search).
import numpy  # noqa: F401

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
from soutu.types import Hit, IndexState, ModelInfo, Query, SearchResult, Term, Variant

__all__ = [
    "BadCaptions",
    "BadConfig",
    "BadImage",
    "BadInput",
    "BadQuery",
    "Gallery",
    "GalleryInfo",
    "Hit",
    "IndexCorrupt",
    "IndexState",
    "Missing",
    "MissingExtra",
    "MissingIndex",
    "MissingModel",
    "ModelInfo",
    "ModelMismatch",
    "Query",
    "RemoteUnavailable",
    "SearchResult",
    "SoutuError",
    "Term",
    "Variant",
]
