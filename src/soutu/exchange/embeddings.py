"""Rows of embeddings as files hold them, and what they must be before they are stored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from soutu.errors import BadInput
from soutu.text import is_text
from soutu.types import Floats, Ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from soutu.exchange.npy import EmbeddingSource

AnyFloats: TypeAlias = "NDArray[np.floating[Any]]"

# A row whose length differs from 1 by no more than rounding stays as it is, so that what was
# exported comes back bit for bit.
ROUNDING = 16 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of ``file``, from its row ``first`` on (counted from 0).

    ``captions`` has "" where a row has none. ``images`` is (n, dim), ``texts`` (m, dim), float16,
    float32 or float64; text vector j belongs to row ``text_rows[j]`` of these.
    """

    file: str
    first: int
    paths: Sequence[str]
    captions: Sequence[str]
    images: AnyFloats
    texts: AnyFloats
    text_rows: Ids


class Embeddings(Protocol):
    """Embeddings that can be read any number of times, from the beginning."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        ...

    @property
    def source(self) -> EmbeddingSource | None:
        """The model that made them, where a file says it."""
        ...

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield all rows, at most ``size`` at once, unchecked. Raises BadInput."""
        ...


def validate_batch(rows: Rows, dim: int) -> Rows:
    """Return ``rows`` with float32 unit vectors of ``dim`` numbers, none for blank captions.

    Raises BadInput, naming file and row, for a vector that is zero, not finite or of another
    length, and for a path or caption that no index can hold.
    """
    for row, (path, caption) in enumerate(zip(rows.paths, rows.captions, strict=True), rows.first):
        if not path or "\0" in path or not _is_file_name(path):
            raise BadInput("import-path", file=rows.file, row=row, path=ascii(path))
        if not is_text(caption):
            raise BadInput("import-caption", file=rows.file, row=row, caption=ascii(caption))
    numbers = rows.first + np.arange(len(rows.paths))
    has_caption = np.array([bool(rows.captions[row].strip()) for row in rows.text_rows], bool)
    text_rows = rows.text_rows[has_caption]
    return replace(
        rows,
        captions=[caption if caption.strip() else "" for caption in rows.captions],
        images=_normalize(rows.images, dim, rows.file, numbers),
        texts=_normalize(rows.texts[has_caption], dim, rows.file, numbers[text_rows]),
        text_rows=text_rows,
    )


def _is_file_name(path: str) -> bool:
    """Whether a file system could hold it; bytes that are no text are kept as surrogates."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _normalize(vectors: AnyFloats, dim: int, file: str, numbers: Ids) -> Floats:
    """Bring ``vectors`` (n, dim) to length 1; ``numbers`` (n,) are their rows, for messages."""
    if vectors.shape[1] != dim:
        raise BadInput("import-dim", file=file, found=vectors.shape[1], dim=dim)
    wide = vectors.astype(np.float64)
    peaks = np.abs(wide).max(axis=1, keepdims=True)
    for wrong, code in ((~np.isfinite(peaks), "import-not-finite"), (peaks == 0, "import-zero")):
        if wrong.any():
            raise BadInput(code, file=file, row=int(numbers[int(np.argmax(wrong))]))
    # By the largest number first: squares of very large or small ones leave float64's range.
    scaled = wide / peaks
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        is_unit = np.abs(peaks * lengths - 1) <= ROUNDING
    return np.where(is_unit, wide, scaled / lengths).astype(np.float32)
