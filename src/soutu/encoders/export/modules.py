"""PyTorch modules as weights: what the readers of all libraries share."""

from __future__ import annotations

from typing import Any

import numpy as np

from soutu.encoders.export.towers import Linear, Norm
from soutu.errors import BadInput
from soutu.types import Floats


def array(tensor: Any) -> Floats:
    values: Floats = tensor.detach().float().cpu().numpy()
    return values


def layer(weight: Any, bias: Any) -> Linear:
    kept = np.ascontiguousarray(array(weight).T)
    zero = np.zeros(kept.shape[1], np.float32)
    return Linear(kept, zero if bias is None else array(bias))


def linear(module: Any) -> Linear:
    return layer(module.weight, module.bias)


def patch(convolution: Any) -> Linear:
    kernel = convolution.weight.permute(2, 3, 1, 0)  # to (row, column, colour, out)
    flat = kernel.reshape(-1, kernel.shape[-1])
    return layer(flat.T, convolution.bias)


def projection(projection: Any) -> tuple[Linear, ...]:
    """A parameter (in, out), a Linear module or nothing."""
    if projection is None:
        return ()
    if hasattr(projection, "weight"):
        return (linear(projection),)
    return (layer(projection.T, None),)


def scaled(layer: Linear, scale: Any) -> Linear:
    """With the layer scale behind it folded in."""
    gamma = getattr(scale, "gamma", None)
    if gamma is None:
        return layer
    return Linear(layer.weight * array(gamma), layer.bias * array(gamma))


def norm(module: Any) -> Norm | None:
    if type(module).__name__ == "Identity":
        return None
    return Norm(array(module.weight), array(module.bias), float(module.eps))


def needed(module: Any) -> Norm:
    found = norm(module)
    if found is None:
        raise unsupported(module)
    return found


def act(module: Any) -> str:
    name = type(module).__name__
    if name == "QuickGELU":
        return "quick_gelu"
    if name == "GELU":
        return "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu"
    if name == "GELUTanh":
        return "gelu_tanh"
    raise unsupported(module)


def demand(module: Any, met: bool, what: str) -> None:
    if not met:
        raise unsupported(module, what)


def unsupported(module: Any, what: str = "") -> BadInput:
    kind = f"{type(module).__name__} {what}".strip()
    return BadInput("export-unsupported", kind=kind)
