"""soutu models: what a person sees of known and installed models."""

import json

import pytest

from soutu.encoders.catalog import DEFAULT, catalogue
from tests.hub import Hub, serve

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


def test_the_list_puts_models_that_read_chinese_first(soutu):
    code, out, err = soutu("models", "list")
    assert code == 0, err
    named = [line.split()[0] for line in out.splitlines()[1 : len(catalogue()) + 1]]
    assert set(named) == set(catalogue())
    assert named.index("xlm-roberta-base-ViT-B-32") < named.index("ViT-B-32-laion2b")
    assert "tiny" in out
    assert "models pull" in out


def test_the_list_for_programs(soutu):
    _, out, _ = soutu("models", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert rows[DEFAULT]["recall"] == {"test": "XM3600", "zh": 0.4, "en": 37.2}
    assert rows[DEFAULT]["installed"] is False


def test_a_folder_is_pulled_described_verified_and_removed(soutu, bundle_folder):
    code, out, err = soutu("models", "pull", bundle_folder, "--name", "mine")
    assert code == 0, err
    assert "mine" in out
    assert "mine" in soutu("models", "list")[1]
    code, out, _ = soutu("models", "info", "mine", "--json")
    assert json.loads(out)["context_length"] == 12
    assert soutu("models", "verify", "mine")[0] == 0
    folder = json.loads(out)["folder"]
    with open(f"{folder}/config.json", "a") as file:
        file.write(" ")
    code, _, err = soutu("models", "verify", "mine")
    assert code == 1
    assert "config.json" in err
    assert soutu("models", "remove", "mine")[0] == 0
    assert soutu("models", "remove", "mine")[0] == 3


def test_the_embedded_model_is_as_it_was_made(soutu):
    assert soutu("models", "verify", "tiny")[0] == 0
    code, _, err = soutu("models", "remove", "tiny")
    assert code == 2
    assert "part of Soutu" in err


def test_a_known_model_is_pulled_from_the_hub(soutu, bundle_folder, monkeypatch):
    with serve(Hub(catalogue()[DEFAULT].repository, bundle_folder)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        code, out, err = soutu("models", "pull", DEFAULT)
    assert code == 0, err
    code, out, _ = soutu("models", "info", DEFAULT)
    assert "XM3600, zh 0.4, en 37.2" in out
    assert "hardly reads Chinese" in out
    assert "✓" in soutu("models", "list")[1]


def test_unknown_models_are_named(soutu):
    for command in ("info", "pull"):
        code, _, err = soutu("models", command, "nothing")
        assert code == 3
        assert "nothing" in err
        assert "ViT-B-32" in err
