"""The model that a new gallery gets where nobody names one."""

import shutil

import pytest
from PIL import Image

from soutu import Gallery
from soutu.models.bundle import DEFAULT, DEMO, EMBEDDED, PHOTO, embedded_folder, models_folder

OFFER = "soutu models list"


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "photos"
    home.mkdir()
    Image.new("RGB", (64, 48), "navy").save(home / "sea.png")
    return home


def install(name):
    """Put a model where ``soutu models pull`` puts it."""
    models_folder().mkdir(parents=True, exist_ok=True)
    shutil.copytree(embedded_folder(DEMO), models_folder() / name)


def test_without_a_download_it_is_photo_and_that_is_said_once(folder, soutu):
    code, _, err = soutu("index", folder)
    assert code == 0
    assert err.count(OFFER) == 1
    assert f"embedded model {PHOTO}" in err
    assert f"(model {PHOTO})" in err
    assert Gallery.open(folder).model == PHOTO
    code, _, err = soutu("index", folder)
    assert (code, OFFER in err, f"(model {PHOTO})" in err) == (0, False, True)
    assert not models_folder().exists()


def test_an_installed_vit_b_32_comes_first(folder, soutu):
    install(DEFAULT)
    _, _, err = soutu("index", folder)
    assert f"(model {DEFAULT})" in err
    assert OFFER not in err


def test_a_gallery_keeps_its_model(folder, soutu):
    soutu("index", folder)
    install(DEFAULT)
    assert Gallery.open(folder).model == PHOTO
    _, _, err = soutu("index", folder)
    assert f"(model {PHOTO})" in err


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_model_that_was_asked_for_is_not_offered_again(folder, soutu, name):
    code, _, err = soutu("index", folder, "--model", name)
    assert (code, OFFER in err, f"(model {name})" in err) == (0, False, True)


def test_a_name_in_the_environment_counts_as_asked_for(folder, soutu, monkeypatch):
    monkeypatch.setenv("SOUTU_MODEL", DEMO)
    _, _, err = soutu("index", folder)
    assert OFFER not in err
    assert f"(model {DEMO})" in err


def test_the_list_says_what_is_inside(soutu):
    code, out, _ = soutu("models", "list")
    assert code == 0
    assert all(name in out for name in EMBEDDED)


def test_the_demo_says_which_model_is_for_photographs(soutu):
    code, out, _ = soutu("demo")
    assert code == 0
    assert DEMO in out.splitlines()[0]
    assert PHOTO in out.splitlines()[0]
