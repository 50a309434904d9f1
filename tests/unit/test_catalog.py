"""Fetching a model by name, from a hub on loopback."""

import socket

import pytest

from soutu.encoders.bundle import fingerprint
from soutu.encoders.catalog import DEFAULT, HUB, models_folder, open_model
from soutu.encoders.onnx import OnnxEncoder
from soutu.errors import MissingModel
from tests.conftest import write_bundle
from tests.hub import serve_hub

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def export(tmp_path):
    """A bundle as the public exports are: static batch, no card of ours, other files beside."""
    folder = write_bundle(tmp_path / "export", fixed=True)
    (folder / "README.md").write_text("about")
    (folder / "visual" / "model.armnn").write_bytes(b"x" * 100)
    return folder


def test_a_model_is_fetched_once_and_described(export, monkeypatch):
    with serve_hub(HUB[DEFAULT].repository, export) as (endpoint, requests):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        bundle = open_model(DEFAULT)
        assert bundle.card.name == DEFAULT
        assert bundle.card.space == HUB[DEFAULT].space
        assert bundle.card.languages == ("en",)
        assert bundle.card.fingerprint == fingerprint(bundle.folder)
        assert OnnxEncoder(bundle, "cpu").encode_texts(["cat"]).shape == (1, bundle.card.dim)
        assert not any("armnn" in line for line in requests), "only what is needed"
        seen = len(requests)
        assert open_model(DEFAULT).folder == bundle.folder
        assert len(requests) == seen, "a second start asks nobody"
    assert {p.name for p in bundle.folder.iterdir()} == {
        "config.json", "soutu.json", "visual", "textual"
    }  # fmt: skip


def test_an_incomplete_repository_leaves_nothing_that_looks_installed(export, monkeypatch):
    (export / "textual" / "model.onnx").unlink()
    with serve_hub(HUB[DEFAULT].repository, export) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(MissingModel, match="textual"):
            open_model(DEFAULT)
    assert not (models_folder() / DEFAULT).exists()


def test_an_unknown_repository_names_the_cure(export, monkeypatch):
    with serve_hub("somebody/else", export) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(MissingModel, match="--model tiny"):
            open_model(DEFAULT)


def test_no_network_names_the_cure(monkeypatch):
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(MissingModel) as caught:
            open_model(DEFAULT)
    said = str(caught.value)
    assert "--model tiny" in said
    assert "HF_ENDPOINT" in said
    assert str(models_folder() / DEFAULT) in said
    assert not (models_folder() / DEFAULT).exists()
