"""Open embeddings in whatever layout they lie there."""

from __future__ import annotations

from pathlib import Path

from soutu.errors import BadInput
from soutu.exchange.clip_retrieval import IMAGES, ClipRetrieval
from soutu.exchange.embeddings import Embeddings
from soutu.exchange.npy import FeatureFolder
from soutu.exchange.parquet import ParquetRows


def open_embeddings(path: Path, form: str | None = None) -> Embeddings:
    """Open the embeddings in a folder or file, in the format ``form`` or the one found there.

    Raises BadInput where there is none, or what is there does not fit together; MissingExtra where
    reading them needs a package that is not installed.
    """
    if not path.exists():
        raise BadInput("import-missing", path=path)
    form = form or _recognise(path)
    if form == "parquet":
        return ParquetRows(path)
    if form == "clip-retrieval":
        return ClipRetrieval(path)
    return FeatureFolder(path, form)


def _recognise(path: Path) -> str:
    if path.is_file():
        if path.suffix == ".parquet":
            return "parquet"
    elif (path / IMAGES).is_dir():
        return "clip-retrieval"
    elif (path / "image_features.npy").exists():
        return "npy"
    elif (path / "image_features.pt").exists():
        return "pt"
    elif any(path.glob("*.parquet")):
        return "parquet"
    raise BadInput("import-nothing", path=path)
