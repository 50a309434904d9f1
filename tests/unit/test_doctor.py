"""``soutu doctor``: what it says of a gallery, of its model, and what one index run brings back."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from soutu.fs import DATABASE
from soutu.gallery import Gallery
from soutu.models.catalog import models_folder
from soutu.store.sqlite.store import LocalStore
from tests.conftest import picture, write_bundle
from tests.damaged import edit


@pytest.fixture
def gallery(photos, soutu):
    lines = ("image_path,caption", "a.jpg,灰猫在树干上", "b.png,一只金毛", "sub/c.webp,小猪")
    (photos / "captions.csv").write_text("\n".join(lines) + "\n", "utf-8")
    captions = photos / "captions.csv"
    assert soutu("index", photos, "--model", "tiny", "--captions", captions)[0] == 0
    return photos


def answers(folder):
    with Gallery.open(folder, settings={"journal": False}) as gallery:
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
    assert soutu("doctor", "-g", gallery, "--repair")[0] == 0


def test_damage_is_named_mended_and_brought_back_by_the_next_run(gallery, soutu):
    before = answers(gallery)
    edit(gallery / ".soutu", "UPDATE captions SET text = '坏' WHERE id = 2")
    code, out, err = soutu("doctor", "-g", gallery)
    assert code == 5
    assert "captions · 2" in out
    assert "soutu doctor --repair" in err
    code, out, _ = soutu("doctor", "-g", gallery, "--repair")
    assert code == 0
    assert "before-repair-" in out
    assert f"soutu index {gallery}" in out
    assert soutu("doctor", "-g", gallery)[0] == 0
    assert answers(gallery) != before
    assert soutu("index", gallery)[0] == 0
    assert answers(gallery) == before


def test_json_says_what_was_repaired(gallery, soutu):
    edit(gallery / ".soutu", "UPDATE image_vectors SET slot = 77 WHERE owner = 2")
    code, out, _ = soutu("doctor", "-g", gallery, "--json")
    shown = json.loads(out)
    assert (code, shown["healthy"]) == (5, False)
    assert {"image_vectors", "counters"} <= {finding["where"] for finding in shown["findings"]}
    code, out, _ = soutu("--lang", "zh", "doctor", "-g", gallery, "--json", "--repair")
    shown = json.loads(out)
    assert (code, shown["healthy"], shown["vectors"]) == (0, True, 1)
    assert all(finding["repaired"] for finding in shown["findings"])
    assert "向量" in shown["findings"][0]["message"]
    assert len(shown["kept"]) == 1


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
def test_a_database_that_is_none_is_made_anew(photos, tmp_path, soutu, data, elsewhere):
    home = tmp_path / "elsewhere" if elsewhere else photos / ".soutu"
    place = ["--index", home] if elsewhere else []
    assert soutu("index", photos, "--model", "tiny", *place)[0] == 0
    found = soutu("search", "猫", "-g", photos, "--paths-only", *place)[1]
    (home / DATABASE).write_bytes(data)
    if data:
        code, _, err = soutu("search", "猫", "-g", photos, *place)
        assert code == 5
        assert "soutu doctor --repair" in err
    assert soutu("doctor", "-g", photos, *place)[0] == 5
    if elsewhere:
        assert soutu("doctor", *place)[0] == 5, "also where the index says no more whose it is"
    code, out, _ = soutu("doctor", "-g", photos, "--repair", *place)
    assert code == 0
    assert "--captions FILE" in out, "nothing tells whether there was a captions file"
    assert soutu("doctor", "-g", photos, *place)[0] == 0
    assert LocalStore.read_meta(home, "model") == "tiny", "the folder of its vectors tells"
    assert soutu("index", photos, *place)[0] == 0
    assert soutu("search", "猫", "-g", photos, "--paths-only", *place)[1] == found


def test_no_index_is_missing(tmp_path, soutu):
    code, _, err = soutu("doctor", "-g", tmp_path)
    assert code == 3
    assert "soutu index" in err
    assert not (tmp_path / ".soutu").exists()


def test_a_repair_waits_its_turn(gallery, soutu):
    with LocalStore.open(gallery / ".soutu") as store, store.writer():
        assert soutu("doctor", "-g", gallery)[0] == 0
        code, _, err = soutu("doctor", "-g", gallery, "--repair")
    assert code == 5
    assert "is writing the index" in err


def test_a_lost_captions_file_is_said(gallery, soutu):
    before = answers(gallery)
    edit(
        gallery / ".soutu",
        "UPDATE meta SET value = x'78' WHERE key = 'captions_file'",
        "UPDATE captions SET text = '坏' WHERE id = 2",
    )
    code, out, _ = soutu("doctor", "-g", gallery, "--repair")
    assert code == 0
    assert "--captions FILE" in out
    soutu("index", gallery, "--captions", gallery / "captions.csv")
    assert answers(gallery) == before


def test_a_lost_model_is_recognised_by_its_vectors(photos, tmp_path, soutu):
    model = write_bundle(tmp_path / "bundle")
    assert soutu("models", "pull", model, "--name", "mine")[0] == 0
    assert soutu("index", photos, "--model", "mine")[0] == 0
    edit(photos / ".soutu", "UPDATE meta SET value = x'00' WHERE key IN ('model', 'root')")
    assert soutu("doctor", "-g", photos, "--repair")[0] == 0
    assert LocalStore.read_meta(photos / ".soutu", "model") == "mine"
    assert LocalStore.read_meta(photos / ".soutu", "root") == str(photos)
    assert soutu("search", "cat", "-g", photos)[0] == 0


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
    code, out, _ = soutu("doctor", "-g", photos, "--repair")
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
        assert health.repaired is None
        health = opened.doctor(repair=True)
        assert health.healthy
        assert health.repaired is not None
        assert health.repaired.removed == 3, "the picture, its path and its caption"
        assert health.left == ()
        opened.index()
        assert len(opened.search("猫").hits) == 3


def test_damaged_codes_are_built_anew_by_repair_and_by_the_next_run(gallery, soutu, monkeypatch):
    pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")
    monkeypatch.setattr("soutu.store.ann_build.EXACT_BELOW", 30)
    monkeypatch.setattr("soutu.store.ann_build.lists_for", lambda slots: 1)
    for number in range(40):
        Image.fromarray(picture(10 + number)).save(gallery / f"{number}.png")
    assert soutu("index", gallery)[0] == 0
    [manifest] = (gallery / ".soutu").rglob("*.ann.json")
    for mend in (("index", gallery), ("doctor", "-g", gallery, "--repair")):
        whole = manifest.read_text()
        manifest.write_text(whole.replace('"slots": 43', '"slots": 42'))
        code, out, _ = soutu("doctor", "-g", gallery)
        assert code == 5
        assert "image.ann.json" in out
        assert soutu(*mend)[0] == 0
        assert soutu("doctor", "-g", gallery)[0] == 0
        assert '"slots": 43' in manifest.read_text()


def test_a_model_that_is_a_plain_folder_has_no_hashes_to_compare(photos, tmp_path, soutu):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    model = write_bundle(tmp_path / "model")
    (model / "soutu.json").unlink(missing_ok=True)
    assert soutu("index", photos, "--model", model)[0] == 0
    code, out, err = soutu("doctor", "-g", photos)
    assert code == 0, out + err
