"""Embeddings in files, in the layouts that other programs write."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soutu.exchange.embeddings import AnyFloats


def write_folder(
    folder: Path,
    images: AnyFloats,
    paths: Sequence[str],
    captions: Sequence[str] = (),
    texts: AnyFloats | None = None,
) -> Path:
    """Parallel files, without a model.json."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image_features.npy", images)
    (folder / "image_paths.json").write_text(json.dumps(list(paths)), "utf-8")
    if captions:
        (folder / "captions.json").write_text(json.dumps(list(captions)), "utf-8")
    if texts is not None:
        np.save(folder / "text_features.npy", texts)
    return folder


def write_original(
    folder: Path,
    images: AnyFloats,
    paths: Sequence[str],
    captions: Sequence[str],
    texts: AnyFloats,
) -> Path:
    """As the original demo wrote it: tensors and pickles. Needs torch."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(images), folder / "image_features.pt")
    torch.save(torch.from_numpy(texts), folder / "text_features.pt")
    (folder / "captions.pkl").write_bytes(pickle.dumps(list(captions)))
    (folder / "image_paths.pkl").write_bytes(pickle.dumps(list(paths)))
    return folder


def write_table(file: Path, **columns: object) -> Path:
    """A Parquet file. Needs pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def write_clip_retrieval(
    folder: Path,
    parts: Sequence[tuple[AnyFloats, AnyFloats | None, dict[str, object]]],
    numbers: Sequence[int] | None = None,
) -> Path:
    """``parts``: images, texts and the columns of the metadata, each. Needs pyarrow."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (images, texts, columns) in zip(numbers or range(len(parts)), parts, strict=True):
        np.save(folder / f"img_emb/img_emb_{number}.npy", images)
        if texts is not None:
            np.save(folder / f"text_emb/text_emb_{number}.npy", texts)
        write_table(folder / f"metadata/metadata_{number}.parquet", **columns)
    return folder
