"""Which layout of embeddings lies somewhere."""

from __future__ import annotations

from pathlib import Path

from soutu.errors import BadInput
from soutu.exchange.clip_retrieval import IMAGES, ClipRetrieval
from soutu.exchange.embeddings import Embeddings
from soutu.exchange.npy import FeatureFolder
from soutu.exchange.parquet import ParquetRows


def open_embeddings(place: Path, form: str | None = None) -> Embeddings:
    """The embeddings in the folder or file ``place``, in the format ``form`` or the one found
    there. BadInput where there is none, or what is there does not fit together; MissingExtra
    where reading them needs a package that is not installed."""
    if not place.exists():
        raise BadInput("import-missing", path=place)
    form = form or _recognised(place)
    if form == "parquet":
        return ParquetRows(place)
    if form == "clip-retrieval":
        return ClipRetrieval(place)
    return FeatureFolder(place, form)


def _recognised(place: Path) -> str:
    if place.is_file():
        if place.suffix == ".parquet":
            return "parquet"
    elif (place / IMAGES).is_dir():
        return "clip-retrieval"
    elif (place / "image_features.npy").exists():
        return "npy"
    elif (place / "image_features.pt").exists():
        return "pt"
    elif any(place.glob("*.parquet")):
        return "parquet"
    raise BadInput("import-nothing", path=place)
