"""Write a trained photo model as a bundle: two ONNX graphs, integers on disk, float32 at work.

Weights are kept as int8 with one scale a channel; the classifier and the perceptrons of the heads
as 4-bit codes with four scales a channel; embedding tables as 4-bit codes with one scale a row, the
frequent tokens' rows as two times 4 bits (USE's own table has 6). Small convolutions stay in half
precision. ``python -m training.photo.bundle_export --run RUN --out
FOLDER``; ``--weights float32`` writes the bundle that the small one is compared with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from soutu.models.bundle import OPEN_CLIP, fingerprint, write_card
from soutu.models.download import hash_files
from soutu.types import Floats
from training.export import export_tower, quantize
from training.photo.efficientnet import MEAN, STD
from training.photo.english import EnglishTower
from training.photo.fitting import Model, load
from training.photo.image_tower import PixelTower
from training.photo.packed_inputs import Inputs, read_inputs
from training.photo.prepare import CONTEXT, INPUTS
from training.photo.text_tower import Bag, TextTower, pair_bucket
from training.photo.views import load_photos, whole
from training.photo.vocabulary import LATIN, SPECIAL, build_tokenizer

LEVELS = 15  # codes from 0 to 15, zero lying between two of them
FREQUENT = 2048  # tokens whose rows have 8 bits
CALIBRATION = 96  # training photographs that the biases are corrected on
GROUPS = 4  # scales a channel of a 4-bit matrix
SMALL = 256  # weights of fewer numbers stay as they are
# Matrices of half a byte a weight, by part of their names: the classifier and the perceptrons.
HALF_BYTES = ("backbone._fc.weight", ".up.weight", ".down.weight")
# Convolutions kept in half precision, by part of their names: few weights, and int8 errors in them
# pass through every later layer.
FRAGILE = ("_conv_stem", "_depthwise_conv", *(f"backbone._blocks.{i}." for i in range(8)))
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # of a row's largest weight

# Fitted to the exported bundle: python -m benchmarks.photos confidence --split val
CONFIDENCE = {
    "photo": {
        "any": [0.672, 0.374, -1.897, -1.801],
        "this": [0.829, 0.096, -2.387, -2.949],
        "thresholds": [0.148, 0.624],
    }
}


def four_bits(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce rows to codes from 0 to 15.

    A row's scale is the one, among a few, with the least squared error.

    Returns
    -------
    codes : uint8 (rows, columns / 2)
        Two codes a byte, the even column's in the high half.
    scale : float32 (rows, 1)
        A weight is about (code − 7.5) · scale.
    """
    largest = weights.abs().amax(1, keepdim=True).clamp(min=1e-8)
    best, error = torch.zeros_like(largest), torch.full_like(largest, torch.inf)

    def rounded(scale: Tensor) -> Tensor:
        return (weights / scale + LEVELS / 2).round().clamp(0, LEVELS)

    for share in SHRINK:
        scale = largest * share * 2 / LEVELS
        squared = ((rounded(scale) - LEVELS / 2) * scale - weights).square().sum(1, keepdim=True)
        best = torch.where(squared < error, scale, best)
        error = torch.minimum(error, squared)
    codes = rounded(best).to(torch.uint8)
    return codes[:, 0::2] * 16 + codes[:, 1::2], best


class FourBitTable(nn.Module):
    """An embedding table of 4-bit codes.

    Parameters
    ----------
    weights : float32 (rows, columns)
    frequent : int64 (n,), optional
        Rows whose rounding error is stored in a second table of 4-bit codes.
    """

    codes: Tensor
    scale: Tensor
    place: Tensor

    def __init__(self, weights: Tensor, frequent: Tensor | None = None) -> None:
        super().__init__()
        codes, scale = four_bits(weights)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.rest: FourBitTable | None = None
        if frequent is not None and len(frequent):
            missing = weights[frequent] - self(frequent)
            self.rest = FourBitTable(torch.cat([torch.zeros_like(missing[:1]), missing]))
            place = torch.zeros(len(weights), dtype=torch.int16)
            place[frequent] = torch.arange(1, len(frequent) + 1, dtype=torch.int16)
            self.register_buffer("place", place)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ``ids``, of any shape, as float32."""
        both = self.codes[ids].float()
        high = (both / 16).floor()
        codes = torch.stack([high, both - high * 16], -1).flatten(-2)
        rows: Tensor = (codes - LEVELS / 2) * self.scale[ids]
        return rows if self.rest is None else rows + self.rest(self.place[ids].long())


def float_table(weights: Tensor) -> nn.Embedding:
    return nn.Embedding(len(weights), weights.shape[1], _weight=weights)


class ExportedBag(nn.Module):
    """``Bag`` with the units and the inner pairs of every kept piece summed beforehand."""

    first: Tensor
    last: Tensor

    def __init__(self, bag: Bag, places: Tensor, frequent: Tensor, *, packed: bool) -> None:
        super().__init__()
        rows, pairs = bag.piece_rows().detach()[places], bag.pairs.weight.detach()
        self.pieces = FourBitTable(rows, frequent) if packed else float_table(rows)
        self.pairs = FourBitTable(pairs) if packed else float_table(pairs)
        self.register_buffer("first", bag.first[places].to(torch.int16))
        self.register_buffer("last", bag.last[places].to(torch.int16))

    def forward(self, ids: Tensor, drop: float = 0.0) -> Tensor:
        del drop  # for training only
        left, right = self.last[ids[:, :-1]].long(), self.first[ids[:, 1:]].long()
        double = ((left > 0) & (right > 0)).float()
        single = (self.first[ids] > 0).float()
        total: Tensor = (self.pieces(ids) * single[..., None]).sum(1)
        total = total + (self.pairs(pair_bucket(left, right)) * double[..., None]).sum(1)
        return total / (single.sum(1, keepdim=True) + double.sum(1, keepdim=True)).clamp(min=1)


def needed_pieces(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Find the pieces worth keeping, and the frequent ones among them.

    Latin pieces that no text of the training has are dropped (USE has them for other languages);
    Chinese characters stay.

    Returns
    -------
    places : int64 (n,), token ids of the training
    frequent : int64 (``FREQUENT``,), positions in ``places``
    """
    pieces = inputs.vocabulary.pieces
    counts = torch.bincount(inputs.ids.flatten().long(), minlength=len(pieces))
    needed = [
        i for i, p in enumerate(pieces) if counts[i] or p in SPECIAL or not LATIN.fullmatch(p)
    ]
    places = torch.tensor(needed)
    return places, counts[places].topk(FREQUENT).indices


