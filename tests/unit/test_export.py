"""The trained network and its bundle give the same vectors."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")
pytest.importorskip("onnx", reason="the exporter needs onnx")
from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from dataclasses import asdict

from soutu.encoders.bundle import read_bundle
from soutu.encoders.onnx import OnnxEncoder
from tests.conftest import picture
from training import export, inputs, train
from training.model import Shape
from training.tokenizer import train_tokenizer

TEXTS = ["一只灰猫蹲在草地上", "a gray cat on the grass", "x", "", "两只猫 " * 40]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An untrained run, as the trainer leaves it on disk."""
    torch.manual_seed(0)
    folder = tmp_path / "runs" / "t"
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(TEXTS, size=300)
    tokenizer.save(str(folder / "tokenizer.json"))
    shape = Shape(
        tokenizer.get_vocab_size(), channels=(8, 8, 16, 16), blocks=(0, 1, 0, 0), width=32, layers=2
    )
    model = train.build(shape)
    for module in model.modules():  # batch statistics as training would have left them
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save({"model": model.state_dict(), "shape": asdict(shape)}, folder / "last.pt")
    monkeypatch.setattr(export, "RUNS", tmp_path / "runs")
    return model.eval(), tokenizer


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_bundle_equals_the_network(run, tmp_path):
    model, tokenizer = run
    export.export("t", tmp_path / "bundle", languages=["zh", "en"])
    encoder = OnnxEncoder(read_bundle(tmp_path / "bundle"), "cpu")
    images = [picture(i, 64, 64) for i in range(5)]
    with torch.no_grad():
        expected = model.image(inputs.as_input(np.stack(images))).numpy()
        texts = model.text(inputs.tokens(tokenizer, TEXTS, 64)).numpy()
    # Weights are kept as float16: cosine, not bits.
    assert (encoder.encode_images(images) * expected).sum(axis=1).min() > 0.9999
    assert (encoder.encode_texts(TEXTS) * texts).sum(axis=1)[:4].min() > 0.9999
    assert encoder.card.name == "t"
    assert encoder.card.space.startswith("t/")
    shuffled = random.Random(1).sample(images, 5)
    assert encoder.encode_images(shuffled).shape == (5, 512)
