"""Soutu (搜图): find images by Chinese or English text, and captions by image."""

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
from soutu.types import GalleryInfo, Hit, IndexState, ModelCard, Query, SearchResult, Term, Variant

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
    "ModelCard",
    "ModelMismatch",
    "Query",
    "RemoteUnavailable",
    "SearchResult",
    "SoutuError",
    "Term",
    "Variant",
]
