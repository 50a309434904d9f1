"""Both layouts of public exports give the same model."""

import json
import shutil

import numpy as np
import pytest

from soutu.errors import BadConfig, MissingModel
from soutu.models.bundle import OPEN_CLIP, TRANSFORMERS, TextConfig, read_bundle
from soutu.models.download import install_folder, verify
from soutu.models.onnx import OnnxEncoder
from tests.conftest import DIM, SIDE, picture, write_bundle

onnx = pytest.importorskip("onnx", reason="needs onnx to make a bundle")

CLIP = {"model_type": "clip", "projection_dim": DIM, "text_config": {"max_position_embeddings": 12}}
PREPROCESSOR = {
    "crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}, "resample": 3,
    "do_center_crop": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
}  # fmt: skip


def masked(model):
    """The text tower with two outputs, the embedding second, and a mask that it takes."""
    from onnx import TensorProto, helper

    graph = model.graph
    kept = [n for n in graph.node if n.op_type not in ("Greater", "Cast")]
    nodes = [helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT), *kept]
    for node in nodes:
        node.output[:] = ["text_embeds" if name == "embedding" else name for name in node.output]
    shape = ["batch", "length"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("attention_mask", "text")
    ]
    outputs = [
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, [*shape, DIM]),
        helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", DIM]),
    ]
    weights = [w for w in graph.initializer if w.name != "zero"]
    changed = helper.make_graph(nodes, "tower", inputs, outputs, weights)
    made = helper.make_model(changed, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


@pytest.fixture
def both(tmp_path):
    """One model in both layouts."""
    first, second = write_bundle(tmp_path / "first"), tmp_path / "second"
    (second / "onnx").mkdir(parents=True)
    shutil.copyfile(first / OPEN_CLIP.visual, second / TRANSFORMERS.visual)
    shutil.copyfile(first / OPEN_CLIP.tokenizer, second / TRANSFORMERS.tokenizer)
    onnx.save(masked(onnx.load(first / OPEN_CLIP.textual)), second / TRANSFORMERS.textual)
    (second / "config.json").write_text(json.dumps(CLIP))
    (second / TRANSFORMERS.preprocess).write_text(json.dumps(PREPROCESSOR))
    return first, second


def test_the_same_weights_give_the_same_vectors(both):
    first, second = (OnnxEncoder(read_bundle(folder), "cpu") for folder in both)
    images, texts = [picture(1), picture(2, 33, 80)], ["cat", "a longer one", "猫"]
    assert np.allclose(first.encode_images(images), second.encode_images(images), atol=1e-6)
    assert np.allclose(first.encode_texts(texts), second.encode_texts(texts), atol=1e-6)
    alone = np.concatenate([second.encode_texts([text]) for text in texts])
    assert np.allclose(second.encode_texts(texts), alone, atol=1e-6), "padding is masked"


def test_it_is_installed_and_verified_whole(both):
    bundle = install_folder(both[1], "mine")
    assert verify("mine").passed
    assert "onnx/text_model.onnx" in verify("mine").intact
    assert OnnxEncoder(bundle, "cpu").encode_texts(["cat"]).shape == (1, DIM)


def test_what_is_missing_is_named_in_its_own_layout(both):
    (both[1] / TRANSFORMERS.textual).unlink()
    with pytest.raises(MissingModel, match="onnx/text_model"):
        read_bundle(both[1])


@pytest.mark.parametrize(
    ("config", "dim", "text"),
    [
        ({"model_type": "clip", "projection_dim": 512}, 512, TextConfig(77)),
        ({"model_type": "chinese_clip", "projection_dim": 512,
          "text_config": {"max_position_embeddings": 52}}, 512, TextConfig(52, pad="<unk>")),
        ({"model_type": "siglip", "text_config": {"hidden_size": 768}}, 768,
         TextConfig(64, pad="<unk>", pad_to_context=True, clean="siglip")),
        ({"model_type": "siglip", "text_config": {"hidden_size": 768, "vocab_size": 256000}}, 768,
         TextConfig(64, pad="<unk>", pad_to_context=True, clean="siglip2")),
    ],
    ids=["clip", "chinese-clip", "siglip", "siglip2"],
)  # fmt: skip
def test_kinds_of_models_are_described_as_they_are(both, config, dim, text):
    folder = both[1]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / TRANSFORMERS.tokenizer_config).write_text(json.dumps({"pad_token": "<unk>"}))
    found = read_bundle(folder)
    assert (found.info.dim, found.text) == (dim, text)


@pytest.mark.parametrize(
    ("size", "crop", "mode"),
    [({"height": 32, "width": 32}, False, "squash"), ({"shortest_edge": 32}, True, "shortest")],
)
def test_resizing_follows_the_preprocessor(both, size, crop, mode):
    config = {**PREPROCESSOR, "size": size, "do_center_crop": crop, "resample": 2}
    config.pop("crop_size")
    (both[1] / TRANSFORMERS.preprocess).write_text(json.dumps(config))
    card = read_bundle(both[1]).info
    assert (card.image_size, card.resize_mode, card.interpolation) == (32, mode, "bilinear")


def test_a_crop_that_is_not_done_has_no_size(both):
    """As the transformers library writes it: a crop's size beside the crop that is left out."""
    config = {**PREPROCESSOR, "do_center_crop": False, "crop_size": {"height": 24, "width": 24}}
    (both[1] / TRANSFORMERS.preprocess).write_text(json.dumps(config))
    card = read_bundle(both[1]).info
    assert (card.image_size, card.resize_mode) == (SIDE, "squash")


def test_a_crop_of_a_larger_picture_is_refused(both):
    """Vectors of other pictures than the model's would be the result."""
    config = {**PREPROCESSOR, "crop_size": {"height": 24, "width": 24}}
    (both[1] / TRANSFORMERS.preprocess).write_text(json.dumps(config))
    with pytest.raises(BadConfig, match="cropped to 24"):
        read_bundle(both[1])


@pytest.mark.parametrize("change", [{"size": {"height": 32, "width": 48}}, {"resample": 0}])
def test_an_unusable_preprocessor_is_named(both, change):
    config = {**PREPROCESSOR, **change}
    config.pop("crop_size")
    (both[1] / TRANSFORMERS.preprocess).write_text(json.dumps(config))
    with pytest.raises(BadConfig, match=r"not square|resample 0"):
        read_bundle(both[1])
