"""The weights of CLIP's towers in one form, whichever library they come from.

Arrays are float32; a linear layer keeps its weight as (in, out), so that ``x @ weight + bias``.
"""

from __future__ import annotations

from dataclasses import dataclass

from soutu.types import Floats

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")


@dataclass(frozen=True)
class Linear:
    """``weight`` (in, out), ``bias`` (out,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """A layer norm: ``weight`` and ``bias`` (d,)."""

    weight: Floats
    bias: Floats
    eps: float


@dataclass(frozen=True)
class Block:
    """One transformer block; ``qkv`` (d, 3d) holds the three projections side by side."""

    first: Norm
    qkv: Linear
    out: Linear
    second: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Stack:
    """The blocks of a tower. ``norm_last``: the norms stand behind the sums, as in BERT, and not
    before the layers, as in CLIP."""

    blocks: tuple[Block, ...]
    heads: int
    activation: str
    norm_last: bool = False


@dataclass(frozen=True)
class AttentionPool:
    """SigLIP's pooling: one learned ``query`` (d,), already projected, attends to all tokens
    (``kv`` (d, 2d)); a block of two layers follows."""

    query: Floats
    kv: Linear
    out: Linear
    norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class ImageTower:
    """``patch`` (side · side · 3, d) takes a patch's pixels row by row, red, green and blue
    together; ``positions`` (tokens, d). Without ``head`` the first token is the embedding."""

    size: int
    side: int
    patch: Linear
    class_token: Floats | None
    positions: Floats
    before: Norm | None
    stack: Stack
    after: Norm | None
    head: AttentionPool | None
    project: tuple[Linear, ...]


@dataclass(frozen=True)
class TextTower:
    """``tokens`` (vocabulary, d), ``positions`` (context, d). ``pool`` says which token is the
    embedding: "end" (the highest id), "first", "last", or the "mean" of those that are no
    padding. ``mask``: the id that no token attends to, None where there is none. Several
    projections have a GELU between them."""

    tokens: Floats
    positions: Floats
    before: Norm | None
    stack: Stack
    after: Norm | None
    project: tuple[Linear, ...]
    pool: str
    causal: bool
    mask: int | None = None
