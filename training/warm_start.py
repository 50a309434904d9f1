"""Begin with the weights of an earlier bundle, whose checkpoint nobody has any more.

What a small network learns last and slowest is to tell hundreds of things by their shape; an
earlier bundle of the same layers has learned it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from tokenizers import Tokenizer
from torch import Tensor, nn

from soutu.models.bundle import OPEN_CLIP
from training.model import DualEncoder


def start_from(model: DualEncoder, tokenizer: Tokenizer, bundle: Path, pictures: Tensor) -> None:
    """Take over both towers of ``bundle``. ``pictures`` (n, 3, S, S) tell the statistics of the
    batch norms, which an export folds away. Tokens are matched by what they spell; the positions
    on the picture are stretched to the model's grid."""
    visual, textual = (_Weights(bundle / name) for name in (OPEN_CLIP.visual, OPEN_CLIP.textual))
    _image(model, visual, pictures)
    _text(model, textual, tokenizer, Tokenizer.from_file(str(bundle / OPEN_CLIP.tokenizer)))


class _Weights:
    """The weights of one exported tower: some kept their names, the rest their order."""

    def __init__(self, path: Path) -> None:
        arrays = {w.name: numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
        self.named: dict[str, Tensor] = {}
        for name, numbers in arrays.items():
            values = numbers.astype(np.float32)
            if name.endswith(".int8"):
                values = values * arrays[name.removesuffix("int8") + "scale"]
            plain = name.removesuffix(".int8").removesuffix(".f16")
            self.named[plain] = torch.from_numpy(values)

    def in_order(self, operation: str) -> Iterator[Tensor]:
        """Return the weights (and a Conv's biases) that are named after ``operation``, in the
        order in which the tower uses them."""
        prefix = f"onnx::{operation}_"
        names = [n for n in self.named if n.startswith(prefix) and not n.endswith(".scale")]
        return iter([self.named[n] for n in sorted(names, key=lambda n: int(n[len(prefix) :]))])


@torch.no_grad()
def _image(model: DualEncoder, weights: _Weights, pictures: Tensor) -> None:
    tower = model.image
    convolutions = weights.in_order("Conv")
    layers = [m for m in tower.trunk.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    hooks = []
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        convolution.weight.copy_(next(convolutions))
        hooks.append(norm.register_forward_pre_hook(_unfold(next(convolutions))))
    tower.trunk(pictures)  # each norm meets what the layers below it, already set, give it
    for hook in hooks:
        hook.remove()
    old = weights.named["position"]
    before, now = round(old.shape[1] ** 0.5), round(tower.position.shape[1] ** 0.5)
    grid = old.transpose(1, 2).reshape(1, -1, before, before)
    stretched = F.interpolate(grid, (now, now), mode="bicubic", align_corners=False)
    tower.position.copy_(stretched.flatten(2).transpose(1, 2))
    products = weights.in_order("MatMul")
    _fill(tower.mix[1], next(products).T, weights.named["mix.1.bias"])
    _fill(tower.attention, next(products).T, weights.named["attention.bias"])
    _fill(tower.mix[0], weights.named["mix.0.weight"], weights.named["mix.0.bias"])
    _fill(tower.project, weights.named["project.weight"], weights.named["project.bias"])


def _unfold(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that lets a batch norm add ``bias`` and otherwise change nothing."""

    def set_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)

    return set_norm


@torch.no_grad()
def _text(model: DualEncoder, weights: _Weights, tokenizer: Tokenizer, old: Tokenizer) -> None:
    tower, rows = model.text, old.get_vocab()
    for token, row in tokenizer.get_vocab().items():
        if token in rows:
            tower.embed.weight[row] = weights.named["embed.weight"][rows[token]]
    tower.position.copy_(weights.named["position"])
    products = weights.in_order("MatMul")
    for name, module in tower.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.Linear)):
            known = weights.named.get(f"{name}.weight")
            weight = next(products).T if known is None else known
            _fill(module, weight, weights.named[f"{name}.bias"])


def _fill(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(module, (nn.Linear, nn.LayerNorm))
    module.weight.copy_(weight)
    module.bias.copy_(bias)
