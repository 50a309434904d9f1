"""Texts to token ids through the bundle's ``tokenizers`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from soutu.errors import BadConfig


class TextTokenizer:
    """Cuts at ``context_length`` and pads to the longest text of the batch, never further:
    a CLIP tower gives the same vector without padding, several times sooner."""

    def __init__(self, path: Path, context_length: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as fault:  # tokenizers raises nothing narrower
            raise BadConfig("bundle-config", folder=path, fault=str(fault)) from fault
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.no_padding()

    def __call__(self, texts: Sequence[str], length: int | None = None) -> NDArray[np.int64]:
        """int64 (n, longest), or (n, length) where the model's length is fixed; 0 is padding."""
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]
        ids = np.zeros((len(rows), length or max(map(len, rows))), np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row[: ids.shape[1]]
        return ids
