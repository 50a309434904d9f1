"""The losses: captions, words, names, and agreement with teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(scores: Tensor) -> Tensor:
    """Symmetric InfoNCE of scaled scores (n, n) whose diagonal holds the pairs."""
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def any_of(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean negative log softmax of a row's positives; rows without any do not count.

    Parameters
    ----------
    scores : float (rows, columns)
        Scaled.
    positive : bool (rows, columns)
    """
    weight = positive.to(scores.dtype)
    count = weight.sum(1)
    row = -(scores.log_softmax(1) * weight).sum(1) / count.clamp(min=1)
    rows = (count > 0).to(scores.dtype)
    return (row * rows).sum() / rows.sum().clamp(min=1)


def imitate(scores: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy to a teacher's softmax, over rows and over columns (both scaled)."""
    across = -(teacher.softmax(1) * scores.log_softmax(1)).sum(1).mean()
    down = -(teacher.softmax(0) * scores.log_softmax(0)).sum(0).mean()
    return (across + down) / 2


def hit_rates(texts: Tensor, images: Tensor, owners: Tensor) -> dict[str, float]:
    """Hit rates of text → image and image → text.

    Parameters
    ----------
    texts : float (t, d)
    images : float (n, d)
    owners : int64 (t,)
        The image of each text.

    Returns
    -------
    dict
        ``t2i@1``, ``t2i@10``, ``i2t@1``: shares from 0 to 1.
    """
    scores = texts @ images.T
    own = scores.gather(1, owners[:, None])
    rank = (scores > own).sum(1)
    best = owners[scores.argmax(0)]
    hits = best == torch.arange(len(images), device=best.device)
    return {
        "t2i@1": float((rank < 1).float().mean()),
        "t2i@10": float((rank < 10).float().mean()),
        "i2t@1": float(hits.float().mean()),
    }
