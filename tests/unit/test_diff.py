"""soutu index --dry-run: what it says is what the run then does, and it writes nothing."""

import json
import shutil

import pytest
from PIL import Image

from soutu.errors import BadInput
from soutu.gallery import Gallery
from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def model(tmp_path):
    return str(write_bundle(tmp_path / "model"))


def everything(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def counts(plan):
    return (
        plan.files,
        len(plan.encode),
        len(plan.renamed),
        len(plan.removed),
        len(plan.duplicates),
    )


def done(report):
    return (report.files, report.encoded, report.renamed, report.removed, report.duplicates)


def change(photos):
    """One of everything: new, changed, moved, removed, copied, touched, unreadable."""
    Image.fromarray(picture(9)).save(photos / "new.png")
    Image.fromarray(picture(8)).save(photos / "b.png")
    (photos / "sub" / "c.webp").rename(photos / "moved.webp")
    shutil.copy(photos / "new.png", photos / "new-copy.png")
    shutil.copy(photos / "a.jpg", photos / "a-copy.jpg")
    Image.fromarray(picture(7)).save(photos / "gone.png")
    (photos / "empty.jpg").touch()


def test_before_the_first_run_all_is_to_be_encoded_and_no_index_is_made(photos, model):
    before = everything(photos)
    plan = Gallery.open(photos, model=model).plan()
    assert plan.encode == ["a.jpg", "b.png", "sub/c.webp"]
    assert everything(photos) == before


def test_the_plan_is_what_the_run_does(photos, model):
    with Gallery.open(photos, model=model) as gallery:
        Image.fromarray(picture(7)).save(photos / "gone.png")
        gallery.index()
        change(photos)
        (photos / "gone.png").unlink()
        before = everything(photos)
        plan = gallery.plan()
        assert everything(photos) == before
        assert plan.renamed == [("sub/c.webp", "moved.webp")]
        assert [*plan.removed] == ["gone.png"]
        assert [str(p.fields["path"]) for p in plan.unreadable] == ["empty.jpg"]
        report = gallery.index()
        assert counts(plan) == done(report)
        assert counts(gallery.plan())[1:] == (0, 0, 0, 0)


def test_copies_of_new_and_of_stored_pictures_are_duplicates_in_both(photos, model):
    with Gallery.open(photos, model=model) as gallery:
        gallery.index()
        Image.fromarray(picture(9)).save(photos / "new.png")
        for name in ("new.png", "a.jpg"):
            for number in range(3):
                shutil.copy(photos / name, photos / f"{number}-{name}")
        (photos / "a.jpg").unlink()
        plan = gallery.plan()
        assert plan.renamed == [("a.jpg", "0-a.jpg")]
        assert plan.duplicates == ["1-a.jpg", "1-new.png", "2-a.jpg", "2-new.png", "new.png"]
        assert counts(plan) == done(gallery.index())


def test_another_model_has_everything_to_encode(photos, model, tmp_path):
    with Gallery.open(photos, model=model) as gallery:
        gallery.index()
    other = str(write_bundle(tmp_path / "other", seed=1))
    with Gallery.open(photos, model=other) as gallery:
        plan = gallery.plan()
        assert counts(plan) == (3, 3, 0, 0, 0)
        assert counts(plan) == done(gallery.index())


def test_an_emptied_folder_is_refused_as_indexing_would(photos, model):
    with Gallery.open(photos, model=model) as gallery:
        gallery.index()
        for name in ("a.jpg", "b.png", "sub/c.webp"):
            (photos / name).unlink()
        with pytest.raises(BadInput):
            gallery.plan()


def test_what_a_person_sees(photos, model, soutu):
    code, out, err = soutu("index", photos, "--model", model, "--dry-run")
    assert code == 0, err
    assert out.splitlines() == ["+ a.jpg", "+ b.png", "+ sub/c.webp"]
    assert "Nothing was changed" in err
    assert not (photos / ".soutu").exists()
    assert soutu("index", photos, "--model", model)[0] == 0
    (photos / "a.jpg").rename(photos / "z.jpg")
    _, out, _ = soutu("index", photos, "--dry-run")
    assert out.splitlines() == ["→ a.jpg → z.jpg"]
    _, out, _ = soutu("index", photos, "--dry-run", "--json")
    assert json.loads(out)["renamed"] == [["a.jpg", "z.jpg"]]
