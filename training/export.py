"""A trained checkpoint → a model bundle: two ONNX graphs, int8 on disk, float32 at work.

``python -m training.export --name tiny --out src/soutu/bundles/tiny``; ``--weights float32``
writes the bundle that the packed one is compared with.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from soutu.models.bundle import OPEN_CLIP, fingerprint, write_card
from soutu.models.download import hash_files
from soutu.types import Floats
from training.model import DualEncoder, Shape
from training.train import RUNS, build

OPSET = 17
SMALL = 256  # weights of fewer numbers stay as they are
# Fitted to the bundle that ships: python -m benchmarks.calibration, python -m benchmarks.thresholds
CONFIDENCE = {
    "any": [1.527, 0.462, -2.68],
    "this": [1.745, 0.787, -3.79],
    "thresholds": [0.046, 0.581],
}


def load(folder: Path) -> DualEncoder:
    """Load the checkpoint's model, ready to be evaluated."""
    state = torch.load(folder / "last.pt", weights_only=True)
    shape: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in state["shape"].items()
    }
    model = build(Shape(**shape))
    model.load_state_dict(state["model"])
    return model.eval()


def export_tower(
    tower: nn.Module, example: Tensor, path: Path, *, names: tuple[str, str], packed: bool
) -> None:
    """One graph with a free batch size, and a free length for texts."""
    axes = {0: "batch"} if example.ndim == 4 else {0: "batch", 1: "length"}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        tower,
        (example,),
        str(path),
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_axes={names[0]: axes, names[1]: {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    if packed:
        onnx.save(pack(onnx.load(path)), path)


def pack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep large weights as int8 with one scale an output channel: a Cast and a Mul stand in
    front, which ONNX Runtime folds when it loads the graph. A quarter of the file, float32
    arithmetic."""
    graph, nodes, scales = model.graph, [], []
    # A MatMul's weight is (in, out); all others are (out, …), an embedding's rows its tokens.
    columns = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        name, unpacked = weight.name, f"{weight.name}.whole"
        numbers = numpy_helper.to_array(weight)
        codes, scale = quantize(numbers, numbers.ndim - 1 if name in columns else 0)
        scales.append(numpy_helper.from_array(scale, f"{name}.scale"))
        weight.CopyFrom(numpy_helper.from_array(codes, f"{name}.int8"))
        nodes.append(helper.make_node("Cast", [weight.name], [unpacked], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [unpacked, scales[-1].name], [name]))
    graph.initializer.extend(scales)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def quantize(weight: Floats, axis: int) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric int8 codes, and the scales of the channels along ``axis``."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def export(name: str, out: Path, *, languages: list[str], packed: bool = True) -> None:
    """Write the bundle of run ``name`` to ``out``, over one that is there."""
    folder = RUNS / name
    model = load(folder)
    side, context = model.shape.image_size, model.shape.context
    picture = torch.zeros(2, 3, side, side)
    text = torch.tensor([[2, 5, 3], [2, 3, 0]])
    export_tower(
        model.image, picture, out / OPEN_CLIP.visual, names=("image", "embedding"), packed=packed
    )
    export_tower(
        model.text, text, out / OPEN_CLIP.textual, names=("text", "embedding"), packed=packed
    )
    shutil.copyfile(folder / "tokenizer.json", out / OPEN_CLIP.tokenizer)
    preprocess = {
        "size": side,
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"embed_dim": 512, "text_cfg": {"context_length": context}}
    (out / OPEN_CLIP.preprocess).write_text(json.dumps(preprocess, indent=2) + "\n")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    space = f"{name}/{fingerprint(out)[:12]}"
    write_card(
        out,
        name=name,
        space=space,
        languages=languages,
        license="Apache-2.0",
        **({"confidence": CONFIDENCE} if name == "tiny" else {}),
        files=hash_files(out),
    )
    total = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {total / 1e6:.2f} MB, space {space}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("src/soutu/bundles/tiny"))
    parser.add_argument("--languages", default="zh,en")
    parser.add_argument("--weights", default="int8", choices=["int8", "float32"])
    args = parser.parse_args()
    languages, packed = args.languages.split(","), args.weights == "int8"
    export(args.name, args.out, languages=languages, packed=packed)


if __name__ == "__main__":
    main()
