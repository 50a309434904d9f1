"""A model that was installed again: its vectors must agree with those in the index."""

import pytest
from PIL import Image

from soutu.errors import ModelMismatch
from soutu.factory import sample_inputs
from soutu.gallery import Gallery
from soutu.models.bundle import DEFAULT
from soutu.models.catalog import load_catalog
from soutu.models.download import install, staging_folder
from tests.cases.commands import pictures
from tests.conftest import picture

pytest.importorskip("open_clip", reason="needs open_clip")

from soutu.models.checkpoint import read_checkpoint
from soutu.models.export import build
from tests.official_models import open_clip_repository


@pytest.fixture
def photos(tmp_path):
    return pictures(tmp_path / "photos", *(f"{number}.png" for number in range(5)))


def install_graph(folder, precision="float32"):
    """Install a checkpoint as the default model, in the space of the official weights."""
    staging = staging_folder(DEFAULT)
    towers = build(read_checkpoint(folder), staging, sample_inputs(), precision)
    space = load_catalog()[DEFAULT].source
    return install(staging, DEFAULT, space=space, languages=["en"], license="MIT",
                   precision=towers.precision)  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    """Two checkpoints whose vectors do not agree, as GELU in place of QuickGELU does."""
    from tests.small_models import load_small

    open_clip_repository("quick-gelu", tmp_path / "right")
    other = load_small("quick-gelu", tmp_path, seed=3)
    (tmp_path / "other").mkdir()
    for file in (tmp_path / "right").iterdir():
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in other.model.state_dict().items()}
    save_file(state, str(tmp_path / "other" / "open_clip_model.safetensors"))
    return tmp_path / "right", tmp_path / "other"


def test_a_graph_that_disagrees_with_the_index_is_told_with_the_cure(weights, photos, soutu):
    right, other = weights
    install_graph(other)
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
    install_graph(right)
    with Gallery.open(photos) as gallery, pytest.raises(ModelMismatch, match="--rebuild"):
        gallery.search("a cat")
    Image.fromarray(picture(9, 40, 50)).save(photos / "new.png")
    with Gallery.open(photos) as gallery, pytest.raises(ModelMismatch, match="--rebuild"):
        gallery.index()
    code, _, err = soutu("search", "a cat", "--gallery", photos)
    assert code == 4
    assert "0.99" in err
    code, _, err = soutu("index", photos, "--rebuild")
    assert code == 0, err
    with Gallery.open(photos) as gallery:
        assert len(gallery.search("a cat", k=9)) == 6


def test_another_precision_of_the_same_weights_agrees_and_is_compared_once(
    weights, photos, monkeypatch
):
    right, _ = weights
    install_graph(right)
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
    install_graph(right, "int8")
    opened = []
    real = Gallery._open_image
    monkeypatch.setattr(Gallery, "_open_image", lambda self, p: opened.append(p) or real(self, p))
    for _ in range(2):
        with Gallery.open(photos) as gallery:
            assert gallery.search("a cat")
    assert len(opened) == 3, "by the first search alone"


def test_pictures_that_are_away_or_damaged_are_not_compared(weights, photos):
    right, other = weights
    install_graph(other)
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
    install_graph(right)
    for file in photos.glob("*.png"):
        file.write_bytes(b"damaged")
    with Gallery.open(photos) as gallery:
        assert gallery.search("a cat")
