"""rclip 3.3 with a model of ours: its own program, its own database, our weights in its format."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import onnx

from soutu.models.graph import image_graph, text_graph
from soutu.models.open_clip import LoadedModel, model_source

MODEL = "ViT-B-32-256-datacomp_s34b_b86k"  # where rclip looks for its model
VOCABULARY = "tokenizer/bpe_simple_vocab_16e6.txt.gz"


def prepare(home: Path, loaded: LoadedModel) -> Path:
    """A data folder of rclip with ``loaded`` (256 px) as its float32 model."""
    import open_clip.tokenizer

    card = loaded.info("rclip")
    source = model_source(loaded)
    visual = image_graph(source.images, mean=card.mean, std=card.std).model
    textual = text_graph(source.texts).model
    (home / MODEL).mkdir(parents=True, exist_ok=True)
    for model, name in ((visual, "visual.onnx"), (textual, "textual.onnx")):
        onnx.save(_rename(model), str(home / MODEL / name))
    (home / VOCABULARY).parent.mkdir(exist_ok=True)
    shutil.copyfile(open_clip.tokenizer.default_bpe(), home / VOCABULARY)
    return home


def _rename(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its input and output called as rclip calls them."""
    own = {model.graph.input[0].name: "input", "embedding": "output"}
    for node in model.graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = own.get(value.name, value.name)
    return model


def run(program: Path, home: Path, folder: Path, *arguments: str) -> float:
    """Wall seconds of one call of rclip in ``folder``."""
    start = time.perf_counter()
    subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env={**os.environ, "RCLIP_DATADIR": str(home), "HF_HUB_OFFLINE": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def forget(home: Path) -> None:
    """Drop rclip's database, so that the next call indexes anew."""
    for file in home.glob("db.sqlite3*"):
        file.unlink()
