"""The output of clip-retrieval: numbered parts in three folders.

img_emb/img_emb_0.npy          image vectors (n, dim), often float16
text_emb/text_emb_0.npy        text vectors (optional)
metadata/metadata_0.parquet    image_path, caption, or key and url of a web dataset
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from soutu.errors import BadInput
from soutu.exchange.embeddings import Rows
from soutu.exchange.npy import Matrix, described_in, open_npy, parallel, same_count
from soutu.exchange.parquet import CAPTION, PATH, choose, names, open_parquet, texts_of

IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"


class ClipRetrieval:
    """Implements ``Embeddings``; parts in the order of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.described = described_in(folder)
        images = _parts(folder / IMAGES, "npy")
        texts, metadata = _parts(folder / TEXTS, "npy"), _parts(folder / METADATA, "parquet")
        self._parts: list[tuple[Path, Path | None, Path]] = []
        for number, file in sorted(images.items()):
            for there, kind in ((texts or images, TEXTS), (metadata, METADATA)):
                if number not in there:
                    raise BadInput("import-part", file=file, folder=folder / kind, number=number)
            self._parts.append((file, texts.get(number), metadata[number]))
        self.count = sum(self._checked(*part) for part in self._parts)

    def _checked(self, images: Path, texts: Path | None, metadata: Path) -> int:
        """How many rows all files of one part have."""
        count = open_npy(images).shape[0]
        if texts:
            same_count(images, count, texts, open_npy(texts).shape[0])
        with open_parquet(metadata) as parquet:
            same_count(images, count, metadata, parquet.metadata.num_rows)
        return count

    def batches(self, size: int) -> Iterator[Rows]:
        for images, texts, metadata in self._parts:
            arrays = open_npy(images), open_npy(texts) if texts else None
            yield from _read(images, metadata, arrays, size)


def _read(
    images: Path, metadata: Path, arrays: tuple[Matrix, Matrix | None], size: int
) -> Iterator[Rows]:
    with open_parquet(metadata) as parquet:
        path = choose(metadata, parquet, (PATH, "key", "url"))
        columns = [path, CAPTION] if CAPTION in names(parquet) else [path]
        start = 0
        for batch in parquet.iter_batches(size, columns=columns):
            paths = texts_of(metadata, batch, path)
            captions = [""] * len(paths)
            if CAPTION in columns:
                captions = texts_of(metadata, batch, CAPTION)
            part = slice(start, start + len(paths))
            yield parallel(images, part, paths, captions, arrays)
            start = part.stop


def _parts(folder: Path, ending: str) -> dict[int, Path]:
    """The files of ``folder`` by the number at the end of their names."""
    found = {}
    for file in sorted(folder.glob(f"{folder.name}_*.{ending}")):
        number = re.fullmatch(rf"{folder.name}_(\d+)", file.stem)
        if number:
            found[int(number[1])] = file
    return found
