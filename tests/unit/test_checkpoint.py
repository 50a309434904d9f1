"""Official checkpoints, read without PyTorch: the same vectors as PyTorch's."""

import json
import subprocess
import sys

import numpy as np
import pytest

from soutu.errors import BadInput, MissingModel
from soutu.models.bundle import read_bundle, uses_quick_gelu
from soutu.models.checkpoint import is_checkpoint, read_checkpoint
from soutu.models.export import Samples, build, closeness
from soutu.models.onnx import OnnxEncoder, TextTokenizer
from soutu.models.preprocess import preprocess
from soutu.models.tensors import TensorFile
from soutu.models.weights import text_tower
from tests.conftest import picture

pytest.importorskip("open_clip", reason="needs open_clip")
torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

from soutu.models.open_clip import OpenClipEncoder
from tests import official_models
from tests.official_models import CLIP_FAMILIES, open_clip_repository, unit

IMAGES = [picture(i, 40 + i, 50) for i in range(12)]
TEXTS = ["a photo of a cat", "灰猫", "", "red dog", "金毛", "A Photo, of: a DOG!", "猫 狗 " * 40]
SAMPLES = Samples(IMAGES, TEXTS)
LEAST = {"float32": 0.99999, "int8": 0.999}


@pytest.fixture(autouse=True)
def small_text_models(monkeypatch):
    """The small multilingual tower stands for one whose configuration is known by its name."""
    from soutu.models import weights

    small = {"model_type": "xlm-roberta", "num_attention_heads": 2, "pad_token_id": 0,
             "layer_norm_eps": 1e-12}  # fmt: skip
    monkeypatch.setitem(weights.TEXT_MODELS, "xlm", small)


def built(folder, tmp_path, precision="float32"):
    bundle = tmp_path / f"bundle-{precision}"
    build(read_checkpoint(folder), bundle, SAMPLES, precision)
    return OnnxEncoder(read_bundle(bundle), "cpu")


def lowest(vectors, reference):
    return closeness(vectors, reference).lowest


@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize("kind", CLIP_FAMILIES)
def test_a_repository_of_open_clip_gives_the_vectors_of_pytorch(tmp_path, kind, precision):
    loaded = open_clip_repository(kind, tmp_path / "official")
    assert is_checkpoint(tmp_path / "official")
    encoder, reference = built(tmp_path / "official", tmp_path, precision), loaded_encoder(loaded)
    assert lowest(encoder.encode_images(IMAGES), reference.encode_images(IMAGES)) > LEAST[precision]
    assert lowest(encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)) > LEAST[precision]


def loaded_encoder(loaded):
    return OpenClipEncoder(loaded, "x", "cpu")


HF = {
    "clip": official_models.hf_clip,
    "siglip": official_models.hf_siglip,
    "chinese-clip": official_models.chinese_clip,
}


def hf_vectors(model, folder, encoder):
    """Both towers of a transformers model over what our preprocessing makes of the samples."""
    pixels = torch.from_numpy(preprocess(IMAGES, encoder.info))
    bundle = read_bundle(encoder._bundle.folder)
    ids, mask = TextTokenizer(bundle.tokenizer, bundle.text)(TEXTS)
    ids, mask = torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
    with torch.no_grad():
        images = model.vision_model(pixel_values=pixels)
        options = {} if hasattr(model.text_model, "head") else {"attention_mask": mask}
        texts = model.text_model(input_ids=ids, **options)
        if not hasattr(model, "visual_projection"):
            return unit(images.pooler_output), unit(texts.pooler_output)
        is_chinese = model.config.model_type == "chinese_clip"
        pooled = texts.last_hidden_state[:, 0] if is_chinese else texts.pooler_output
        return unit(model.visual_projection(images.pooler_output)), unit(
            model.text_projection(pooled)
        )


@pytest.mark.parametrize("precision", LEAST)
@pytest.mark.parametrize("kind", HF)
def test_a_repository_of_transformers_gives_the_vectors_of_pytorch(tmp_path, kind, precision):
    model = HF[kind](tmp_path / "official")
    encoder = built(tmp_path / "official", tmp_path, precision)
    images, texts = hf_vectors(model, tmp_path, encoder)
    assert lowest(encoder.encode_images(IMAGES), images) > LEAST[precision]
    assert lowest(encoder.encode_texts(TEXTS), texts) > LEAST[precision]


@pytest.mark.parametrize("kind", HF)
def test_the_tokens_are_those_of_transformers(tmp_path, kind):
    HF[kind](tmp_path / "official")
    bundle = read_bundle(built(tmp_path / "official", tmp_path)._bundle.folder)
    texts = TEXTS[:6] if kind == "siglip" else [*TEXTS[:6], "a cat，灰猫。"]
    ids, mask = TextTokenizer(bundle.tokenizer, bundle.text)(texts)
    if kind == "chinese-clip":
        tokenizer = transformers.BertTokenizer(str(tmp_path / "official" / "vocab.txt"))
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "official")
    for text, row, real in zip(texts, ids, mask, strict=True):
        text = text.lower().translate(str.maketrans("", "", ",.:!")) if kind == "siglip" else text
        assert row[real].tolist() == tokenizer(text).input_ids


