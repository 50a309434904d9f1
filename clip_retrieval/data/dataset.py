"""The captions file as a dataset: row i is (image, caption, image_path)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soutu.images.captions import read_captions
from soutu.images.decode import decode
from soutu.types import Rgb


class CaptionDataset:
    """Rows of ``folder/captions.csv``. Rows that cannot be used (no such picture, no text)
    are left out and kept in ``problems``; a malformed file raises BadCaptions."""

    def __init__(self, folder: Path, *, encoding: str | None = None) -> None:
        self.folder = folder
        read = read_captions(folder / "captions.csv", folder, encoding=encoding)
        self.rows, self.problems = read.rows, read.problems

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Rgb, str, str]:
        """RGB uint8 (h, w, 3), the caption, and the path as the captions file means it."""
        row = self.rows[index]
        return decode(self.folder / row.path).rgb, row.text, row.path

    def __iter__(self) -> Iterator[tuple[Rgb, str, str]]:
        return (self[i] for i in range(len(self)))
