"""Measure how long a ViT-B/32 takes from its official weights to a model that is ready, and memory.

``python -m benchmarks.build_model`` writes random weights as open_clip publishes them (needs the
extra ``torch``) and builds them in a process of its own without PyTorch, several times.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import save
from soutu.models.open_clip import Checkpoint, load

RUNS = 5
_BUILD = """
import json, resource, sys, time
for name in ("torch", "transformers", "open_clip"):
    sys.modules[name] = None
from pathlib import Path
from soutu.factory import sample_inputs
from soutu.models.checkpoint import read_checkpoint
from soutu.models.export import build
start, cpu = time.perf_counter(), time.process_time()
towers = build(read_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), sample_inputs())
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "cpu_seconds": time.process_time() - cpu,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    "images": [towers.images.precision, towers.images.close.lowest],
    "texts": [towers.texts.precision, towers.texts.close.lowest],
}))
"""


def write_weights(folder: Path) -> None:
    """Write a ViT-B/32 of full size with random weights, as open_clip publishes it."""
    from safetensors.torch import save_file

    loaded = load(Checkpoint("ViT-B-32", "random:0"), quick_gelu=True)
    folder.mkdir()
    save_file(loaded.model.state_dict(), str(folder / "open_clip_model.safetensors"))
    config = {"model_cfg": loaded.config, "preprocess_cfg": loaded.preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    ranks = loaded.tokenizer.bpe_ranks
    merges = "".join(f"{a} {b}\n" for a, b in sorted(ranks, key=ranks.__getitem__))
    (folder / "vocab.json").write_text(json.dumps(loaded.tokenizer.encoder), encoding="utf-8")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")


def main() -> None:
    """Measure, print and write the result."""
    with tempfile.TemporaryDirectory() as scratch:
        official, runs = Path(scratch) / "official", []
        write_weights(official)
        size = (official / "open_clip_model.safetensors").stat().st_size / 1e6
        for number in range(RUNS):
            command = [sys.executable, "-c", _BUILD, str(official), f"{scratch}/{number}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
            print(runs[-1], flush=True)
    medians = {
        key: statistics.median(run[key] for run in runs)
        for key in ("seconds", "cpu_seconds", "peak_mb")
    }
    peak = max(run["peak_mb"] for run in runs)
    save(
        "build_model",
        {"weights_mb": size, "median": medians, "peak_to_weights": peak / size, "runs": runs},
    )


if __name__ == "__main__":
    main()
