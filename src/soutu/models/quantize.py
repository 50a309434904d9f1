"""Which layers may be int8: measured on real pictures and texts, smoothed where that helps.

A layer's input is quantised with one scale for the whole tensor, so a channel a hundred times
larger than the others drowns them. SmoothQuant (Xiao et al., arXiv 2211.10438) divides such
channels in the layer norm before the layer and multiplies the layer's weights, which changes
nothing in exact arithmetic. Behind a GELU nothing can be divided, so a damaged layer there
stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from soutu.models.graph import ImageTower, Linear, Norm, TextTower, quantise
from soutu.types import Floats

ROWS = 256  # input rows kept of each layer to measure with
ALPHAS = (0.0, 0.35, 0.5, 0.65, 0.8)  # how much of the range moves into the weights; 0: nothing
DAMAGED = 2e-3  # noise to signal from which a layer stays in float32
Feed = dict[str, NDArray[Any]]


@dataclass
class Seen:
    """What goes into one layer: each channel's smallest and largest value, and some rows."""

    low: Floats
    high: Floats
    rows: list[Floats] = field(default_factory=list)

    @property
    def sample(self) -> Floats:
        return np.concatenate(self.rows)[:: max(1, sum(map(len, self.rows)) // ROWS)]


def observe(path: Path, tapped: Mapping[str, str], feeds: Iterable[Feed]) -> dict[str, Seen]:
    """Run the float32 graph in ``path``, saved with its taps, over batches of input."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    there = {output.name for output in session.get_outputs()}
    names = {layer: tensor for layer, tensor in tapped.items() if tensor in there}
    wanted = list(dict.fromkeys(names.values()))
    seen: dict[str, Seen] = {}
    for feed in feeds:
        values = dict(zip(wanted, session.run(wanted, feed), strict=True))
        for layer, tensor in names.items():
            rows = values[tensor].reshape(-1, values[tensor].shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            kept = rows[:: max(1, len(rows) // 32)].copy()
            if layer in seen:
                known = seen[layer]
                known.low, known.high = np.minimum(known.low, low), np.maximum(known.high, high)
                known.rows.append(kept)
            else:
                seen[layer] = Seen(low, high, [kept])
    return seen


def noise(layer: Linear, seen: Seen, divide: Floats | None = None) -> float:
    """Noise to signal (powers) of the layer's int8 output, its input divided by ``divide``."""
    factor = np.ones_like(seen.low) if divide is None else divide
    x, weight = seen.sample / factor, layer.weight * factor[:, None]
    low, high = min(0.0, float((seen.low / factor).min())), float((seen.high / factor).max())
    step = max((max(high, 0.0) - low) / 255, 1e-12)
    rounded = np.round(x / step) * step
    whole, scale = quantise(weight)
    exact = x @ weight
    error = rounded @ (whole * scale) - exact
    return float((error**2).mean() / max(float(exact.var(axis=0).mean()), 1e-12))


def factors(layer: Linear, seen: Seen) -> tuple[Floats, float]:
    """The division of the layer's input that leaves the least noise, and that noise."""
    activation = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), np.float32(1e-5))
    weight = np.maximum(np.abs(layer.weight).max(axis=1), np.float32(1e-5))
    best: tuple[Floats, float] | None = None
    for alpha in ALPHAS:
        divide = (activation**alpha / weight ** (1 - alpha)) if alpha else np.ones_like(weight)
        divide = (divide / np.exp(np.log(divide).mean())).astype(np.float32)
        remaining = noise(layer, seen, divide)
        if best is None or remaining < best[1]:
            best = divide, remaining
    assert best is not None
    return best


def _folded(norm: Norm, layer: Linear, divide: Floats) -> tuple[Norm, Linear]:
    """The division moved into the norm, the multiplication into the layer."""
    return (
        replace(norm, weight=norm.weight / divide, bias=norm.bias / divide),
        replace(layer, weight=np.ascontiguousarray(layer.weight * divide[:, None])),
    )


@dataclass(frozen=True)
class Plan:
    """``damage``: noise to signal of each layer as int8, after smoothing."""

    damage: dict[str, float]

    def keep(self, at_least: int = 0) -> frozenset[str]:
        """The layers that stay in float32: those too damaged, or the ``at_least`` worst."""
        worst = sorted(self.damage, key=self.damage.__getitem__, reverse=True)
        damaged = {name for name in worst if self.damage[name] > DAMAGED}
        return frozenset(damaged | set(worst[:at_least]))


def balance(
    tower: ImageTower | TextTower, seen: Mapping[str, Seen]
) -> tuple[ImageTower | TextTower, Plan]:
    """``tower`` with its norms and layers balanced (the same function in exact arithmetic), and
    how damaged each of its layers is then."""
    damage = {name: noise(layer, seen[name]) for name, layer in _further(tower) if name in seen}
    blocks = []
    for number, block in enumerate(tower.stack.blocks):
        name = f"blocks.{number}"
        for part in ("qkv", "out", "up", "down"):
            damage[f"{name}.{part}"] = noise(getattr(block, part), seen[f"{name}.{part}"])
        if not tower.stack.norm_last:  # a norm behind the sum feeds the next sum as well
            divide, damage[f"{name}.qkv"] = factors(block.qkv, seen[f"{name}.qkv"])
            first, qkv = _folded(block.first, block.qkv, divide)
            divide, damage[f"{name}.up"] = factors(block.up, seen[f"{name}.up"])
            second, up = _folded(block.second, block.up, divide)
            block = replace(block, first=first, qkv=qkv, second=second, up=up)
        blocks.append(block)
    return replace(tower, stack=replace(tower.stack, blocks=tuple(blocks))), Plan(damage)


def _further(tower: ImageTower | TextTower) -> Iterator[tuple[str, Linear]]:
    """The linear layers outside the blocks, by the names they have in the graph."""
    for number, layer in enumerate(tower.project):
        yield f"project.{number}", layer
    head = tower.head if isinstance(tower, ImageTower) else None
    if head:
        yield from (
            ("head.kv", head.kv),
            ("head.out", head.out),
            ("head.up", head.up),
            ("head.down", head.down),
        )
