"""Read the output of clip-retrieval: numbered parts in three folders.

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
from soutu.exchange.npy import open_npy, read_source, require_same_count, slice_rows
from soutu.exchange.parquet import CAPTION, PATH, choose_column, open_parquet, read_texts

IMAGES, CAPTIONS, METADATA = "img_emb", "text_emb", "metadata"


class ClipRetrieval:
    """Implements ``Embeddings``; parts in the order of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.source = read_source(folder)
        images = _find_parts(folder / IMAGES, "npy")
        texts = _find_parts(folder / CAPTIONS, "npy")
        metadata = _find_parts(folder / METADATA, "parquet")
        self._parts: list[tuple[Path, Path | None, Path]] = []
        self.count = 0
        for number, file in sorted(images.items()):
            for parts, kind in ((texts or images, CAPTIONS), (metadata, METADATA)):
                if number not in parts:
                    raise BadInput("import-part", file=file, folder=folder / kind, number=number)
            self._parts.append((file, texts.get(number), metadata[number]))
            count = open_npy(file).shape[0]
            if texts:
                require_same_count(file, count, texts[number], open_npy(texts[number]).shape[0])
            with open_parquet(metadata[number]) as parquet:
                require_same_count(file, count, metadata[number], parquet.metadata.num_rows)
            self.count += count

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield all rows, at most ``size`` at once."""
        for images, texts, metadata in self._parts:
            arrays = open_npy(images), open_npy(texts) if texts else None
            with open_parquet(metadata) as parquet:
                path = choose_column(metadata, parquet, (PATH, "key", "url"))
                has_captions = CAPTION in parquet.schema_arrow.names
                columns = [path, CAPTION] if has_captions else [path]
                start = 0
                for batch in parquet.iter_batches(size, columns=columns):
                    paths = read_texts(metadata, batch, path)
                    captions = [""] * len(paths)
                    if has_captions:
                        captions = read_texts(metadata, batch, CAPTION)
                    part = slice(start, start + len(paths))
                    yield slice_rows(images, part, paths, captions, arrays)
                    start = part.stop


def _find_parts(folder: Path, ending: str) -> dict[int, Path]:
    """Find the files of ``folder`` by the number at the end of their names."""
    parts = {}
    for file in sorted(folder.glob(f"{folder.name}_*.{ending}")):
        number = re.fullmatch(rf"{folder.name}_(\d+)", file.stem)
        if number:
            parts[int(number[1])] = file
    return parts