def test_gelu_and_quick_gelu_are_told_apart_by_the_configuration(tmp_path):
    model = official_models.hf_clip(tmp_path / "quick")
    encoder = built(tmp_path / "quick", tmp_path)
    (right, _), quick = hf_vectors(model, tmp_path, encoder), encoder.encode_images(IMAGES)
    config = tmp_path / "quick" / "config.json"
    config.write_text(config.read_text().replace("quick_gelu", "gelu"))
    (tmp_path / "bundle-float32").rename(tmp_path / "quick-bundle")
    other = built(tmp_path / "quick", tmp_path)
    assert uses_quick_gelu(tmp_path / "quick-bundle")
    assert not uses_quick_gelu(other._bundle.folder)
    error, difference = (1 - lowest(v, right) for v in (quick, other.encode_images(IMAGES)))
    assert error < 1e-6
    assert difference > 3 * max(error, 6e-7), "small, as the weights are"


@pytest.mark.parametrize("kind", HF)
def test_archives_of_pytorch_are_read_without_it(tmp_path, kind):
    model = HF[kind](tmp_path / "official", safe=False)
    encoder = built(tmp_path / "official", tmp_path)
    images, texts = hf_vectors(model, tmp_path, encoder)
    assert lowest(encoder.encode_images(IMAGES), images) > 0.99999
    assert lowest(encoder.encode_texts(TEXTS), texts) > 0.99999


def test_nothing_of_pytorch_is_imported(tmp_path):
    official_models.chinese_clip(tmp_path / "official", safe=False)
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'open_clip', 'timm', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from soutu.factory import sample_inputs\n"
        "from soutu.models.checkpoint import read_checkpoint\n"
        "from soutu.models.export import build\n"
        "print(build(read_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]), sample_inputs()))\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "official", tmp_path / "bundle"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle" / "visual" / "model.onnx").is_file()


def test_the_towers_of_siglip_are_as_timm_builds_them():
    import timm

    from soutu.models.weights import SIGLIP_EPS, SIGLIP_TOWERS

    names = [name for name in SIGLIP_TOWERS if not name.startswith("soutu")]
    for name in names:
        with torch.device("meta"):
            trunk = timm.create_model(name, pretrained=False, num_classes=0)
        heads, activation = SIGLIP_TOWERS[name]
        assert trunk.blocks[0].attn.num_heads == heads
        act = trunk.blocks[0].mlp.act
        is_tanh = type(act).__name__ == "GELUTanh" or getattr(act, "approximate", "") == "tanh"
        assert activation == ("gelu_tanh" if is_tanh else "gelu"), name
        assert type(trunk.attn_pool.mlp.act) is type(act)
        norms = [trunk.norm, trunk.blocks[0].norm1, trunk.attn_pool.norm]
        assert {norm.eps for norm in norms} == {SIGLIP_EPS}


def test_the_dtypes_of_weights_become_float32(tmp_path):
    from safetensors.torch import save_file

    values = torch.randn(5, 7)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensors = {"a": values.to(dtype), "b.c": values[0].to(dtype).clone()}
        save_file(tensors, str(tmp_path / "x.safetensors"))
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "x.bin"
        )
        for name in ("x.safetensors", "x.bin"):
            file = TensorFile(tmp_path / name)
            assert sorted(file) == ["a", "b.c"]
            assert file["a"].dtype == np.float32
            np.testing.assert_array_equal(file["a"], values.to(dtype).float().numpy())


def test_views_and_transposed_tensors_are_read_as_they_are_meant(tmp_path):
    values = torch.arange(24.0).reshape(4, 6)
    torch.save({"t": values.t(), "part": values[1:3, 2:5], "none": values[:0]}, tmp_path / "x.bin")
    file = TensorFile(tmp_path / "x.bin")
    np.testing.assert_array_equal(file["t"], values.t().numpy())
    np.testing.assert_array_equal(file["part"], values[1:3, 2:5].numpy())
    assert file["none"].shape == (0, 6)


class Runs:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def test_an_archive_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"a": torch.zeros(2), "b": Runs(tmp_path / "ran")}, tmp_path / "x.bin")
    with pytest.raises(BadInput, match=r"exec.*no tensor"):
        TensorFile(tmp_path / "x.bin")
    assert not (tmp_path / "ran").exists()


