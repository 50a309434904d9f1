"""The ONNX engine: devices, damaged graphs, padding, lazy towers."""

import numpy as np
import onnxruntime as ort
import pytest

from soutu.errors import BadConfig, BadInput, MissingExtra
from soutu.models.bundle import TextConfig, open_model, read_bundle
from soutu.models.onnx import OnnxEncoder, TextTokenizer, provider
from tests.conftest import picture, write_bundle


def test_cpu_is_always_there():
    assert provider("cpu") == "CPUExecutionProvider"


def test_a_device_that_is_not_there_is_an_error_not_a_silent_cpu(monkeypatch, bundle_folder):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for device in ("cuda", "coreml"):
        with pytest.raises(MissingExtra, match=device):
            OnnxEncoder(read_bundle(bundle_folder), device)
    assert provider("auto") == "CPUExecutionProvider"


def test_auto_takes_cuda_where_it_is(monkeypatch):
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    assert provider("auto") == "CUDAExecutionProvider"


def test_a_session_that_fell_back_is_an_error(monkeypatch, bundle_folder):
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    encoder = OnnxEncoder(read_bundle(bundle_folder), "cuda")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(MissingExtra):
        encoder.encode_texts(["cat"])


def test_auto_may_fall_back(monkeypatch, bundle_folder):
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    encoder = OnnxEncoder(read_bundle(bundle_folder), "auto")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        assert encoder.encode_texts(["cat"]).shape == (1, 16)


@pytest.mark.parametrize(("device", "word"), [("mps", "coreml"), ("tpu", "tpu")])
def test_an_unknown_device_is_bad_input(device, word):
    with pytest.raises(BadInput, match=word):
        provider(device)


def test_a_damaged_graph_is_named(bundle_folder):
    (bundle_folder / "textual" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BadConfig, match=r"textual.model\.onnx"):
        OnnxEncoder(read_bundle(bundle_folder), "cpu").encode_texts(["cat"])


def test_a_damaged_tokenizer_is_named(bundle_folder):
    (bundle_folder / "textual" / "tokenizer.json").write_text("{}")
    with pytest.raises(BadConfig, match=r"tokenizer\.json"):
        OnnxEncoder(read_bundle(bundle_folder), "cpu").encode_texts(["cat"])


def test_text_search_does_not_load_the_image_tower(bundle_folder):
    (bundle_folder / "visual" / "model.onnx").write_bytes(b"not a graph")
    assert OnnxEncoder(read_bundle(bundle_folder), "cpu").encode_texts(["cat"]).shape == (1, 16)


def test_padding_changes_nothing():
    encoder = OnnxEncoder(open_model("tiny"), "cpu")
    alone = encoder.encode_texts(["灰猫"])
    beside_a_long_one = encoder.encode_texts(["灰猫", "一只灰猫和两只黑狗在下雪的森林里 " * 3])
    assert np.abs(alone[0] - beside_a_long_one[0]).max() < 1e-5


def test_fixed_and_free_graphs_give_the_same_vectors(tmp_path):
    free = OnnxEncoder(read_bundle(write_bundle(tmp_path / "a", seed=3)), "cpu")
    fixed = OnnxEncoder(read_bundle(write_bundle(tmp_path / "b", seed=3, fixed=True)), "cpu")
    texts, images = ["cat", "a long text that is cut", "猫"], [picture(1), picture(2)]
    assert np.allclose(free.encode_texts(texts), fixed.encode_texts(texts), atol=1e-6)
    assert np.allclose(free.encode_images(images), fixed.encode_images(images), atol=1e-6)


def test_long_texts_keep_their_end_token(bundle_folder):
    tokenizer = TextTokenizer(bundle_folder / "textual" / "tokenizer.json", TextConfig(12))
    ids, _ = tokenizer(["abcdefghijklmnopqrstuvwxyz", "a"])
    assert ids.shape == (2, 12)
    assert ids[0, -1] == 3
    assert list(ids[1]) == [2, 4, 3] + [0] * 9


def test_an_unknown_character_is_still_readable_to_the_embedded_model():
    tokenizer = TextTokenizer(open_model("tiny").tokenizer, TextConfig(64))
    rare, other = tokenizer(["龘"])[0][0], tokenizer(["靐"])[0][0]
    assert not np.array_equal(rare, other), "both would be one unknown token"
    assert 1 not in rare, "no unknown token: bytes instead"
    typed = tokenizer(["<0x41>"])[0][0]
    assert len(typed) > 4, "a typed byte name is text, not a byte"
