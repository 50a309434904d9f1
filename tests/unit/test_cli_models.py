"""soutu models: what a person sees of known and installed models."""

import json
import os
import unicodedata

import pytest

from soutu.models.bundle import DEFAULT
from soutu.models.catalog import load_catalog, sort_by_language
from tests.hub import Hub, serve
from tests.terminal import in_terminal

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


def test_the_list_puts_models_that_read_chinese_first(soutu):
    code, out, err = soutu("models", "list")
    assert code == 0, err
    named = [line.split()[0] for line in out.splitlines()[1 : len(load_catalog()) + 1]]
    assert set(named) == set(load_catalog())
    assert named.index("xlm-roberta-base-ViT-B-32") < named.index("ViT-B-32-laion2b")
    assert "tiny" in out
    assert "models pull" in out


def test_the_list_for_programs(soutu):
    _, out, _ = soutu("models", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert rows[DEFAULT]["recall"] == {"test": "XM3600", "zh": 0.4, "en": 37.2}
    assert rows[DEFAULT]["installed"] is False


def test_the_list_for_english_readers(soutu):
    _, out, _ = soutu("models", "list", "--lang", "en", "--json")
    names = [json.loads(line)["name"] for line in out.splitlines()]
    assert names.index("ViT-B-16-SigLIP") < names.index("ViT-B-32-SigLIP2-256")
    assert names.index("ViT-B-32") < names.index("chinese-clip-ViT-L-14")


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_list_fits_a_terminal_of_80_columns(lang):
    out = in_terminal("--lang", lang, "models", "list")[1]
    rows = out.splitlines()[: len(load_catalog()) + 1]
    assert [row.split()[0] for row in rows[1:]] == [
        model.name for model in sort_by_language(load_catalog().values(), "zh")
    ]
    for row in rows:
        assert sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in row.rstrip()) <= 80
        assert "…" not in row
    widths = [row.split() for row in rows if row.startswith("ViT-B-32 ")]
    assert widths == [["ViT-B-32", "0.4", "37.2", "605", "MB", "156", "MB", "8.8", "MIT"]]


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
    with serve(Hub(load_catalog()[DEFAULT].repositories[0], bundle_folder)) as endpoint:
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


@pytest.fixture
def small(tmp_path):
    pytest.importorskip("open_clip", reason="needs open_clip")
    import torch

    from tests.small_models import load_small

    file = tmp_path / "weights.pt"
    torch.save(load_small("clip", tmp_path).model.state_dict(), file)
    return "soutu-test-clip", file


def test_a_checkpoint_is_exported_compared_and_used(soutu, small, photos):
    name, file = small
    code, out, err = soutu("models", "export", name, "--pretrained", file, "--name", "mine")
    assert code == 0, err
    assert "int8" in out
    assert "mine is installed in" in out
    code, out, err = soutu("models", "verify", "mine", "--json")
    assert json.loads(out)["precision"] == {"images": "int8", "texts": "int8"}
    assert soutu("index", photos, "--model", "mine")[0] == 0
    code, out, _ = soutu("search", "cat", "--gallery", photos)
    assert code == 0
    assert "a.jpg" in out


def test_verify_against_pytorch_sees_other_weights(soutu, small, tmp_path):
    import torch

    from tests.small_models import load_small

    name, file = small
    other = tmp_path / "other.pt"
    torch.save(load_small("clip", tmp_path, seed=9).model.state_dict(), other)
    options = ("--precision", "float32")
    assert soutu("models", "export", name, "--pretrained", file, *options)[0] == 0
    code, out, err = soutu("models", "verify", name, "--pretrained", file)
    assert code == 0, err
    assert f"{name} agrees with PyTorch" in out
    code, out, _ = soutu("models", "verify", name, "--pretrained", other, "--json")
    assert code == 1
    assert json.loads(out)["agreement"]["images"]["lowest"] < 0.9
    assert soutu("models", "verify", name, "--pretrained", other)[0] == 1


def test_export_says_what_is_wrong(soutu, small, tmp_path):
    name, file = small
    assert soutu("models", "export", name)[0] == 3
    assert soutu("models", "export", name, "--pretrained", tmp_path / "no.pt")[0] == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = soutu("models", "export", name, "--pretrained", file, "--gallery", empty)
    assert code == 2
    assert "fewer than two pictures" in err


def test_a_gallery_opened_with_another_model_names_both_and_the_cure(soutu, photos, bundle_folder):
    assert soutu("index", photos, "--model", "tiny")[0] == 0
    assert soutu("models", "pull", bundle_folder, "--name", "mine")[0] == 0
    code, _, err = soutu("search", "cat", "--gallery", photos, "--model", "mine")
    assert code == 4
    assert "no vectors of mine" in err
    assert "tiny" in err
    assert f"soutu index {photos} --model mine" in err
    assert soutu("index", photos, "--model", "mine")[0] == 0
    assert soutu("search", "cat", "--gallery", photos, "--model", "mine")[0] == 0
    assert soutu("search", "cat", "--gallery", photos, "--model", "tiny")[0] == 0


def test_an_index_of_one_precision_is_searched_with_another(soutu, small, photos):
    name, file = small
    for precision in ("float32", "int8"):
        options = ("--precision", precision, "--name", precision)
        assert soutu("models", "export", name, "--pretrained", file, *options)[0] == 0
    assert soutu("index", photos, "--model", "float32")[0] == 0
    found = [
        json.loads(soutu("search", "cat", "--gallery", photos, "--model", model, "--json")[1])
        for model in ("float32", "int8", f"torch:{name}/{file}")
    ]
    assert [hit["path"] for hit in found[0]["hits"]] == [hit["path"] for hit in found[2]["hits"]]
    assert found[1]["hits"][0]["cosine"] == pytest.approx(found[0]["hits"][0]["cosine"], abs=0.02)
    _, out, _ = soutu("info", "--gallery", photos, "--json")
    assert len(json.loads(out)["spaces"]) == 1