def hostile_files(folder):
    """Each a name and bytes that no reader may believe."""
    import io
    import pickle
    import zipfile

    def archive(pickled, **members):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("x/data.pkl", pickled)
            for name, data in members.items():
                file.writestr(f"x/data/{name[1:]}", data)
        return buffer.getvalue()

    def header(**tensors):
        text = json.dumps(tensors).encode()
        return len(text).to_bytes(8, "little") + text

    row = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    yield "empty", b""
    yield "short", b"\x10"
    yield "long header", (10**15).to_bytes(8, "little") + b"{}"
    yield "no json", (4).to_bytes(8, "little") + b"abcd"
    yield "cut", header(a=row) + b"1234"
    yield "negative", header(a={**row, "data_offsets": [-8, 0]}) + b"12345678"
    yield "wrong size", header(a={**row, "shape": [3]}) + b"12345678"
    yield "unknown dtype", header(a={**row, "dtype": "F8_E4M3"}) + b"12345678"
    yield "html", b"<!DOCTYPE html><html>Not Found</html>"
    yield "pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield "a list", archive(pickle.dumps([1, 2]))
    yield "no list", b"PK\x05\x06" + bytes(18)
    yield "memo", archive(b"\x80\x02}r\xff\xff\xff\x7f.")
    yield "a module", archive(b"cos\nsystem\n(S'true'\ntR.")


def test_hostile_files_are_refused(tmp_path):
    for name, data in hostile_files(tmp_path):
        (tmp_path / "weights").write_bytes(data)
        with pytest.raises(BadInput) as caught:
            TensorFile(tmp_path / "weights")
        assert caught.value.code == "checkpoint-unreadable", name


def test_a_tensor_that_repeats_its_bytes_is_no_bomb(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "x.bin")
    with pytest.raises(BadInput, match="shape"):
        TensorFile(tmp_path / "x.bin")


def test_a_cut_archive_is_named(tmp_path):
    torch.save({"a": torch.randn(50_000)}, tmp_path / "x.bin")
    data = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"x\.bin"):
        TensorFile(tmp_path / "x.bin")


def test_an_absent_tensor_and_an_unknown_option_are_named(tmp_path):
    folder = tmp_path / "official"
    open_clip_repository("clip", folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    changed = json.loads(json.dumps(config))
    changed["model_cfg"]["vision_cfg"]["qk_norm"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(changed))
    with pytest.raises(BadInput, match="qk_norm True"):
        read_checkpoint(folder)
    changed = json.loads(json.dumps(config))
    changed["model_cfg"]["text_cfg"]["new_option"] = 1
    (folder / "open_clip_config.json").write_text(json.dumps(changed))
    with pytest.raises(BadInput, match="new_option 1"):
        read_checkpoint(folder)
    changed = json.loads(json.dumps(config))
    changed["model_cfg"]["vision_cfg"] = {"timm_model_name": "vitamin_small", "timm_pool": "map"}
    (folder / "open_clip_config.json").write_text(json.dumps(changed))
    with pytest.raises(BadInput, match="vitamin_small"):
        read_checkpoint(folder)


def test_a_folder_without_weights_is_named(tmp_path):
    assert not is_checkpoint(tmp_path)
    with pytest.raises(MissingModel, match="open_clip_model"):
        read_checkpoint(tmp_path)


def text_vectors(tower, tokenizer_folder, tmp_path):
    """Run a text tower alone, and return the ids it was given."""
    import onnxruntime

    from soutu.models.graph import save, text_graph

    save(text_graph(tower).model, tmp_path / "tower" / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "tower" / "model.onnx"))
    tokenizer = transformers.BertTokenizer(str(tokenizer_folder / "vocab.txt"))
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=52, return_tensors="pt")
    vectors = session.run(None, {"text": batch.input_ids.numpy()})[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), batch


def test_the_chinese_tower_for_openais_images_gives_the_vectors_of_pytorch(tmp_path):
    folder = tmp_path / "official"
    model = official_models.taiyi(folder)
    config = json.loads((folder / "config.json").read_text())
    tower = text_tower(TensorFile(folder / "model.safetensors"), config)
    vectors, batch = text_vectors(tower, folder, tmp_path)
    with torch.no_grad():
        expected = unit(model(**batch).logits)
    assert lowest(vectors, expected) > 0.99999


def test_the_multilingual_tower_gives_the_vectors_of_sentence_transformers(tmp_path):
    folder = tmp_path / "official"
    model, dense = official_models.sentence_tower(folder)
    config = json.loads((folder / "config.json").read_text())
    files = [folder / "model.safetensors", folder / "2_Dense" / "model.safetensors"]
    tensors, behind = map(TensorFile, files)
    vectors, batch = text_vectors(text_tower(tensors, config, behind), folder, tmp_path)
    with torch.no_grad():
        rows = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        mask = batch.attention_mask[:, :, None].float()
        mean = (rows.last_hidden_state * mask).sum(1) / mask.sum(1)
        expected = unit(dense(mean))
    assert lowest(vectors, expected) > 0.99999
