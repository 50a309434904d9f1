"""What ``soutu index --rebuild`` keeps of the old index, and what it says it could not keep."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from soutu.errors import BadInput, Missing
from soutu.fs import DATABASE
from soutu.gallery import Gallery
from soutu.models.bundle import models_folder
from soutu.store.sqlite.store import LocalStore
from tests.conftest import DIM, picture, write_bundle
from tests.damaged import answers, edit, flip, issues, make_gallery
from tests.embeddings import write_folder
from tests.store_samples import unit


@pytest.fixture
def folder(tmp_path):
    return make_gallery(tmp_path / "图库")


def rebuild(folder, **options):
    with Gallery.open(folder) as gallery:
        return gallery.rebuild(**options)


def test_words_settings_and_the_log_stay_as_they_are(folder):
    with Gallery.open(folder) as gallery:
        gallery.add_word("雪橇犬", ["husky"])
        gallery.search("雪橇犬")
    (folder / ".soutu" / "config.yaml").write_text("k: 3\n", "utf-8")
    files = ["lexicon.yaml", "journal.jsonl", "config.yaml"]
    kept = {name: (folder / ".soutu" / name).read_bytes() for name in files}
    (folder / ".soutu" / DATABASE).write_bytes(b"no database" * 1000)
    rebuild(folder)
    assert kept == {name: (folder / ".soutu" / name).read_bytes() for name in files}
    with Gallery.open(folder) as gallery:
        replayed = gallery.replay()
        assert (replayed.searches, replayed.same) == (1, 1)


def test_captions_that_no_file_holds_are_carried_over(folder):
    before = answers(folder)
    (folder / "captions.csv").unlink()
    report = rebuild(folder)
    assert (report.carried.captions, report.carried.vectors) == (12, 12)
    assert [problem.code for problem in report.index.caption_problems] == ["captions-gone"]
    assert report.index.captions == 12
    assert answers(folder) == before


def test_a_damaged_caption_is_had_from_its_file_or_named(folder, soutu):
    before = answers(folder)
    edit(folder / ".soutu", "UPDATE captions SET text = '坏' WHERE id = 7")
    assert rebuild(folder).carried.lost == []
    assert answers(folder) == before
    with LocalStore.open(folder / ".soutu") as store:
        lost = store.all_captions()[6]
    edit(folder / ".soutu", f"UPDATE captions SET text = '坏' WHERE id = {lost.id}")
    (folder / "captions.csv").unlink()
    code, out, err = soutu("index", "--rebuild", folder, "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["carried"] == {"images": 0, "captions": 11, "vectors": 11}
    assert [(issue["where"], issue["key"]) for issue in shown["lost"]] == [
        ("captions", str(lost.id))
    ]
    assert f"captions · {lost.id}" in err
    assert len(answers(folder)["captions"]) == 11


def test_a_caption_follows_its_picture_by_content(folder):
    (folder / "captions.csv").unlink()
    (folder / "图03.png").rename(folder / "new.png")
    rebuild(folder)
    with LocalStore.open(folder / ".soutu") as store:
        assert {row.paths: row.captions for row in store.images(
            [file.image_id for file in store.files().values()]
        )}[("new.png",)] == ("说明 3 的灰猫",)  # fmt: skip


def test_settings_that_are_damaged_are_named(folder):
    edit(folder / ".soutu", "UPDATE meta SET value = x'78' WHERE key = 'captions_file'")
    report = rebuild(folder)
    assert [(issue.where, issue.key) for issue in report.carried.lost] == [
        ("meta", "captions_file")
    ]
    assert report.carried.captions == 12


def test_another_models_vectors_are_carried_over(folder, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    model = write_bundle(tmp_path / "model")
    with Gallery.open(folder, model=str(model)) as gallery:
        gallery.index()
        other = [(hit.path, hit.score) for hit in gallery.search("cat", k=99).hits]
        space = gallery.encoder.info.space
    slab = next(path for path in (folder / ".soutu").glob("spaces/*/images.f32")
                if path.stat().st_size == 12 * DIM * 4)  # fmt: skip
    flip(slab, 5 * DIM * 4)
    with Gallery.open(folder, model="tiny") as gallery:
        report = gallery.rebuild()
    [lost] = report.carried.lost
    assert (lost.where, lost.key) == ("image_vectors", "space 2 owner 6")
    assert report.carried.vectors == 11 + 12
    with Gallery.open(folder, model=str(model)) as gallery:
        assert gallery.store.images_without_vector() != []
        gallery.index()
        again = [(hit.path, pytest.approx(hit.score, abs=1e-5))
                 for hit in gallery.search("cat", k=99).hits]  # fmt: skip
    assert other == again
    assert issues(folder / ".soutu") == []
    with LocalStore.open(folder / ".soutu", space) as store:
        assert len(store.spaces()) == 2


PATHS = ["a.jpg", "b.png", "gone/x.jpg", "gone/y.jpg"]
CAPTIONS = ["灰猫", "a dog", "a pig", "a cow"]


@pytest.fixture
def imported(photos, tmp_path):
    """A gallery of embeddings, two of them of pictures that are not on disk."""
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    write_bundle(tmp_path / "bundle")
    from soutu.factory import pull_model

    pull_model(str(tmp_path / "bundle"), called="mine")
    given = write_folder(tmp_path / "given", unit(4, DIM), PATHS, CAPTIONS, unit(4, DIM, seed=1))
    with Gallery.open(photos, model="mine") as gallery:
        gallery.import_embeddings(given)
    return photos


def stored_vectors(folder):
    with LocalStore.open(folder / ".soutu") as store:
        files = store.files()
        ids = [file.image_id for file in files.values()]
        return dict(zip(files, store.image_vectors(ids), strict=True))


def test_pictures_imported_without_a_file_are_carried_over(imported):
    report = rebuild(imported)
    assert (report.carried.images, report.carried.lost) == (2, [])
    assert report.index.encoded == 3
    vectors = stored_vectors(imported)
    assert sorted(vectors) == ["a.jpg", "b.png", "gone/x.jpg", "gone/y.jpg", "sub/c.webp"]
    np.testing.assert_array_equal(vectors["gone/x.jpg"], unit(4, DIM)[2])
    with LocalStore.open(imported / ".soutu") as store:
        rows = store.all_captions()
        assert [row.text for row in rows] == CAPTIONS
        texts = store.caption_vectors([row.id for row in rows])
        np.testing.assert_array_equal(texts, unit(4, DIM, seed=1))
    assert issues(imported / ".soutu") == []


def test_without_the_model_all_vectors_are_carried_over(imported, soutu):
    shutil.rmtree(models_folder() / "mine")
    before = stored_vectors(imported)
    [slab] = (imported / ".soutu").glob("spaces/*/images.f32")
    flip(slab, 2 * DIM * 4)
    code, _, err = soutu("index", "--rebuild", imported)
    assert code == 0
    assert "mine is not on this machine" in err
    assert "image_vectors · space 1 owner 3" in err
    after = stored_vectors(imported)
    assert before.keys() - after.keys() == {"gone/x.jpg"}
    for path, vector in after.items():
        np.testing.assert_array_equal(vector, before[path])
    assert issues(imported / ".soutu") == []


def test_without_the_model_and_without_vectors_it_is_missing(photos, soutu):
    assert soutu("index", photos, "--model", "tiny")[0] == 0
    with Gallery.open(photos, model="absent") as gallery, pytest.raises(Missing):
        gallery.rebuild()
    assert soutu("doctor", "-g", photos)[0] == 0


def test_an_unknown_model_is_asked_for(folder):
    [space] = (folder / ".soutu" / "spaces").iterdir()
    space.rename(space.with_name("0" * 16))
    (folder / ".soutu" / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(BadInput) as caught:
        rebuild(folder)
    assert caught.value.code == "rebuild-model"
    with Gallery.open(folder, model="tiny") as gallery:
        gallery.rebuild(folder / "captions.csv")
    assert issues(folder / ".soutu") == []
    assert len(answers(folder)["captions"]) == 12


@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_that_is_not_mounted_costs_nothing(folder, damaged):
    before = {path: path.read_bytes() for path in folder.glob("图*.png")}
    for path in before:
        path.unlink()
    if damaged:
        (folder / ".soutu" / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(BadInput) as caught:
        rebuild(folder)
    assert caught.value.code == "index-empty"
    [space] = (folder / ".soutu" / "spaces").iterdir()
    assert (space / "images.f32").stat().st_size > 0


def test_another_folders_index_is_left_alone(folder, tmp_path, soutu):
    home = tmp_path / "elsewhere"
    assert soutu("index", folder, "--model", "tiny", "--index", home)[0] == 0
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(picture(77)).save(other / "x.png")
    code, _, err = soutu("index", "--rebuild", other, "--index", home)
    assert code == 2
    assert str(folder) in err


def test_without_an_index_one_is_made(photos, soutu):
    assert soutu("index", "--rebuild", photos, "--model", "tiny")[0] == 0
    assert soutu("doctor", "-g", photos)[0] == 0


@pytest.mark.parametrize("option", [["--dry-run"], ["--watch"], ["--engine", "ray"]])
def test_options_that_do_not_go_with_it(photos, soutu, option):
    assert soutu("index", "--rebuild", photos, *option)[0] == 2


def test_the_next_run_sweeps_up_what_a_killed_rebuild_left(folder, soutu):
    left = folder / ".soutu" / "rebuild"
    (left / "spaces").mkdir(parents=True)
    (left / DATABASE).write_bytes(b"half")
    assert soutu("index", folder)[0] == 0
    assert not left.exists()
