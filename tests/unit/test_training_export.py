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

from soutu.models.bundle import read_bundle
from soutu.models.onnx import OnnxEncoder
from tests.conftest import picture
from training import export, inputs, train
from training.model import Shape
from training.tokenizer import train_tokenizer
from training.warm_start import start_from

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
        tokenizer.get_vocab_size(),
        image_size=64,
        channels=(8, 8, 16, 16),
        blocks=(0, 1, 0, 0),
        width=32,
        layers=2,
    )
    model = train.build(shape)
    with torch.no_grad():  # no two vectors equal, as after training
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.02)
    for module in model.modules():  # batch statistics as training would have left them
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save({"model": model.state_dict(), "shape": asdict(shape)}, folder / "last.pt")
    monkeypatch.setattr(export, "RUNS", tmp_path / "runs")
    return model.eval(), tokenizer


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("packed", "cosine"), [(True, 0.999), (False, 0.999999)])
def test_the_bundle_equals_the_network(run, tmp_path, packed, cosine):
    model, tokenizer = run
    export.export("t", tmp_path / "bundle", languages=["zh", "en"], packed=packed)
    encoder = OnnxEncoder(read_bundle(tmp_path / "bundle"), "cpu")
    images = [picture(i, 64, 64) for i in range(5)]
    with torch.no_grad():
        expected = model.image(inputs.as_input(np.stack(images))).numpy()
        texts = model.text(inputs.tokens(tokenizer, TEXTS, 64)).numpy()
    assert (encoder.encode_images(images) * expected).sum(axis=1).min() > cosine
    assert (encoder.encode_texts(TEXTS) * texts).sum(axis=1)[:4].min() > cosine
    assert encoder.info.name == "t"
    assert encoder.info.space.startswith("t/")
    shuffled = random.Random(1).sample(images, 5)
    assert encoder.encode_images(shuffled).shape == (5, 512)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_packed_weights_take_a_quarter_of_the_file(run, tmp_path):
    sizes = []
    for packed in (True, False):
        out = tmp_path / str(packed)
        export.export("t", out, languages=["zh"], packed=packed)
        sizes.append((out / "textual" / "model.onnx").stat().st_size)
    assert sizes[0] < 0.45 * sizes[1]


def test_codes_are_within_half_a_step_and_have_a_scale_for_each_channel():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(6, 50)) * np.logspace(-3, 1, 6)[:, None]).astype(np.float32)
    for weight, axis, shape in ((rows, 0, (6, 1)), (rows.T, 1, (1, 6))):
        codes, scale = export.quantize(weight, axis)
        assert scale.shape == shape
        assert np.abs(codes - weight / scale).max() <= 0.5 + 1e-4
        assert np.abs(codes).max() == 127
    codes, scale = export.quantize(np.zeros((3, 100), np.float32), 0)
    assert not codes.any()
    assert (scale == 1).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_packed_bundle_can_be_begun_with(run, tmp_path):
    model, tokenizer = run
    export.export("t", tmp_path / "bundle", languages=["zh", "en"])
    again = train.build(model.shape)
    images = inputs.as_input(np.stack([picture(i, 64, 64) for i in range(8)]))
    start_from(again, tokenizer, tmp_path / "bundle", images)
    again.eval()
    ids = inputs.tokens(tokenizer, TEXTS[:2], 64)
    with torch.no_grad():
        assert (again.image(images) * model.image(images)).sum(dim=1).min() > 0.999
        assert (again.text(ids) * model.text(ids)).sum(dim=1).min() > 0.999
