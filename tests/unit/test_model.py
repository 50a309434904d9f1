"""``soutu.Model``: vectors without a gallery, from images in any form."""

from __future__ import annotations

import doctest
import io

import numpy as np
import pytest
from PIL import Image

import soutu
from soutu.models.catalog import load_catalog
from tests.pictures import encoded, scene


@pytest.fixture(scope="module")
def model() -> soutu.Model:
    return soutu.Model("tiny", device="cpu")


def test_images_come_as_paths_pillow_images_or_arrays(model, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(scene()))
    rgb = np.asarray(scene().convert("RGB"))
    vectors = model.encode_images([str(file), file, Image.open(file), rgb])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, model.dim) == (4, model.info.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors, vectors[0], atol=1e-6)
    assert "tiny" in repr(model)


def test_a_pillow_image_is_turned_upright_as_its_file_is(model):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(scene(), "JPEG", exif=exif)
    opened = Image.open(io.BytesIO(file))
    turned = Image.fromarray(np.asarray(opened)).transpose(Image.Transpose.ROTATE_270)
    first, second = model.encode_images([opened, turned])
    assert np.allclose(first, second, atol=1e-6)


def test_a_long_list_keeps_its_order(model):
    greys = [np.full((20, 20, 3), value, np.uint8) for value in range(0, 240, 3)]
    together = model.encode_images(greys)
    assert np.allclose(together[-1], model.encode_images(greys[-1:])[0], atol=1e-3)
    assert together.shape == (len(greys), model.dim)


def test_texts(model):
    vectors = model.encode_texts(["灰猫", "a grey cat"])
    assert vectors.shape == (2, model.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_of_nothing_there_are_no_vectors(model):
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, model.dim)


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
)
def test_an_array_of_another_kind_is_refused(model, array):
    with pytest.raises(soutu.BadInput, match="uint8"):
        model.encode_images([array])


def test_a_file_that_is_no_image_is_refused(model, tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(soutu.BadImage, match=r"a\.jpg"):
        model.encode_images([tmp_path / "a.jpg"])


def test_models_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("SOUTU_MODELS", str(tmp_path))
    assert soutu.list_models(installed=True) == ["photo", "tiny"]
    known = soutu.list_models()
    assert known == sorted(known)
    assert {"tiny", "ViT-B-32"} <= set(known) <= {"photo", "tiny", *load_catalog()}


def test_the_example_runs():
    import soutu.model as module

    failed, attempted = doctest.testmod(module)
    assert attempted > 3
    assert not failed
