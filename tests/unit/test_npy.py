"""Feature files in the original's layout: written whole, read safely."""

import importlib.util
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from soutu.errors import IndexCorrupt, MissingIndex
from soutu.exchange.npy import FeatureArrays, load_features, save_features
from soutu.types import ModelInfo

CARD = ModelInfo(
    "m", 4, 8, 77, (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest", ("zh",), "MIT", "s", "f"
)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 3, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    paths = ("images/1.jpg", "images/二.jpg", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    return FeatureArrays(rows[0], rows[1], paths, ("猫", "a dog", ""), CARD, "tiny")


def test_what_is_written_is_read_back(features, tmp_path):
    save_features(tmp_path, features)
    again = load_features(tmp_path)
    assert np.array_equal(again.images, features.images)
    assert np.array_equal(again.texts, features.texts)
    assert (again.paths, again.captions) == (features.paths, features.captions)
    assert (again.info, again.model) == (CARD, "tiny")


def test_the_originals_files_are_there(features, tmp_path):
    written = save_features(tmp_path, features)
    assert {p.name for p in tmp_path.iterdir()} == set(written)
    assert pickle.loads((tmp_path / "captions.pkl").read_bytes()) == list(features.captions)
    assert pickle.loads((tmp_path / "image_paths.pkl").read_bytes()) == list(features.paths)


def test_pt_files_equal_the_npy_files(features, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    save_features(tmp_path, features)
    for name in ("image_features", "text_features"):
        loaded = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert np.array_equal(loaded.numpy(), np.load(tmp_path / f"{name}.npy"))


def test_without_torch_no_stale_pt_file_stays(features, tmp_path, monkeypatch):
    (tmp_path / "image_features.pt").write_bytes(b"old")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a)
    )
    assert "image_features.pt" not in save_features(tmp_path, features)
    assert not (tmp_path / "image_features.pt").exists()


def test_features_can_be_searched(features, tmp_path):
    store = features.store()
    ranking = store.search_images(features.images[1], 2)
    assert ranking.ids[0] == 1
    assert store.images([1])[0].captions == ("a dog",)


def test_nothing_there_names_the_cure(tmp_path):
    with pytest.raises(MissingIndex, match="extract_embeddings"):
        load_features(tmp_path)


@pytest.mark.parametrize("name", ["image_features.npy", "captions.json", "model.json"])
def test_a_damaged_file_is_named(features, tmp_path, name):
    save_features(tmp_path, features)
    (tmp_path / name).write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(IndexCorrupt, match="extract_embeddings"):
        load_features(tmp_path)


def test_files_that_do_not_fit_together_are_refused(features, tmp_path):
    save_features(tmp_path, features)
    (tmp_path / "captions.json").write_text(json.dumps(["only one"]))
    with pytest.raises(IndexCorrupt, match="shapes"):
        load_features(tmp_path)


def test_a_pickle_inside_an_array_file_is_never_run(features, tmp_path):
    save_features(tmp_path, features)
    np.save(tmp_path / "image_features.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(IndexCorrupt):
        load_features(tmp_path)


@pytest.mark.parametrize(("layout", "endings"), [("npy", {"npy", "json"}), ("pt", {"pt", "pkl"})])
def test_one_layout_can_be_had_alone(features, tmp_path, layout, endings):
    if layout == "pt":
        pytest.importorskip("torch", reason="torch is not installed")
    written = save_features(tmp_path, features, (layout,))
    assert {name.rpartition(".")[2] for name in written if name != "model.json"} == endings
    assert len(written) == 5


def test_without_captions_there_are_no_files_of_texts(features, tmp_path):
    alone = replace(features, captions=(), texts=features.texts[:0])
    written = save_features(tmp_path, alone, ("npy",))
    assert written == ["image_features.npy", "image_paths.json", "model.json"]


@pytest.mark.parametrize("text", ['"text"', "[1]", "{}", "3"])
def test_a_model_file_that_holds_something_else_is_named(features, tmp_path, text):
    save_features(tmp_path, features)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(IndexCorrupt, match="extract_embeddings"):
        load_features(tmp_path)