def export_text(text: TextTower, inputs: Inputs, out: Path, *, packed: bool) -> None:
    """Write ``textual/``."""
    places, frequent = needed_pieces(inputs)
    text.bag = ExportedBag(text.bag, places, frequent, packed=packed)  # type: ignore[assignment]
    rows = text.sentence.table.weight.detach()[places]
    table = FourBitTable(rows, frequent) if packed else float_table(rows)
    text.sentence.table = table  # type: ignore[assignment]
    example = torch.tensor([[2, 5, 3], [2, 3, 0]])
    names = ("text", "embedding")
    export_tower(text.eval(), example, out / OPEN_CLIP.textual, names=names, packed=False)
    if packed:
        pack(out / OPEN_CLIP.textual)
    vocabulary = inputs.vocabulary
    write_tokenizer(
        [vocabulary.pieces[i] for i in places], [vocabulary.scores[i] for i in places], out
    )


def export_english(run: Path, out: Path, *, packed: bool) -> None:
    """Write ``textual/`` of ``photo-en``."""
    vocabulary = json.loads((run / "english.json").read_text(encoding="utf-8"))
    tower = EnglishTower(len(vocabulary["pieces"]))
    tower.load_state_dict(torch.load(run / "english.pt", weights_only=True))
    path, example = out / OPEN_CLIP.textual, torch.tensor([[2, 5, 3], [2, 3, 0]])
    export_tower(tower.eval(), example, path, names=("text", "embedding"), packed=packed)
    write_tokenizer(vocabulary["pieces"], vocabulary["scores"], out)


def write_tokenizer(pieces: Sequence[str], scores: Sequence[float], out: Path) -> None:
    tokenizer = build_tokenizer(pieces, [round(score, 3) for score in scores])
    (out / OPEN_CLIP.tokenizer).write_text(tokenizer.to_str(pretty=False), encoding="utf-8")


