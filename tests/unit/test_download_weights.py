"""Installing a model from its official weights, served by a hub on loopback."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from soutu.errors import MissingModel, RemoteUnavailable
from soutu.factory import sample_inputs
from soutu.models import catalog
from soutu.models.bundle import DEFAULT, models_folder, open_model, uses_quick_gelu
from soutu.models.catalog import load_catalog
from soutu.models.download import list_installed, pull, remove
from soutu.models.export import build, closeness
from soutu.models.onnx import OnnxEncoder
from tests.conftest import picture
from tests.hub import COMMIT, Hub, serve

pytest.importorskip("open_clip", reason="needs open_clip")
pytest.importorskip("transformers", reason="needs transformers")

from dataclasses import replace

from soutu.models.checkpoint import read_checkpoint
from soutu.models.open_clip import OpenClipEncoder
from tests import official_models
from tests.official_models import open_clip_repository

IMAGES = [picture(i, 40 + i, 50) for i in range(6)]
TEXTS = ["a photo of a cat", "灰猫", "red dog"]


@pytest.fixture
def serve_weights(monkeypatch):
    """Serve ``folder`` as the official repository of ``name``; its small files have no pins."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(name, folder, **faults):
            known = dict(load_catalog())
            entry = known[name]
            known[name] = replace(entry, weights=replace(entry.weights, sha256={}))
            monkeypatch.setattr(catalog, "load_catalog", lambda: known)
            for module in ("download", "bundle"):
                if hasattr(sys.modules[f"soutu.models.{module}"], "load_catalog"):
                    monkeypatch.setattr(f"soutu.models.{module}.load_catalog", lambda: known)
            hub = Hub(entry.weights.repository, folder, **faults)
            monkeypatch.setenv("HF_ENDPOINT", stack.enter_context(serve(hub)))
            return hub

        yield start


def test_official_weights_are_fetched_built_and_freed(tmp_path, serve_weights, capsys):
    loaded = open_clip_repository("quick-gelu", tmp_path / "official")
    hub = serve_weights(DEFAULT, tmp_path / "official")
    bundle = pull(DEFAULT, sample_inputs)
    assert bundle.info.space == load_catalog()[DEFAULT].source
    assert bundle.info.languages == ("en",)
    assert bundle.precision == {"images": "int8", "texts": "int8"}
    card = json.loads((bundle.folder / "soutu.json").read_text())
    assert (card["repository"], card["revision"]) == (hub.repository, COMMIT)
    assert [path.name for path in models_folder().iterdir() if path.is_dir()] == [DEFAULT]
    encoder, reference = OnnxEncoder(bundle, "cpu"), OpenClipEncoder(loaded, "x", "cpu")
    for ours, theirs in (
        (encoder.encode_images(IMAGES), reference.encode_images(IMAGES)),
        (encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)),
    ):
        assert closeness(ours, theirs).lowest > 0.999
    assert "official weights" in capsys.readouterr().err


@pytest.mark.parametrize("says", [True, False, None])
def test_the_activation_is_what_the_configuration_or_else_the_catalog_says(
    tmp_path, serve_weights, says
):
    """Not every copy of OpenAI's weights says in its configuration that they have QuickGELU."""
    open_clip_repository("quick-gelu", tmp_path / "official")
    file = tmp_path / "official" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"].pop("quick_gelu")
    if says is not None:
        config["model_cfg"]["quick_gelu"] = says
    file.write_text(json.dumps(config))
    serve_weights(DEFAULT, tmp_path / "official")
    bundle = pull(DEFAULT, sample_inputs)
    assert uses_quick_gelu(bundle.folder) == (says is not False)
    assert bundle.info.space.endswith("+gelu") == (says is False)


def test_the_pinned_commit_is_fetched_unless_another_is_named(tmp_path, serve_weights):
    open_clip_repository("quick-gelu", tmp_path / "official")
    hub = serve_weights(DEFAULT, tmp_path / "official")
    pull(DEFAULT, sample_inputs)
    assert any(load_catalog()[DEFAULT].weights.revision in line for line in hub.requests)
    hub.requests.clear()
    pull(DEFAULT, sample_inputs, revision="v2")
    assert "v2" in hub.requests[0]


def test_a_chinese_clip_has_its_pinned_archive_and_vocabulary(tmp_path, serve_weights):
    official_models.chinese_clip(tmp_path / "official", safe=False)
    serve_weights("chinese-clip-ViT-B-16", tmp_path / "official")
    bundle = pull("chinese-clip-ViT-B-16", sample_inputs)
    assert bundle.info.context_length == 52
    assert bundle.info.languages == ("zh",)
    vectors = OnnxEncoder(bundle, "cpu").encode_texts(["灰猫", "金毛"])
    assert vectors.shape == (2, 24)


def test_other_bytes_than_the_pinned_ones_are_refused(tmp_path, monkeypatch):
    official_models.chinese_clip(tmp_path / "official", safe=False)
    entry = load_catalog()["chinese-clip-ViT-B-16"]
    with serve(Hub(entry.weights.repository, tmp_path / "official")) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", endpoint)
        with pytest.raises(RemoteUnavailable, match="sha256"):
            pull(entry.name, sample_inputs)
    assert list_installed() == ()


