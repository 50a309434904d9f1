"""open_clip models on PyTorch: loading, devices, errors; and Chinese-CLIP from transformers."""

import json

import numpy as np
import pytest

from soutu.errors import BadInput, MissingExtra, MissingModel
from soutu.factory import build_encoder
from soutu.models.export import Samples
from soutu.models.onnx import OnnxEncoder
from tests.conftest import picture

pytest.importorskip("open_clip", reason="needs open_clip")
torch = pytest.importorskip("torch", reason="needs torch")

from soutu.models.export import export
from soutu.models.open_clip import Checkpoint, OpenClipEncoder, checkpoint_of, load, open_encoder
from tests.small_models import KINDS, clip, load_small

IMAGES = [picture(i, 40 + i, 50) for i in range(6)]
TEXTS = ["a photo of a cat", "灰猫", "red dog"]


@pytest.fixture
def checkpoint(tmp_path):
    """A small model's weights in a file, as a training run leaves them, and the model."""
    loaded = load_small("clip", tmp_path, seed=3)
    file = tmp_path / "epoch_1.pt"
    state = {f"module.{k}": v for k, v in loaded.model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, file)
    return file, loaded


def test_a_checkpoint_file_gives_the_same_vectors_as_the_model(checkpoint):
    file, loaded = checkpoint
    encoder = build_encoder(f"torch:soutu-test-clip/{file}", "cpu")
    expected = OpenClipEncoder(loaded, "x", "cpu")
    assert np.allclose(encoder.encode_images(IMAGES), expected.encode_images(IMAGES), atol=1e-6)
    assert np.allclose(encoder.encode_texts(TEXTS), expected.encode_texts(TEXTS), atol=1e-6)


def test_safetensors_are_read_and_equal_weights_have_one_space_wherever_they_lie(checkpoint):
    from safetensors.torch import save_file

    file, loaded = checkpoint
    safe = file.with_suffix(".safetensors")
    save_file({k: v.contiguous() for k, v in loaded.model.state_dict().items()}, safe)
    encoder = open_encoder("soutu-test-clip", str(safe), "cpu")
    assert np.allclose(
        encoder.encode_texts(TEXTS),
        OpenClipEncoder(loaded, "x", "cpu").encode_texts(TEXTS),
        atol=1e-6,
    )
    moved = safe.rename(safe.with_name("moved.safetensors"))
    assert open_encoder("soutu-test-clip", str(moved), "cpu").info.space == encoder.info.space
    assert encoder.info.space.startswith("soutu-test-clip/sha256:")


class Evil:
    def __reduce__(self):
        return (print, ("code from a checkpoint was run",))


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path, capfd):
    clip(tmp_path)
    file = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, file)
    with pytest.raises(BadInput, match=r"archives with code in them are not opened"):
        open_encoder("soutu-test-clip", str(file), "cpu")
    assert "was run" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    clip(tmp_path)
    file = tmp_path / "broken.pt"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.pt cannot be read as weights"):
        open_encoder("soutu-test-clip", str(file), "cpu")


def test_weights_of_another_architecture_are_refused(checkpoint):
    with pytest.raises(BadInput, match="cannot be read as weights of ViT-S-32-alt"):
        open_encoder("ViT-S-32-alt", str(checkpoint[0]), "cpu")


def test_names_are_found_in_the_catalogue():
    assert checkpoint_of("ViT-B-32") == Checkpoint("ViT-B-32", "openai")
    assert checkpoint_of("ViT-B-32-laion2b").weights == "laion2b_s34b_b79k"
    assert checkpoint_of("ViT-H-14/laion2b_s32b_b79k").architecture == "ViT-H-14"
    assert checkpoint_of("ViT-B-32", "mine.pt") == Checkpoint("ViT-B-32", "mine.pt")


def test_what_is_unknown_says_what_is_known(tmp_path):
    with pytest.raises(MissingModel, match=r"--pretrained TAG"):
        open_encoder("RN50", device="cpu")
    with pytest.raises(MissingModel, match="open_clip knows no model called NoSuch"):
        open_encoder("NoSuch/openai", device="cpu")
    with pytest.raises(MissingModel, match=r"it has: .*laion400m"):
        open_encoder("ViT-B-32", "nothing", "cpu")


def test_a_hub_that_is_not_there_says_what_to_do_and_says_it_once(monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModel, match="could not be fetched"):
        open_encoder("ViT-B-32/laion2b_s34b_b79k", device="cpu")
    assert not [r for r in caplog.records if r.name == "root"]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error(tmp_path, device):
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if there:
        pytest.skip(f"{device} is there")
    with pytest.raises(MissingExtra, match=f"{device} is not available"):
        open_encoder("ViT-B-32/openai", device=device)
    with pytest.raises(BadInput, match="no device called tpu"):
        open_encoder("ViT-B-32/openai", device="tpu")


def test_openai_weights_get_their_activation(tmp_path, monkeypatch):
    """OpenAI trained with QuickGELU; the plain architecture's name does not say so."""
    import open_clip

    seen = {}

    def fake(name, **kwargs):
        seen.update(kwargs)
        raise RuntimeError("no weights here")

    monkeypatch.setattr(open_clip, "create_model", fake)
    for tag, quick in (("openai", True), ("laion2b_s34b_b79k", False)):
        with pytest.raises(MissingModel):
            load(Checkpoint("ViT-B-32", tag))
        assert seen["force_quick_gelu"] is quick
        assert seen["weights_only"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_preprocessing_is_that_of_the_library(tmp_path, kind):
    """Our resize, crop and normalisation against open_clip's transform."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    from soutu.models.preprocess import preprocess

    loaded = load_small(kind, tmp_path)
    transform = image_transform_v2(PreprocessCfg(**loaded.preprocess), is_train=False)
    card = loaded.info("x")
    for image in (*IMAGES, picture(9, 301, 97), picture(8, 97, 301)):
        theirs = transform(Image.fromarray(image)).numpy()
        assert np.abs(preprocess([image], card)[0] - theirs).max() < 1e-5


@pytest.fixture
def chinese_clip(tmp_path):
    """A small Chinese-CLIP in the transformers library's folder form."""
    from transformers import BertTokenizerFast, ChineseCLIPConfig, ChineseCLIPModel

    folder = tmp_path / "chinese"
    folder.mkdir()
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"灰猫狗金毛一只，。a",
        "cat",
        "red",
        "dog",
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    text = {
        "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
    }  # fmt: skip
    vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 96, "image_size": 32, "patch_size": 8}  # fmt: skip
    config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    torch.manual_seed(0)
    model = ChineseCLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    model.save_pretrained(folder)
    shown = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_center_crop": False,
             "size": {"height": 32, "width": 32}, "resample": 3,
             "image_processor_type": "ChineseCLIPImageProcessor"}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    return folder, model


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_chinese_clip_is_exported_with_its_bert(chinese_clip, precision):
    folder, model = chinese_clip
    loaded = load(checkpoint_of("chinese-clip-ViT-B-16", str(folder)))
    texts = ["一只灰猫，", "金毛。", "red dog", "猫" * 80]
    made = export(loaded, "zh", Samples(IMAGES, texts), precision)
    assert made.bundle.info.resize_mode == "squash"
    ids = loaded.tokenizer(texts)
    with torch.no_grad():
        read = model.get_text_features(input_ids=ids, attention_mask=(ids != 0).long())
    expected = getattr(read, "pooler_output", read).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = OnnxEncoder(made.bundle, "cpu").encode_texts(texts)
    assert (found * expected).sum(axis=1).min() > (0.99999 if precision == "float32" else 0.999)
