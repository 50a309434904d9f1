"""open_clip → bundle: the same vectors as PyTorch, in float32 and int8, for every kind of tower."""

import json

import numpy as np
import pytest

from soutu.errors import BadInput
from soutu.models.bundle import read_bundle
from soutu.models.download import list_installed, verify
from soutu.models.export import Samples, closeness, compare
from soutu.models.onnx import OnnxEncoder, TextEncoder
from tests.conftest import picture

pytest.importorskip("open_clip", reason="needs open_clip")
pytest.importorskip("onnx", reason="needs onnx")
torch = pytest.importorskip("torch", reason="needs torch")

from soutu.models.export import export
from soutu.models.graph import text_graph
from soutu.models.open_clip import Checkpoint, OpenClipEncoder, load, model_source
from tests.small_models import KINDS, load_small

IMAGES = [picture(i, 40 + i, 50) for i in range(12)]
TEXTS = ["a photo of a cat", "灰猫", "", "red dog", "金毛", "A Photo, of: a DOG!", "猫 狗 " * 40]
SAMPLES = Samples(IMAGES, TEXTS)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_has_the_vectors_of_pytorch(tmp_path, kind, precision):
    loaded = load_small(kind, tmp_path)
    made = export(loaded, f"small-{kind}", SAMPLES, precision)
    assert made.images.precision == made.texts.precision == precision
    least = 0.99999 if precision == "float32" else 0.999
    agreement = compare(
        OnnxEncoder(read_bundle(made.bundle.folder), "cpu"),
        OpenClipEncoder(loaded, "x", "cpu"),
        SAMPLES,
    )
    assert agreement.images.lowest > least
    assert agreement.texts.lowest > least
    assert agreement.overlap > 0.85
    assert verify(f"small-{kind}").passed
    assert len({file.stat().st_mode for file in made.bundle.folder.rglob("*.*")}) == 1


def test_both_precisions_share_a_space_and_not_a_fingerprint(tmp_path):
    loaded = load_small("clip", tmp_path)
    cards = [export(loaded, p, SAMPLES, p).bundle.info for p in ("float32", "int8")]
    assert cards[0].space == cards[1].space == "soutu-test-clip/random:0"
    assert cards[0].fingerprint != cards[1].fingerprint


def test_int8_is_a_quarter_of_the_size(tmp_path):
    loaded = load_small("clip", tmp_path)
    sizes = [
        sum(f.stat().st_size for f in export(loaded, p, SAMPLES, p).bundle.folder.rglob("*.data"))
        for p in ("float32", "int8")
    ]
    assert sizes[1] < 0.35 * sizes[0]


def test_texts_are_padded_to_the_longest_only_where_that_is_exact(tmp_path):
    """Padded to the context or not: the same vectors, for causal towers and for masked ones."""
    for kind in ("clip", "xlm-roberta"):
        bundle = export(load_small(kind, tmp_path), kind, SAMPLES, "float32").bundle
        encoder = TextEncoder(bundle, "cpu")
        ids, _ = encoder.tokenizer(["a cat", "灰猫"])
        assert ids.shape[1] < 10
        padded, _ = encoder.tokenizer(["a cat", "灰猫"], bundle.info.context_length)
        assert padded.shape[1] == 77
        assert np.allclose(encoder.tower(ids), encoder.tower(padded), atol=1e-5)


def with_outliers(loaded, *, hidden: bool):
    """A few channels that are a hundred times the others, as trained towers have them: in front
    of a layer (its weights make up for it), or behind the GELU, where nothing can be folded."""
    with torch.no_grad():
        for block in loaded.model.visual.transformer.resblocks:
            if hidden:
                block.mlp.c_fc.weight[:2] *= 60
                block.mlp.c_fc.bias[:2] = 200
                block.mlp.c_proj.weight[:, :2] *= 0.02
            for norm, weight in ((block.ln_1, block.attn.in_proj_weight),
                                 (block.ln_2, block.mlp.c_fc.weight)):  # fmt: skip
                norm.weight[:3] *= 150
                norm.bias[:3] *= 150
                weight[:, :3] /= 150
    return loaded


