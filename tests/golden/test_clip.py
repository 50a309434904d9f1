"""ViT-B/32 at seeded random weights: PyTorch, ONNX float32 and ONNX int8 against kept numbers."""

import json

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="needs open_clip")
pytest.importorskip("onnx", reason="needs onnx")

from soutu.models.export import Samples, export
from soutu.models.onnx import OnnxEncoder
from soutu.models.open_clip import OpenClipEncoder
from tests.conftest import picture
from tests.golden.clip import FILE, load, vectors

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    loaded = load()
    patch = pytest.MonkeyPatch()
    patch.setenv("SOUTU_MODELS", str(tmp_path_factory.mktemp("models")))
    samples = Samples([picture(i, 240, 240) for i in range(8)], ["a cat", "灰猫", "红色的汽车", ""])
    made = {
        p: OnnxEncoder(export(loaded, p, samples, p).bundle, "cpu") for p in ("float32", "int8")
    }
    patch.undo()
    return {"torch": OpenClipEncoder(loaded, "x", "cpu"), **made}


@pytest.mark.parametrize("engine", ["torch", "float32"])
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_first_numbers(encoders, engine, kind):
    assert np.allclose(vectors(encoders[engine])[kind], GOLDEN[kind], atol=1e-3)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_int8_is_near(encoders, kind):
    found, kept = np.array(vectors(encoders["int8"])[kind]), np.array(GOLDEN[kind])
    assert np.abs(found - kept).max() < 0.02
    assert not np.allclose(kept[0], kept[1], atol=0.01), "different inputs differ"
