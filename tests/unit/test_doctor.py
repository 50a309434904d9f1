"""``soutu doctor`` says what is damaged, and ``soutu index --rebuild`` makes the index anew."""

from __future__ import annotations

import json
import shutil

import pytest

from soutu.fs import DATABASE
from soutu.gallery import Gallery
from soutu.models.bundle import models_folder
from soutu.store.sqlite.store import LocalStore
from tests.conftest import write_bundle
from tests.damaged import edit


@pytest.fixture
def gallery(photos, soutu):
    lines = ("image_path,caption", "a.jpg,灰猫在树干上", "b.png,一只金毛", "sub/c.webp,小猪")
    (photos / "captions.csv").write_text("\n".join(lines) + "\n", "utf-8")
    captions = photos / "captions.csv"
    assert soutu("index", photos, "--model", "tiny", "--captions", captions)[0] == 0
    return photos


def answers(folder):
    with Gallery.open(folder, settings={"journal": "off"}) as gallery:
        hits = (*gallery.search("灰猫", k=9).hits, *gallery.captions(folder / "a.jpg").hits)
        # A batch of another size moves the last digit of a vector.
        return [(hit.path, hit.caption, round(hit.score, 5)) for hit in hits]


def test_a_healthy_gallery(gallery, soutu):
    code, out, err = soutu("doctor", "-g", gallery)
    assert (code, err) == (0, "")
    assert "healthy" in out
    assert "良好" in soutu("--lang", "zh", "doctor", "-g", gallery / "sub")[1]
    code, out, _ = soutu("doctor", "-g", gallery, "--json")
    shown = json.loads(out)
    assert (code, shown["healthy"], shown["findings"]) == (0, True, [])
    assert shown["checked"]["images"] == 3


def test_damage_is_named_and_cured_by_a_rebuild(gallery, soutu):
    before = answers(gallery)
    edit(gallery / ".soutu", "UPDATE captions SET text = '坏' WHERE id = 2")
    code, out, err = soutu("doctor", "-g", gallery)
    assert code == 5
    assert "captions · 2" in out
    assert f"soutu index --rebuild {gallery}" in err
    code, out, err = soutu("index", "--rebuild", gallery)
    assert (code, out) == (0, "")
    assert "Rebuilt" in err
    assert "Lost" not in err
    assert soutu("doctor", "-g", gallery)[0] == 0
    assert answers(gallery) == before


def test_repair_is_gone_and_says_what_to_use(gallery, soutu):
    code, _, err = soutu("doctor", "-g", gallery, "--repair")
    assert code == 2
    assert "soutu index --rebuild" in err
    assert "--repair" not in soutu("doctor", "--help")[1]


def test_json_names_each_finding(gallery, soutu):
    edit(gallery / ".soutu", "UPDATE image_vectors SET slot = 77 WHERE owner = 2")
    code, out, _ = soutu("--lang", "zh", "doctor", "-g", gallery, "--json")
    shown = json.loads(out)
    assert (code, shown["healthy"]) == (5, False)
    assert {"image_vectors", "counters"} <= {finding["where"] for finding in shown["findings"]}
    [vector] = (f for f in shown["findings"] if f["code"] == "doctor-image-vectors")
    assert (vector["key"], vector["harm"]) == ("space 1 owner 2", True)
    assert "向量" in vector["message"]


def test_many_findings_of_a_kind_are_counted(gallery, soutu):
    [slab] = gallery.glob(".soutu/spaces/*/images.f32")
    slab.unlink()
    edit(gallery / ".soutu", "UPDATE changes SET time = 'x'", "UPDATE counters SET value = 7777")
    code, out, _ = soutu("doctor", "-g", gallery)
    assert code == 5
    assert "images.f32" in out
    assert "… and 2 more" in out


