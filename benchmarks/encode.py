"""How many pictures a second each engine encodes with ViT-B/32, on ready pixels.

``python -m benchmarks.encode [--batch 32] [--rounds 9]``. The weights are random, which changes
no speed. All engines take turns in one process, so that what else the machine does meets all of
them. Needs the extras ``torch`` and ``dev``. The int8 ratios hold on a CPU with VNNI or AMX.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.record import machine, save
from soutu.factory import sample_inputs
from soutu.models.bundle import read_bundle
from soutu.models.export import export
from soutu.models.onnx import OnnxEncoder
from soutu.models.open_clip import LoadedModel, checkpoint_of, load
from soutu.models.preprocess import preprocess
from soutu.types import Floats, Rgb

Engine = Callable[[], Floats]


@dataclass(frozen=True)
class Inputs:
    """The same pictures as each engine takes them."""

    images: list[Rgb]
    normalised: Floats


def torch_engine(loaded: LoadedModel, inputs: Inputs, *, half: bool) -> Engine:
    import torch

    kind = torch.bfloat16 if half else torch.float32
    tower = copy.deepcopy(loaded.model.visual).to(kind)
    batch = torch.from_numpy(inputs.normalised)

    def run() -> Floats:
        with torch.inference_mode():
            vectors: Floats = tower(batch.to(kind)).float().numpy()
        return vectors

    return run


def plain_export(loaded: LoadedModel, inputs: Inputs, path: Path) -> None:
    """What ``torch.onnx.export`` makes of the image tower, nothing of ours in it."""
    import torch

    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            loaded.model.visual,
            (torch.from_numpy(inputs.normalised),),
            path,
            input_names=["image"],
            output_names=["embedding"],
            opset_version=17,
            dynamo=False,
        )
    torch.backends.mha.set_fastpath_enabled(True)


def onnx_engine(path: Path, inputs: Inputs, threads: int) -> Engine:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run() -> Floats:
        vectors: Floats = session.run(["embedding"], {"image": inputs.normalised})[0]
        return vectors

    return run


def plain_int8(path: Path, out: Path) -> None:
    """ONNX Runtime's own dynamic quantisation: signed weights, a scale a channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(path), str(out), weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )  # fmt: skip


def engines(loaded: LoadedModel, inputs: Inputs, folder: Path, threads: int) -> dict[str, Engine]:
    fp32, int8 = folder / "plain.onnx", folder / "int8.onnx"
    plain_export(loaded, inputs, fp32)
    plain_int8(fp32, int8)
    exported = export(loaded, "bench-ViT-B-32", sample_inputs(), "int8")
    ours = OnnxEncoder(read_bundle(exported.bundle.folder), "cpu")
    return {
        "torch float32": torch_engine(loaded, inputs, half=False),
        "torch bfloat16": torch_engine(loaded, inputs, half=True),
        "ONNX Runtime float32": onnx_engine(fp32, inputs, threads),
        "ONNX Runtime int8": onnx_engine(int8, inputs, threads),
        "Soutu int8": lambda: ours.encode_images(inputs.images),
    }


def lowest_cosine(vectors: Floats, reference: Floats) -> float:
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, reference))
    return float((a * b).sum(axis=1).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    loaded = load(checkpoint_of("ViT-B-32", "random:0"))
    card = loaded.info("ViT-B-32")
    pictures = sample_inputs().images
    side = card.image_size
    rng = np.random.default_rng(0)
    images = [_square(pictures[i % len(pictures)], side, rng) for i in range(args.batch)]
    inputs = Inputs(images, preprocess(images, card))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SOUTU_MODELS"] = scratch
        runs_by_name = engines(loaded, inputs, Path(scratch), args.threads)
        reference = runs_by_name["torch float32"]()
        cosine = {name: lowest_cosine(run(), reference) for name, run in runs_by_name.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs_by_name}
        for _ in range(args.rounds):
            for name, run in runs_by_name.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: args.batch / statistics.median(s) for name, s in seconds.items()}
    ours = rates["Soutu int8"]
    table = {
        name: {
            "images/s": round(rate, 1),
            "lowest cosine to torch float32": round(cosine[name], 5),
            "Soutu int8 is times as fast": round(ours / rate, 2),
        }
        for name, rate in rates.items()
    }
    print(f"{machine()['cpu']}: {machine()['flags']}")
    for name, row in table.items():
        print(f"{name:22} {row}")
    settings: dict[str, Any] = {"model": "ViT-B-32, random weights", "batch": args.batch}
    print(save("encode", {**settings, "rounds": args.rounds, "threads": args.threads,
                          "torch": torch.__version__, "engines": table}))  # fmt: skip


def _square(image: Rgb, side: int, rng: np.random.Generator) -> Rgb:
    """A picture of the model's size, so that no engine pays for resizing."""
    top, left = (int(rng.integers(0, s - side + 1)) for s in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


if __name__ == "__main__":
    main()