def plain_int8(loaded, folder):
    """Every layer in int8 as it is: no smoothing, nothing left out."""
    from soutu.models.graph import image_graph, save

    card = loaded.info("x")
    built = image_graph(
        model_source(loaded).images, mean=card.mean, std=card.std, keep_float=frozenset()
    )
    save(built.model, folder / "visual" / "model.onnx")


def test_outliers_spoil_plain_int8_and_smoothing_saves_it(tmp_path):
    loaded = with_outliers(load_small("clip", tmp_path), hidden=False)
    bundle = export(loaded, "exact", SAMPLES, "float32").bundle
    exact = OnnxEncoder(bundle, "cpu").encode_images(IMAGES)
    plain_int8(loaded, bundle.folder)
    spoiled = closeness(OnnxEncoder(read_bundle(bundle.folder), "cpu").encode_images(IMAGES), exact)
    assert not spoiled.suffices("int8"), "the guard sees a bad int8"
    made = export(loaded, "smooth", SAMPLES, "auto")
    assert made.images.precision == "int8"
    assert made.images.close.lowest > 0.999 > spoiled.lowest
    assert not any(name.endswith(("qkv", "up")) for name in made.images.kept)


def test_layers_that_nothing_can_smooth_stay_in_float32(tmp_path):
    made = export(with_outliers(load_small("clip", tmp_path), hidden=True), "mixed", SAMPLES)
    assert made.images.precision == "int8"
    assert {"blocks.0.down", "blocks.1.down"} <= set(made.images.kept)
    assert made.images.close.lowest > 0.995
    assert made.agreement.images.lowest > 0.99


def test_auto_falls_back_to_float32_and_int8_demanded_is_refused(tmp_path, monkeypatch):
    from soutu.models import export as module

    monkeypatch.setitem(module.MIN_COSINE, "int8", 1.1)
    loaded = load_small("clip", tmp_path)
    made = export(loaded, "fallback", SAMPLES, "auto")
    assert made.images.precision == made.texts.precision == "float32"
    assert made.images.close is not None
    with pytest.raises(BadInput, match="Nothing was installed"):
        export(loaded, "demanded", SAMPLES, "int8")
    assert "demanded" not in list_installed()


def test_a_bundle_that_disagrees_with_pytorch_is_not_installed(tmp_path, monkeypatch):
    """The last check looks at the finished bundle: here its text tower is another model's."""
    from soutu.models import export as module

    other = model_source(load_small("clip", tmp_path, seed=5)).texts
    monkeypatch.setattr(module, "text_graph", lambda tower, **options: text_graph(other, **options))
    with pytest.raises(BadInput, match="disagrees with PyTorch"):
        export(load_small("clip", tmp_path), "wrong", SAMPLES, "float32")
    assert list_installed() == ()


def test_a_tower_of_another_kind_is_named(tmp_path):
    import open_clip

    file = tmp_path / "soutu-test-resnet.json"
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    file.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(file)
    loaded = load(Checkpoint("soutu-test-resnet", "random:0"))
    with pytest.raises(BadInput, match=r"layers \[1, 1, 1, 1\].*torch:NAME"):
        export(loaded, "resnet", SAMPLES)
    assert list_installed() == ()


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(BadInput, match="auto, float32, int8"):
        export(load_small("clip", tmp_path), "x", SAMPLES, "int4")


def test_damaged_layers_are_left_out_first_and_then_the_worst():
    from soutu.models.quantize import LayerNoise

    plan = LayerNoise({"good": 1e-4, "damaged": 5e-3, "fair": 1e-3})
    assert plan.layers_to_keep() == {"damaged"}
    assert plan.layers_to_keep(1) == {"damaged"}
    assert plan.layers_to_keep(2) == {"damaged", "fair"}