@pytest.mark.parametrize("data", [b"", b"no database at all" * 1000])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_database_that_is_none(photos, tmp_path, soutu, data, elsewhere):
    home = tmp_path / "elsewhere" if elsewhere else photos / ".soutu"
    place = ["--index", home] if elsewhere else []
    assert soutu("index", photos, "--model", "tiny", *place)[0] == 0
    found = soutu("search", "猫", "-g", photos, "--paths-only", *place)[1]
    (home / DATABASE).write_bytes(data)
    if data:
        code, _, err = soutu("search", "猫", "-g", photos, *place)
        assert code == 5
        assert "soutu index --rebuild" in err
    assert soutu("doctor", "-g", photos, *place)[0] == 5
    if elsewhere:
        assert soutu("doctor", *place)[0] == 5, "also where the index says no more whose it is"
        assert soutu("index", "--rebuild", *place)[0] == 2, "whose pictures are to be encoded?"
    code, _, err = soutu("index", "--rebuild", photos, *place)
    assert code == 0
    assert "--captions FILE" in err, "nothing tells whether there was one"
    assert soutu("doctor", "-g", photos, *place)[0] == 0
    assert LocalStore.read_meta(home, "model") == "tiny", "the folder of its vectors tells"
    assert soutu("search", "猫", "-g", photos, "--paths-only", *place)[1] == found


def test_no_index_is_missing(tmp_path, soutu):
    code, _, err = soutu("doctor", "-g", tmp_path)
    assert code == 3
    assert "soutu index" in err
    assert not (tmp_path / ".soutu").exists()


def test_the_model_is_looked_at_and_is_no_damage(photos, tmp_path, soutu):
    model = write_bundle(tmp_path / "bundle")
    soutu("models", "pull", model, "--name", "mine")
    soutu("index", photos, "--model", "mine")
    assert "mine" not in soutu("doctor", "-g", photos)[1]
    folder = models_folder() / "mine"
    (folder / "textual" / "tokenizer.json").write_bytes(b"{}")
    code, out, _ = soutu("doctor", "-g", photos)
    assert code == 0
    assert "mine · textual/tokenizer.json" in out
    shutil.rmtree(folder)
    code, out, _ = soutu("doctor", "-g", photos)
    assert code == 0
    assert "not on this machine" in out
    soutu("models", "pull", write_bundle(tmp_path / "other", seed=5), "--name", "mine")
    code, out, _ = soutu("doctor", "-g", photos)
    assert code == 0
    assert "has been replaced" in out


def test_a_gallery_that_has_forgotten_its_model_says_so(photos, tmp_path, soutu):
    model = write_bundle(tmp_path / "bundle")
    soutu("index", photos, "--model", model)  # a folder: nothing on this machine tells its name
    edit(photos / ".soutu", "DELETE FROM meta WHERE key = 'model'")
    code, out, _ = soutu("doctor", "-g", photos)
    assert code == 0
    assert "--model NAME" in out


def test_models_of_pytorch_are_left_to_pytorch(gallery, soutu):
    with LocalStore.open(gallery / ".soutu") as store:
        store.set_meta("model", "torch:RN50/openai")
    code, out, _ = soutu("doctor", "-g", gallery)
    assert (code, len(out.splitlines())) == (0, 1)


def test_from_python(gallery):
    edit(gallery / ".soutu", "UPDATE images SET width = 12345 WHERE id = 1")
    with Gallery.open(gallery) as opened:
        assert opened.search("猫").hits
        health = opened.doctor()
        assert not health.healthy
        assert [(f.code, f.key) for f in health.found] == [("doctor-images", "1")]
        assert opened.rebuild().index.encoded == 3
        assert opened.doctor().healthy
        assert len(opened.search("猫").hits) == 3


def test_a_model_that_is_a_plain_folder_has_no_hashes_to_compare(photos, tmp_path, soutu):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    model = write_bundle(tmp_path / "model")
    (model / "soutu.json").unlink(missing_ok=True)
    assert soutu("index", photos, "--model", model)[0] == 0
    code, out, err = soutu("doctor", "-g", photos)
    assert code == 0, out + err
