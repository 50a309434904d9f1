"""The workspace's three scripts on their default model, ViT-B/32 with seeded random weights:
from a hub (on loopback), and from a checkpoint file."""

import shutil

import numpy as np
import pytest

from soutu.models.bundle import DEFAULT
from soutu.models.catalog import load_catalog
from tests.conftest import picture
from tests.hub import Hub, serve
from tests.unit.test_workspace import ROOT, run

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("open_clip", reason="needs open_clip")
pytest.importorskip("onnx", reason="needs onnx")

from soutu.models.export import Samples, export
from tests.golden.clip import load


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The seeded model as a bundle on a hub and as a checkpoint file."""
    folder = tmp_path_factory.mktemp("clip")
    loaded = load()
    patch = pytest.MonkeyPatch()
    patch.setenv("SOUTU_MODELS", str(folder))
    samples = Samples([picture(i, 240, 240) for i in range(4)], ["a cat", "灰猫", "红色的汽车"])
    bundle = export(loaded, "hub", samples, "float32").bundle
    (bundle.folder / "soutu.json").unlink()
    patch.undo()
    file = folder / "checkpoint.pt"
    torch.save(loaded.model.state_dict(), file)
    return bundle.folder, file


def workspace_at(folder):
    workspace = folder / "clip_retrieval"
    shutil.copytree(ROOT / "clip_retrieval", workspace, ignore=shutil.ignore_patterns("outputs"))
    return workspace


def all_three(workspace, *options):
    """Run the scripts; the text vectors."""
    done = run(workspace, "extract_embeddings", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "saved 50"
    found = run(workspace, "search_demo", "-k", "3", "灰猫")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Top-3（使用 queries=['灰猫'")
    assert found.stdout.count("images/") == 3
    captions = run(workspace, "image_to_text_demo", "data/images/005.jpg")
    assert captions.returncode == 0, captions.stderr
    outputs = workspace / "outputs"
    assert "灰猫" in (outputs / "search_log.txt").read_text("utf-8")
    for name in ("image_features", "text_features"):
        kept = torch.load(outputs / f"{name}.pt", weights_only=True).numpy()
        assert np.array_equal(kept, np.load(outputs / f"{name}.npy"))
        assert kept.shape == (50, 512)
    return np.load(outputs / "text_features.npy")


def test_from_a_hub_and_from_a_checkpoint_file_the_same(made, tmp_path, monkeypatch):
    folder, file = made
    monkeypatch.setenv("SOUTU_MODELS", str(tmp_path / "models"))
    with serve(Hub(load_catalog()[DEFAULT].repositories[0], folder)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        from_hub = all_three(workspace_at(tmp_path / "a"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from_file = all_three(workspace_at(tmp_path / "b"), "--pretrained", file)
    assert (from_hub * from_file).sum(axis=1).min() > 0.99999