def pack(path: Path) -> None:
    """Store a graph's weights as integers; a few nodes in front of each make them float32 again.

    ONNX Runtime folds those nodes when it loads the graph.
    """
    model = onnx.load(path)
    graph, nodes = model.graph, []
    columns = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    arrays = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    for name, weight in arrays.items():
        if weight.dtype != np.float32 or weight.ndim < 2 or weight.size < SMALL:
            continue
        if weight.shape[-1] == 1 and weight.ndim == 2:  # the scales of a table
            continue
        del graph.initializer[[w.name for w in graph.initializer].index(name)]
        if any(part in name for part in FRAGILE):
            half = numpy_helper.from_array(weight.astype(np.float16), f"{name}.half")
            graph.initializer.append(half)
            nodes.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
            continue
        halves = weight.ndim == 2 and weight.shape[1] % (2 * GROUPS) == 0
        if halves and any(part in name for part in HALF_BYTES):
            nodes += _four_bit_nodes(graph, name, weight)
        else:
            axis = weight.ndim - 1 if name in columns else 0
            codes, scale = quantize(weight, axis)
            graph.initializer.append(numpy_helper.from_array(codes, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            nodes.append(
                helper.make_node("Cast", [f"{name}.int8"], [f"{name}.f"], to=TensorProto.FLOAT)
            )
            nodes.append(helper.make_node("Mul", [f"{name}.f", f"{name}.scale"], [name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _four_bit_nodes(graph: onnx.GraphProto, name: str, weight: Floats) -> list[onnx.NodeProto]:
    """Add the codes of a matrix to the graph; return the nodes that unpack them."""
    groups = torch.from_numpy(weight.copy()).reshape(-1, weight.shape[1] // GROUPS)
    codes, scale = four_bits(groups)
    constants = {
        "codes": codes.numpy(),
        "scale": scale.numpy(),
        "16": np.float32(16),
        "zero": np.float32(LEVELS / 2),
        "last": np.array([2], np.int64),
        "rows": np.array(groups.shape, np.int64),
        "shape": np.array(weight.shape, np.int64),
    }
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}.{key}"))

    def node(
        kind: str, inputs: str, output: str, *, to: int | None = None, axis: int | None = None
    ) -> onnx.NodeProto:
        given = {"to": to, "axis": axis}
        attributes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        read = [f"{name}.{key}" for key in inputs.split()]
        write = [f"{name}.{output}" if output else name]
        return helper.make_node(kind, read, write, **attributes)

    return [
        node("Cast", "codes", "both", to=TensorProto.FLOAT),
        node("Div", "both 16", "ratio"),
        node("Floor", "ratio", "high"),
        node("Mul", "high 16", "shifted"),
        node("Sub", "both shifted", "low"),
        node("Unsqueeze", "high last", "high3"),
        node("Unsqueeze", "low last", "low3"),
        node("Concat", "high3 low3", "pairs", axis=2),
        node("Reshape", "pairs rows", "flat"),
        node("Sub", "flat zero", "centred"),
        node("Mul", "centred scale", "scaled"),
        node("Reshape", "scaled shape", ""),
    ]


@torch.no_grad()
def correct_biases(tower: nn.Module, images: Tensor) -> None:
    """Take out of every layer's bias what rounding its weights adds to its mean output.

    Nagel et al. 2019 (arXiv 1906.04721), section 4.2: E[Δy] = ΔW · E[x], with the mean inputs
    measured on ``images``.
    """
    means: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            means[name] = inputs[0].transpose(0, 1).flatten(1).mean(1)

        return hook

    layers = {n: m for n, m in tower.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    tower(images)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        weight = layer.weight
        if any(part in f"{name}.weight" for part in FRAGILE) or layer.bias is None:
            continue
        if any(part in f"tower.{name}.weight" for part in HALF_BYTES):
            rows = weight.reshape(-1, weight.shape[1] // GROUPS)
            rounded = FourBitTable(rows)(torch.arange(len(rows))).reshape(weight.shape)
        else:
            codes, scale = quantize(weight.numpy(), 0)
            rounded = torch.from_numpy(codes * scale)
        lost = weight - rounded
        layer.bias += (lost.sum((2, 3)) if lost.ndim > 2 else lost) @ means[name]


def export_images(
    model: Model, size: int, out: Path, *, packed: bool, photos: Tensor | None = None
) -> None:
    """Write ``visual/``: bytes in, so that the normalisation is part of the graph."""
    if packed and photos is not None:
        correct_biases(model.image.eval(), whole(photos, size))
    tower = PixelTower(model.image).eval()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    export_tower(tower, example, out / OPEN_CLIP.visual, names=("image", "embedding"), packed=False)
    if packed:
        pack(out / OPEN_CLIP.visual)
    preprocess = {
        "size": size,
        "mode": "RGB",
        "mean": [MEAN / 255] * 3,
        "std": [STD / 255] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    (out / OPEN_CLIP.preprocess).write_text(
        json.dumps(preprocess, indent=2) + "\n", encoding="utf-8"
    )


def describe(out: Path, name: str, languages: list[str]) -> None:
    """Write ``config.json`` and the model card's fields."""
    config = {"embed_dim": 512, "text_cfg": {"context_length": CONTEXT}}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    space = f"{name}/{fingerprint(out)[:12]}"
    write_card(
        out,
        name=name,
        space=space,
        languages=languages,
        license="Apache-2.0",
        **({"confidence": CONFIDENCE[name]} if name in CONFIDENCE else {}),
        files=hash_files(out),
    )
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {total / 1e6:.2f} MB, space {space}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--out", type=Path, default=Path("src/soutu/bundles/photo"))
    parser.add_argument("--english", type=Path)
    parser.add_argument("--weights", default="int8", choices=["int8", "float32"])
    args = parser.parse_args()
    inputs = read_inputs(args.inputs, torch.device("cpu"))
    model, options = load(inputs, args.run)
    packed = args.weights == "int8"
    first = load_photos(args.inputs / "train0.npz", inputs.device, CALIBRATION)
    export_images(model, options.size, args.out, packed=packed, photos=first)
    if args.english is None:
        export_text(model.text, inputs, args.out, packed=packed)
        describe(args.out, "photo", ["zh", "en"])
    else:
        export_english(args.english, args.out, packed=packed)
        describe(args.out, "photo-en", ["en"])


if __name__ == "__main__":
    main()
