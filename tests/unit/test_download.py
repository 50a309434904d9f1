"""Installing models: from a hub on loopback with its faults, from a folder; checking; removing."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from soutu.errors import BadConfig, BadInput, MissingModel, RemoteUnavailable
from soutu.models.bundle import DEFAULT, fingerprint, models_folder, open_model
from soutu.models.catalog import load_catalog
from soutu.models.download import install_folder, list_installed, pull, remove, verify
from soutu.models.onnx import OnnxEncoder
from tests.conftest import write_bundle
from tests.hub import COMMIT, Hub, serve, serve_as

onnx = pytest.importorskip("onnx", reason="needs onnx to make a bundle")
REPOSITORY = load_catalog()[DEFAULT].repositories[0]


@pytest.fixture
def export(tmp_path):
    """A bundle as the public exports are: static batch, no card of ours, other files beside."""
    folder = write_bundle(tmp_path / "export", fixed=True)
    (folder / "README.md").write_text("about")
    (folder / "visual" / "model.armnn").write_bytes(b"x" * 100)
    return folder


@pytest.fixture
def hub(export, monkeypatch):
    with serve_as("HF_ENDPOINT", REPOSITORY, export, monkeypatch) as served:
        yield served


def test_a_model_is_fetched_once_and_described(hub):
    bundle = open_model(DEFAULT)
    assert bundle.info.name == DEFAULT
    assert bundle.info.space == "ViT-B-32/openai"
    assert bundle.info.languages == ("en",)
    assert bundle.info.fingerprint == fingerprint(bundle.folder)
    assert OnnxEncoder(bundle, "cpu").encode_texts(["cat"]).shape == (1, bundle.info.dim)
    assert not any("armnn" in line for line in hub.requests), "only what is needed"
    seen = len(hub.requests)
    assert open_model(DEFAULT).folder == bundle.folder
    assert len(hub.requests) == seen, "a second start asks nobody"
    assert {p.name for p in bundle.folder.iterdir()} == {
        "config.json", "soutu.json", "visual", "textual"
    }  # fmt: skip
    kept = json.loads((bundle.folder / "soutu.json").read_text())
    assert (kept["repository"], kept["revision"]) == (REPOSITORY, COMMIT)
    assert list_installed() == (DEFAULT,)


def test_a_further_repository_is_asked_where_the_first_is_not_there(export, monkeypatch):
    second = load_catalog()[DEFAULT].repositories[1]
    hub = Hub(second, export)
    with serve(hub) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        bundle = pull(DEFAULT)
        assert any(REPOSITORY in line for line in hub.requests), "in their order"
        assert json.loads((bundle.folder / "soutu.json").read_text())["repository"] == second
        hub.status = 404
        remove(DEFAULT)
        with pytest.raises(MissingModel, match=REPOSITORY):
            pull(DEFAULT)


def test_all_files_are_of_the_commit_that_was_asked_for(hub):
    pull(DEFAULT, revision="v1")
    assert any(
        line.startswith(f"GET /api/models/{REPOSITORY}/revision/v1") for line in hub.requests
    )
    fetched = [line for line in hub.requests if "/resolve/" in line]
    assert fetched
    assert all(f"/resolve/{COMMIT}/" in line for line in fetched)


def test_a_broken_download_goes_on_where_it_stopped(hub):
    hub.break_file = "visual/model.onnx"
    assert verify(pull(DEFAULT).info.name).passed
    asked = [line for line in hub.requests if "GET" in line and "visual/model.onnx" in line]
    assert len(asked) == 2
    assert "bytes=0-" not in asked[1]
    assert "bytes=" in asked[1], "only the rest was asked for"


def test_a_file_that_is_not_what_the_hub_promises_is_refused(hub):
    hub.wrong_hash = "textual/model.onnx"
    with pytest.raises(RemoteUnavailable, match=r"textual/model\.onnx"):
        pull(DEFAULT)
    assert list_installed() == ()
    hub.wrong_hash = None
    assert pull(DEFAULT).info.name == DEFAULT


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [(404, MissingModel, "--revision"), (429, RemoteUnavailable, "minutes")],
)
def test_what_the_hub_refuses_is_told_with_the_cure(hub, status, kind, said, monkeypatch):
    monkeypatch.setattr("soutu.models.hub.RETRIES", 0)
    hub.status = status
    with pytest.raises(kind) as caught:
        pull(DEFAULT)
    for word in (said, REPOSITORY, "--model photo"):
        assert word in str(caught.value)
    assert list_installed() == ()


def test_an_incomplete_repository_leaves_nothing_that_looks_installed(hub, export):
    (export / "textual" / "model.onnx").unlink()
    with pytest.raises(MissingModel, match="textual"):
        open_model(DEFAULT)
    assert not (models_folder() / DEFAULT).exists()


def split_arrays(folder, graph, *, one_file=True):
    """Put the arrays of a graph in files beside it, as large exports have them; return these."""
    path = folder / graph
    before = {*path.parent.iterdir()}
    model = onnx.load(path)
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=one_file,
        location="model.safetensors" if one_file else None, size_threshold=64,
    )  # fmt: skip
    return sorted(p.relative_to(folder).as_posix() for p in {*path.parent.iterdir()} - before)


def test_external_data_is_what_the_graph_names(hub, export):
    arrays = [
        *split_arrays(export, "visual/model.onnx", one_file=False),
        *split_arrays(export, "textual/model.onnx"),
    ]
    assert arrays == ["visual/w", "textual/model.safetensors"]
    bundle = pull(DEFAULT)
    assert OnnxEncoder(bundle, "cpu").encode_texts(["cat"]).shape == (1, bundle.info.dim)
    assert {*arrays} <= {*verify(DEFAULT).intact}
    (bundle.folder / arrays[0]).write_bytes(b"other")
    assert verify(DEFAULT).changed == (arrays[0],)
    copy = install_folder(export, "copy")
    assert OnnxEncoder(copy, "cpu").encode_texts(["cat"]).shape == (1, bundle.info.dim)
    assert {*arrays} <= {*verify("copy").intact}


def test_external_data_stays_in_the_folder(export, tmp_path):
    split_arrays(export, "visual/model.onnx")
    model = onnx.load(export / "visual/model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../secret"
    (tmp_path / "secret").write_bytes(b"mine")
    (export / "visual/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadConfig, match="secret"):
        install_folder(export, "mine")
    assert list_installed() == ()


def no_graph(folder):
    (folder / "textual" / "model.onnx").write_bytes(b"\xff" * 100)


def no_array(folder):
    for name in split_arrays(folder, "visual/model.onnx"):
        (folder / name).unlink()


def other_dim(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "embed_dim": 5}))


def other_size(folder):
    path = folder / "visual" / "preprocess_cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": [48, 48]}))


@pytest.mark.parametrize("damage", [no_graph, no_array, other_dim, other_size])
def test_what_cannot_be_run_is_not_installed(export, tmp_path, damage, monkeypatch):
    """The next repository is tried then."""
    whole = shutil.copytree(export, tmp_path / "whole")
    (export / "visual" / "model.onnx.data").write_bytes(b"more")
    damage(export)
    first, second = (Hub(name, folder) for name, folder in zip(
        load_catalog()[DEFAULT].repositories, (export, whole), strict=True))  # fmt: skip
    with serve(first) as endpoint, serve(second) as next_endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises((MissingModel, BadConfig)):
            pull(DEFAULT)
        with pytest.raises((MissingModel, BadConfig)):
            install_folder(export, "mine")
        assert list_installed() == ()
        monkeypatch.setenv("MODELSCOPE_DOMAIN", next_endpoint)
        bundle = pull(DEFAULT)
    assert verify(bundle.info.name).passed
    card = json.loads((bundle.folder / "soutu.json").read_text())
    assert card["repository"] == second.repository
    assert {p.name for p in bundle.folder.rglob("*") if p.is_file()} == {
        "config.json", "soutu.json", "preprocess_cfg.json", "tokenizer.json", "model.onnx"
    }, "nothing of the other repository"  # fmt: skip


def test_what_is_left_of_a_download_is_removed_with_the_model(hub):
    hub.hold_file = "visual/model.onnx"
    with start_pull() as process:
        assert hub.held.wait(300)
        process.kill()
    assert list_installed() == ()
    assert remove(DEFAULT) > 0
    assert list(models_folder().iterdir()) == []


def test_files_put_in_by_hand_are_what_the_catalog_says(bundle_folder, soutu):
    models_folder().mkdir(parents=True)
    shutil.copytree(bundle_folder, models_folder() / "xlm-roberta-base-ViT-B-32")
    by_hand = open_model("xlm-roberta-base-ViT-B-32").info
    installed = install_folder(bundle_folder, "ViT-B-16").info
    entries = load_catalog()
    for info in (by_hand, installed):
        assert info.languages == entries[info.name].languages
        assert info.license == entries[info.name].license
        assert info.space.startswith("sha256:"), "a name proves no weights"
    assert list_installed() == ("ViT-B-16", "xlm-roberta-base-ViT-B-32")
    assert install_folder(bundle_folder, "mine").info.languages == ()


def test_half_a_copy_is_not_installed(bundle_folder):
    models_folder().mkdir(parents=True)
    copy = shutil.copytree(bundle_folder, models_folder() / DEFAULT)
    (copy / "visual" / "model.onnx").unlink()
    assert list_installed() == ()


def start_pull():
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from soutu.cli import main; main()", "models", "pull"]
    return subprocess.Popen(
        [*command, DEFAULT], env={**os.environ, **paths}, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_fetch_a_model_once(hub):
    hub.hold_file = "visual/model.onnx"
    with start_pull() as first:
        assert hub.held.wait(300)
        with start_pull() as second:
            line = second.stderr.readline()
            assert "another process" in line
            assert not (models_folder() / DEFAULT).exists()
            hub.released.set()
            assert second.communicate(timeout=300)[0]
            assert first.communicate(timeout=300)[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert verify(DEFAULT).passed
    assert len(hub.fetched("visual/model.onnx")) == 1
    assert [p.name for p in models_folder().iterdir()] == [DEFAULT]


def test_a_process_goes_on_where_another_was_killed(hub):
    hub.hold_file = "visual/model.onnx"
    with start_pull() as first:
        assert hub.held.wait(300)
        with start_pull() as second:
            assert "another process" in second.stderr.readline()
            hub.hold_file = None
            first.kill()
            assert second.communicate(timeout=300)[0]
    assert second.returncode == 0
    assert verify(DEFAULT).passed


@pytest.mark.parametrize("arguments", [("index",), ("models", "pull")])
def test_a_folder_that_holds_no_models_is_told_with_the_cure(
    soutu, photos, tmp_path, arguments, hub, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOUTU_MODELS", str(tmp_path / "file" / "models"))
    last = (photos, "--model", DEFAULT) if arguments == ("index",) else (DEFAULT,)
    code, _, err = soutu(*arguments, *last)
    assert code == 5
    assert "SOUTU_MODELS" in err
    assert "bug" not in err


def test_no_network_names_the_cure(monkeypatch):
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(MissingModel) as caught:
            open_model(DEFAULT)
    for word in ("--model photo", "HF_ENDPOINT", str(models_folder() / DEFAULT)):
        assert word in str(caught.value)
    assert not (models_folder() / DEFAULT).exists()


def test_a_folder_is_copied_under_its_name_or_another(bundle_folder):
    (bundle_folder / "notes.txt").write_text("mine")
    first = install_folder(bundle_folder)
    second = install_folder(bundle_folder, "my-clip")
    assert list_installed() == ("bundle", "my-clip")
    assert first.info.space == second.info.space, "the same weights may be compared"
    assert open_model("my-clip").info.name == "my-clip"
    assert not (second.folder / "notes.txt").exists()
    assert (bundle_folder / "notes.txt").exists()


@pytest.mark.parametrize("name", ["tiny", "../up", "a/b", ".hidden"])
def test_bad_names_are_refused(bundle_folder, name):
    with pytest.raises(BadInput, match="--name"):
        install_folder(bundle_folder, name)
    assert list_installed() == ()


def test_installing_again_replaces_what_was_there(bundle_folder, tmp_path):
    first = install_folder(bundle_folder, "mine").info
    other = write_bundle(tmp_path / "other", seed=5)
    second = install_folder(other, "mine").info
    assert first.fingerprint != second.fingerprint
    assert open_model("mine").info.fingerprint == second.fingerprint
    assert [p.name for p in models_folder().iterdir()] == ["mine"]


def test_offline_nothing_is_asked_and_the_cure_is_told(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModel, match="--model photo"):
        pull(DEFAULT)
    assert hub.requests == []


def test_an_incomplete_folder_leaves_an_installed_model_alone(bundle_folder, tmp_path):
    install_folder(bundle_folder, "mine")
    (tmp_path / "half").mkdir()
    with pytest.raises(MissingModel):
        install_folder(tmp_path / "half", "mine")
    assert verify("mine").passed


def test_verify_names_what_was_changed_and_what_is_gone(bundle_folder):
    folder = install_folder(bundle_folder, "mine").folder
    assert verify("mine").passed
    with (folder / "visual" / "model.onnx").open("r+b") as file:
        file.seek(40)
        file.write(b"\x00\xff")
    (folder / "textual" / "tokenizer.json").unlink()
    found = verify("mine")
    assert (found.changed, found.absent) == (("visual/model.onnx",), ("textual/tokenizer.json",))
    assert set(found.intact) == {
        "config.json", "visual/preprocess_cfg.json", "textual/model.onnx"
    }  # fmt: skip
    assert not found.passed


def test_remove_frees_what_was_installed(bundle_folder):
    folder = install_folder(bundle_folder, "mine").folder
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert remove("mine") == size
    assert list_installed() == ()
    with pytest.raises(MissingModel, match="mine"):
        remove("mine")
    with pytest.raises(BadInput, match="part of Soutu"):
        remove("tiny")