def test_a_repository_without_a_tokenizer_takes_that_of_another(tmp_path, serve_weights):
    folder = tmp_path / "official"
    open_clip_repository("quick-gelu", folder)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for file in [*folder.glob("*token*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        shutil.move(file, tokenizer / file.name)
    hub = serve_weights(DEFAULT, folder)
    hub.others[load_catalog()[DEFAULT].weights.tokenizer] = tokenizer
    bundle = pull(DEFAULT, sample_inputs)
    assert OnnxEncoder(bundle, "cpu").encode_texts(["a cat"]).shape == (1, 24)


def test_weights_that_cannot_be_built_give_way_to_an_export(tmp_path, serve_weights, capsys):
    folder = tmp_path / "official"
    open_clip_repository("quick-gelu", folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["qk_norm"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    hub = serve_weights(DEFAULT, folder)
    hub.others[load_catalog()[DEFAULT].repositories[0]] = export_of(tmp_path, "quick-gelu")
    bundle = pull(DEFAULT, sample_inputs)
    card = json.loads((bundle.folder / "soutu.json").read_text())
    assert card["repository"] == load_catalog()[DEFAULT].repositories[0]
    assert bundle.info.space == load_catalog()[DEFAULT].source
    assert "qk_norm" in capsys.readouterr().err


def export_of(tmp_path, kind):
    """A ready export as others publish it: float32, no card of ours."""
    folder, official = tmp_path / f"export-{kind}", tmp_path / f"official-{kind}"
    open_clip_repository(kind, official)
    build(read_checkpoint(official), folder, sample_inputs(), "float32")
    return folder


@pytest.mark.parametrize("kind", ["clip", "quick-gelu"])
def test_an_export_with_another_activation_has_a_space_of_its_own(
    tmp_path, monkeypatch, capsys, kind
):
    export, entry = export_of(tmp_path, kind), load_catalog()[DEFAULT]
    assert uses_quick_gelu(export) == (kind == "quick-gelu")
    with serve(Hub(entry.repositories[0], export)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        bundle = pull(DEFAULT, sample_inputs)
    is_right = kind == "quick-gelu"
    assert bundle.info.space == (entry.source if is_right else f"{entry.source}+gelu")
    assert ("activation gelu" in capsys.readouterr().err) != is_right


def test_a_model_that_nobody_serves_is_told_with_every_repository(serve_weights, tmp_path):
    serve_weights(DEFAULT, tmp_path, status=404)
    entry = load_catalog()[DEFAULT]
    with pytest.raises(MissingModel) as caught:
        pull(DEFAULT, sample_inputs)
    assert all(
        name in str(caught.value) for name in (entry.weights.repository, *entry.repositories)
    )


def test_what_an_interrupted_build_leaves_is_used_and_removed(tmp_path, serve_weights, monkeypatch):
    from soutu.models import download

    open_clip_repository("quick-gelu", tmp_path / "official")
    hub = serve_weights(DEFAULT, tmp_path / "official")

    def stop(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("soutu.models.export.build", stop)
        with pytest.raises(KeyboardInterrupt):
            pull(DEFAULT, sample_inputs)
    assert list_installed() == ()
    hub.requests.clear()
    pull(DEFAULT, sample_inputs)
    assert not hub.fetched("open_clip_model.safetensors"), "it was there"
    assert download.remove(DEFAULT) > 0
    assert not [path for path in models_folder().iterdir() if path.is_dir()]


def test_precision_is_measured_on_the_pictures_of_the_folder(tmp_path, serve_weights, monkeypatch):
    from soutu.gallery import Gallery
    from soutu.models import export

    open_clip_repository("quick-gelu", tmp_path / "official")
    serve_weights(DEFAULT, tmp_path / "official")
    photos = tmp_path / "photos"
    photos.mkdir()
    from PIL import Image

    for number in range(3):
        Image.fromarray(picture(number, 70, 60)).save(photos / f"{number}.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    samples = []
    real = export.build

    def spy(source, folder, inputs, *rest):
        samples.append(inputs)
        return real(source, folder, inputs, *rest)

    monkeypatch.setattr(export, "build", spy)
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
    assert len(samples[0].images) == 3
    assert np.array_equal(samples[0].images[0], picture(0, 70, 60))


def test_nothing_of_pytorch_is_needed(tmp_path, serve_weights):
    open_clip_repository("quick-gelu", tmp_path / "official")
    serve_weights(DEFAULT, tmp_path / "official")
    from os import environ

    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'open_clip', 'timm', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "from soutu.models import catalog\n"
        "from dataclasses import replace\n"
        "known = dict(catalog.load_catalog())\n"
        "entry = known['ViT-B-32']\n"
        "known['ViT-B-32'] = replace(entry, weights=replace(entry.weights, sha256={}))\n"
        "catalog.load_catalog = lambda: known\n"
        "from soutu.cli import main\n"
        "sys.argv = ['soutu', 'models', 'pull', 'ViT-B-32']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**environ}
    )
    assert done.returncode == 0, done.stderr
    assert open_model(DEFAULT).precision["images"] == "int8"


def test_removing_frees_weights_that_were_not_built(serve_weights, tmp_path):
    folder = models_folder() / f"{DEFAULT}.weights"
    folder.mkdir(parents=True)
    (folder / "open_clip_model.safetensors").write_bytes(b"x" * 1000)
    assert list_installed() == ()
    assert remove(DEFAULT) == 1000


def test_a_checkpoint_in_a_folder_is_built(tmp_path, soutu):
    open_clip_repository("clip", tmp_path / "mine")
    code, _, err = soutu("models", "pull", str(tmp_path / "mine"))
    assert code == 0, err
    bundle = open_model("mine")
    assert bundle.precision == {"images": "int8", "texts": "int8"}
    assert bundle.info.space.startswith("sha256:")
