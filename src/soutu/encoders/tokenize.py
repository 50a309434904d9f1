"""Texts to token ids through the bundle's ``tokenizers`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from soutu.encoders.cleaning import CLEANINGS
from soutu.encoders.layouts import TextRules
from soutu.errors import BadConfig


class TextTokenizer:
    """Cuts at the context's length and pads as the text tower wants it (see ``TextRules``):
    where padding changes nothing, to the longest text of the batch, several times sooner."""

    def __init__(self, path: Path, rules: TextRules) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as fault:  # tokenizers raises nothing narrower
            raise BadConfig("bundle-config", folder=path, fault=str(fault)) from fault
        self._tokenizer.enable_truncation(rules.context_length)
        self._tokenizer.no_padding()
        self._rules, self._pad, self._clean = rules, 0, CLEANINGS[rules.clean]
        if rules.pad is not None:
            pad = self._tokenizer.token_to_id(rules.pad)
            if pad is None:
                raise BadConfig("bundle-config", folder=path, fault=f"no token {rules.pad!r}")
            self._pad = pad

    def __call__(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids int64 (n, longest), (n, length) where the graph's length is fixed, or
        (n, context), and which of them are no padding."""
        cleaned = [self._clean(text) for text in texts]
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch(cleaned)]
        whole = self._rules.context_length if self._rules.whole else max(map(len, rows))
        ids = np.full((len(rows), length or whole), self._pad, np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row[: ids.shape[1]]
        lengths = np.array([len(row) for row in rows])
        return ids, np.arange(ids.shape[1]) < lengths[:, None]
