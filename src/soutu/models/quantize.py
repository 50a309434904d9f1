"""Decide which layers may be int8: measured on real images and texts, smoothed where that helps.

A layer's input is quantized with one scale for the whole tensor, so a channel a hundred times
larger than the others drowns them. SmoothQuant (Xiao et al., arXiv 2211.10438) divides such
channels in the layer norm before the layer and multiplies the layer's weights, which changes
nothing in exact arithmetic. Behind a GELU nothing can be divided, so a damaged layer there
stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from soutu.models.graph import ImageTower, Linear, Norm, TextTower, quantize_columns
from soutu.types import Floats

SAMPLE_ROWS = 256  # input rows of each layer to measure with
ALPHAS = (0.0, 0.35, 0.5, 0.65, 0.8)  # how much of the range moves into the weights; 0: nothing
MAX_NOISE = 2e-3  # noise to signal above which a layer stays in float32

Feed: TypeAlias = dict[str, NDArray[Any]]
"""The inputs of a graph, by name."""


@dataclass
class LayerInputs:
    """What goes into one layer: each channel's smallest and largest value, and some rows."""

    low: Floats
    high: Floats
    rows: list[Floats] = field(default_factory=list)

    @property
    def sample(self) -> Floats:
        """About ``SAMPLE_ROWS`` of the rows, (rows, in)."""
        return np.concatenate(self.rows)[:: max(1, sum(map(len, self.rows)) // SAMPLE_ROWS)]


@dataclass(frozen=True)
class LayerNoise:
    """``damage``: noise to signal of each layer as int8, after smoothing."""

    damage: dict[str, float]

    def layers_to_keep(self, at_least: int = 0) -> frozenset[str]:
        """Return the layers to keep in float32: those too damaged, or the ``at_least`` worst."""
        worst = sorted(self.damage, key=self.damage.__getitem__, reverse=True)
        damaged = {name for name in worst if self.damage[name] > MAX_NOISE}
        return frozenset(damaged | set(worst[:at_least]))


def collect_inputs(
    path: Path, layer_inputs: Mapping[str, str], feeds: Iterable[Feed]
) -> dict[str, LayerInputs]:
    """Run the float32 graph in ``path``, which exposes its layers' inputs, over batches."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")  # a copy of all weights
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = {output.name for output in session.get_outputs()}
    layers = {layer: tensor for layer, tensor in layer_inputs.items() if tensor in outputs}
    tensors = list(dict.fromkeys(layers.values()))
    inputs: dict[str, LayerInputs] = {}
    for feed in feeds:
        values = dict(zip(tensors, session.run(tensors, feed), strict=True))
        for layer, tensor in layers.items():
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            known = inputs.setdefault(layer, LayerInputs(low, high))
            known.low, known.high = np.minimum(known.low, low), np.maximum(known.high, high)
            known.rows.append(rows[:: max(1, len(rows) // 32)].copy())
    return inputs


def smooth(
    tower: ImageTower | TextTower, inputs: Mapping[str, LayerInputs]
) -> tuple[ImageTower | TextTower, LayerNoise]:
    """Balance a tower's norms and layers, and measure how damaged each layer is then.

    The result is the same function in exact arithmetic.
    """
    damage = {
        name: _noise(layer, inputs[name]) for name, layer in _other_layers(tower) if name in inputs
    }
    blocks = []
    for number, block in enumerate(tower.stack.blocks):
        name = f"blocks.{number}"
        for part in ("qkv", "out", "up", "down"):
            damage[f"{name}.{part}"] = _noise(getattr(block, part), inputs[f"{name}.{part}"])
        if not tower.stack.norm_last:  # a norm behind the sum feeds the next sum as well
            divisor, damage[f"{name}.qkv"] = _best_divisor(block.qkv, inputs[f"{name}.qkv"])
            norm1, qkv = _fold(divisor, block.norm1, block.qkv)
            divisor, damage[f"{name}.up"] = _best_divisor(block.up, inputs[f"{name}.up"])
            norm2, up = _fold(divisor, block.norm2, block.up)
            block = replace(block, norm1=norm1, qkv=qkv, norm2=norm2, up=up)
        blocks.append(block)
    return replace(tower, stack=replace(tower.stack, blocks=tuple(blocks))), LayerNoise(damage)


def _other_layers(tower: ImageTower | TextTower) -> Iterator[tuple[str, Linear]]:
    """Yield the linear layers outside the blocks, by the names they have in the graph."""
    for number, layer in enumerate(tower.projections):
        yield f"project.{number}", layer
    if isinstance(tower, ImageTower) and tower.head:
        for part in ("kv", "out", "up", "down"):
            yield f"head.{part}", getattr(tower.head, part)


def _noise(layer: Linear, inputs: LayerInputs, divisor: Floats | None = None) -> float:
    """Noise to signal (powers) of the layer's int8 output, its input divided by ``divisor``."""
    factor = np.ones_like(inputs.low) if divisor is None else divisor
    x, weight = inputs.sample / factor, layer.weight * factor[:, None]
    low, high = min(0.0, float((inputs.low / factor).min())), float((inputs.high / factor).max())
    step = max((max(high, 0.0) - low) / 255, 1e-12)
    rounded = np.round(x / step) * step
    integers, scale = quantize_columns(weight)
    exact = x @ weight
    error = rounded @ (integers * scale) - exact
    return float((error**2).mean() / max(float(exact.var(axis=0).mean()), 1e-12))


def _best_divisor(layer: Linear, inputs: LayerInputs) -> tuple[Floats, float]:
    """Find the divisor of the layer's input that leaves the least noise, and that noise."""
    activation = np.maximum(np.maximum(np.abs(inputs.low), np.abs(inputs.high)), np.float32(1e-5))
    weight = np.maximum(np.abs(layer.weight).max(axis=1), np.float32(1e-5))
    candidates: list[tuple[Floats, float]] = []
    for alpha in ALPHAS:
        divisor = (activation**alpha / weight ** (1 - alpha)) if alpha else np.ones_like(weight)
        divisor = (divisor / np.exp(np.log(divisor).mean())).astype(np.float32)
        candidates.append((divisor, _noise(layer, inputs, divisor)))
    return min(candidates, key=lambda candidate: candidate[1])


def _fold(divisor: Floats, norm: Norm, layer: Linear) -> tuple[Norm, Linear]:
    """Move the division into the norm, the multiplication into the layer."""
    return (
        replace(norm, weight=norm.weight / divisor, bias=norm.bias / divisor),
        replace(layer, weight=np.ascontiguousarray(layer.weight * divisor[:, None])),
    )
