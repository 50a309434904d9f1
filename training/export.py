"""A trained checkpoint → a model bundle: two ONNX graphs, float16 on disk, float32 at work.

``python -m training.export --name tiny --out src/soutu/bundles/tiny``
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
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from soutu.encoders.bundle import PREPROCESS, TEXTUAL, TOKENIZER, VISUAL, fingerprint, write_card
from training.model import DualEncoder, Shape
from training.train import RUNS, build

OPSET = 17


def load(folder: Path) -> DualEncoder:
    """The checkpoint's model, ready to be evaluated."""
    state = torch.load(folder / "last.pt", weights_only=True)
    shape: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in state["shape"].items()
    }
    model = build(Shape(**shape))
    model.load_state_dict(state["model"])
    return model.eval()


def export_tower(tower: nn.Module, example: Tensor, path: Path, names: tuple[str, str]) -> None:
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
    onnx.save(halve(onnx.load(path)), path)


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep large float32 weights as float16 with a Cast in front, which ONNX Runtime folds
    when it loads the graph: half the file, float32 arithmetic."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 256:
            continue
        name, stored = weight.name, f"{weight.name}.f16"
        half = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def export(name: str, out: Path, *, languages: list[str]) -> None:
    """Write the bundle of run ``name`` to ``out``, over one that is there."""
    folder = RUNS / name
    model = load(folder)
    side, context = model.shape.image_size, model.shape.context
    picture = torch.zeros(2, 3, side, side)
    text = torch.tensor([[2, 5, 3], [2, 3, 0]])
    export_tower(model.image, picture, out / VISUAL, ("image", "embedding"))
    export_tower(model.text, text, out / TEXTUAL, ("text", "embedding"))
    shutil.copyfile(folder / "tokenizer.json", out / TOKENIZER)
    preprocess = {
        "size": side,
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"embed_dim": 512, "text_cfg": {"context_length": context}}
    (out / PREPROCESS).write_text(json.dumps(preprocess, indent=2) + "\n")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    space = f"{name}/{fingerprint(out)[:12]}"
    write_card(out, name=name, space=space, languages=languages, license="Apache-2.0")
    total = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {total / 1e6:.2f} MB, space {space}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("src/soutu/bundles/tiny"))
    parser.add_argument("--languages", default="zh,en")
    args = parser.parse_args()
    export(args.name, args.out, languages=args.languages.split(","))


if __name__ == "__main__":
    main()
