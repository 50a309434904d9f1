"""One short query and eight variants of it through ViT-B/32's text tower, from text to vector.

``python -m benchmarks.text_latency [--runs 30]``. The reference is float32 with all texts padded
to 77 tokens, as public ONNX exports demand it. Needs the extras ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.record import save
from soutu.factory import sample_inputs
from soutu.models.export import export
from soutu.models.onnx import TextEncoder
from soutu.models.open_clip import checkpoint_of, load
from soutu.types import Floats

CONTEXT = 77
QUERY = "a gray cat"  # five tokens with those of start and end
VARIANTS = [
    "a gray cat", "a photo of a gray cat", "grey cat", "a gray kitten", "a picture of a grey cat",
    "gray tabby cat", "a cat with gray fur", "a small gray cat",
]  # fmt: skip
Encode = Callable[[list[str]], Floats]


def pad_to_context(encoder: TextEncoder) -> Encode:
    """Every text at the context's whole length."""

    def encode(texts: list[str]) -> Floats:
        vectors: Floats = encoder.tower(*encoder.tokenizer(texts, CONTEXT))
        return vectors

    return encode


def milliseconds(encode: Encode, texts: list[str]) -> float:
    start = time.perf_counter()
    encode(texts)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        os.environ["SOUTU_MODELS"] = models
        loaded = load(checkpoint_of("ViT-B-32", "random:0"))
        float32, int8 = (
            TextEncoder(export(loaded, p, sample_inputs(), p).bundle, "cpu")
            for p in ("float32", "int8")
        )
        engines: dict[str, Encode] = {
            "float32, padded to 77": pad_to_context(float32),
            "float32, cut": float32.encode,
            "int8, cut (Soutu)": int8.encode,
        }
        cosine = float((float32.encode(VARIANTS) * int8.encode(VARIANTS)).sum(1).min())
        times: dict[str, dict[str, list[float]]] = {name: {} for name in engines}
        for number in range(args.runs + 3):
            for name, encode in engines.items():
                for kind, texts in (("one query", [QUERY]), ("eight variants", VARIANTS)):
                    ms = milliseconds(encode, texts)
                    if number >= 3:  # the first rounds warm up
                        times[name].setdefault(kind, []).append(ms)
    table = {
        name: {kind: round(statistics.median(runs), 2) for kind, runs in kinds.items()}
        for name, kinds in times.items()
    }
    slow, fast = table["float32, padded to 77"], table["int8, cut (Soutu)"]
    ratios = {kind: round(slow[kind] / fast[kind], 1) for kind in fast}
    for name, row in table.items():
        print(f"{name:24} {row}")
    print(f"times as fast: {ratios}; lowest cosine {cosine:.5f}")
    settings = {"unit": "ms", "runs": args.runs, "model": "ViT-B-32, random weights"}
    print(save("text_latency", {**settings, **table, "times as fast": ratios,
                                "lowest cosine": round(float(np.float32(cosine)), 5)}))  # fmt: skip


if __name__ == "__main__":
    main()
