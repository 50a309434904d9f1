"""Bringing an index up to date: what is encoded, kept, renamed, removed, refused."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from soutu.errors import BadCaptions, BadInput, MissingModel, ModelMismatch
from soutu.gallery import Gallery
from soutu.indexing import pipeline
from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def model(tmp_path):
    return str(write_bundle(tmp_path / "model"))


@pytest.fixture
def gallery(photos, model):
    with Gallery.open(photos, model=model) as opened:
        yield opened


def counts(report):
    return (report.files, report.encoded, report.unchanged, report.renamed, report.removed)


def paths(gallery):
    return sorted(hit.path for hit in gallery.search("cat", k=100).hits)


def test_a_first_run_encodes_everything(gallery):
    assert counts(gallery.index()) == (3, 3, 0, 0, 0)
    assert paths(gallery) == ["a.jpg", "b.png", "sub/c.webp"]


def test_a_second_run_encodes_nothing(gallery):
    generation = gallery.index().generation
    report = gallery.index()
    assert counts(report) == (3, 0, 3, 0, 0)
    assert report.generation == generation, "nothing changed"


def test_only_the_new_picture_is_encoded(gallery, photos):
    gallery.index()
    Image.fromarray(picture(9)).save(photos / "new.png")
    assert counts(gallery.index()) == (4, 1, 3, 0, 0)


def test_a_changed_picture_is_encoded_again(gallery, photos):
    gallery.index()
    Image.fromarray(picture(9)).save(photos / "b.png")
    assert counts(gallery.index()) == (3, 1, 2, 0, 0)
    assert gallery.search(image=picture(9), k=1).hits[0].path == "b.png"


def test_a_picture_edited_without_a_change_of_size_is_encoded_again(gallery, photos):
    Image.fromarray(picture(4)).save(photos / "b.bmp")
    gallery.index()
    before = (photos / "b.bmp").stat()
    Image.fromarray(picture(9)).save(photos / "b.bmp")
    os.utime(photos / "b.bmp", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (photos / "b.bmp").stat().st_size == before.st_size
    assert counts(gallery.index()) == (4, 1, 3, 0, 0)
    assert gallery.search(image=picture(9), k=1).hits[0].path == "b.bmp"


def test_a_touched_picture_is_not_encoded_again(gallery, photos):
    gallery.index()
    os.utime(photos / "a.jpg", (1, 1))
    assert counts(gallery.index())[:2] == (3, 0)
    assert counts(gallery.index()) == (3, 0, 3, 0, 0)


def test_renames_and_moves_are_followed(gallery, photos):
    gallery.index()
    (photos / "a.jpg").rename(photos / "sub" / "moved.jpg")
    (photos / "b.png").rename(photos / "renamed.png")
    assert counts(gallery.index()) == (3, 0, 1, 2, 0)
    assert paths(gallery) == ["renamed.png", "sub/c.webp", "sub/moved.jpg"]


def test_swapped_names_are_followed(gallery, photos):
    shutil.copyfile(photos / "a.jpg", photos / "d.jpg")
    Image.fromarray(picture(5)).save(photos / "d.jpg")
    gallery.index()
    (photos / "a.jpg").rename(photos / "t")
    (photos / "d.jpg").rename(photos / "a.jpg")
    (photos / "t").rename(photos / "d.jpg")
    assert gallery.index().encoded == 0
    assert gallery.search(image=photos / "a.jpg", k=1).hits[0].path == "a.jpg"
    assert gallery.search(image=photos / "d.jpg", k=1).hits[0].path == "d.jpg"


def test_removed_pictures_leave_every_search(gallery, photos):
    gallery.index()
    (photos / "a.jpg").unlink()
    assert counts(gallery.index()) == (2, 0, 2, 0, 1)
    assert paths(gallery) == ["b.png", "sub/c.webp"]


def test_copies_are_one_hit_with_several_paths(gallery, photos):
    shutil.copyfile(photos / "a.jpg", photos / "copy.jpg")
    report = gallery.index()
    assert (report.encoded, report.duplicates) == (3, 1)
    hit = gallery.search(image=photos / "a.jpg", k=1).hits[0]
    assert (hit.path, hit.also) == ("a.jpg", ("copy.jpg",))
    assert len(gallery.search("cat", k=100).hits) == 3


def test_an_emptied_folder_is_refused_and_nothing_is_lost(gallery, photos):
    gallery.index()
    shutil.rmtree(photos / "sub")
    for name in ("a.jpg", "b.png"):
        (photos / name).unlink()
    with pytest.raises(BadInput, match="not mounted"):
        gallery.index()
    assert len(paths(gallery)) == 3


def test_a_picture_that_breaks_keeps_its_last_good_state(gallery, photos):
    gallery.index()
    (photos / "a.jpg").write_bytes(b"\xff\xd8 broken")
    report = gallery.index()
    assert [p.fields["path"] for p in report.failed] == ["a.jpg"]
    assert "a.jpg" in paths(gallery)


def test_a_stopped_run_goes_on_where_it_was(gallery, photos, monkeypatch):
    monkeypatch.setattr(pipeline, "STORE_SECONDS", 0)  # each batch is stored at once
    for seed in range(40):
        Image.fromarray(picture(100 + seed)).save(photos / f"n{seed:02d}.png")

    def stop(done, total):
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.index(progress=stop)
    assert gallery.index().encoded == 43 - 32


def test_progress_reaches_the_total(gallery):
    seen = []
    gallery.index(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_captions_are_stored_remembered_and_updated_alone(gallery, photos):
    file = photos / "captions.csv"
    file.write_text("image_path,caption\na.jpg,a cat\nb.png,a dog\na.jpg,gray\n", "utf-8")
    report = gallery.index(file)
    assert (report.captions, report.caption_problems) == (3, ())
    hits = gallery.captions(photos / "a.jpg", k=10).hits
    assert {(h.caption, h.path) for h in hits} == {
        ("a cat", "a.jpg"), ("a dog", "b.png"), ("gray", "a.jpg")
    }  # fmt: skip
    file.write_text("image_path,caption\na.jpg,a kitten\n", "utf-8")
    report = gallery.index()
    assert (report.encoded, report.captions) == (0, 1)
    assert gallery.captions(photos / "a.jpg").hits[0].caption == "a kitten"


def test_captions_follow_a_renamed_picture(gallery, photos):
    file = photos / "captions.csv"
    file.write_text("image_path,caption\na.jpg,a cat\n", "utf-8")
    gallery.index(file)
    file.unlink()
    (photos / "a.jpg").rename(photos / "z.jpg")
    report = gallery.index()
    assert [p.code for p in report.caption_problems] == ["captions-gone"]
    assert gallery.captions(photos / "z.jpg").hits[0].path == "z.jpg"


def test_a_caption_of_a_broken_picture_is_named(gallery, photos):
    (photos / "a.jpg").write_bytes(b"broken")
    file = photos / "captions.csv"
    file.write_text("image_path,caption\na.jpg,a cat\nb.png,a dog\n", "utf-8")
    report = gallery.index(file)
    assert report.captions == 1
    assert [(p.code, p.fields["line"]) for p in report.caption_problems] == [
        ("caption-not-indexed", 2)
    ]


def test_bad_captions_write_nothing(gallery, photos):
    file = photos / "captions.csv"
    file.write_text("image_path, caption\na.jpg,a cat\n", "utf-8")
    with pytest.raises(BadCaptions):
        gallery.index(file)
    assert not (photos / ".soutu").exists()


def test_a_missing_model_writes_nothing(photos):
    with pytest.raises(MissingModel), Gallery.open(photos, model="no-such-model") as gallery:
        gallery.index()
    assert not (photos / ".soutu").exists()


def test_a_second_model_stands_beside_the_first(gallery, photos, tmp_path):
    gallery.index()
    first = gallery.search("cat").model.space
    other = str(write_bundle(tmp_path / "other", seed=5))
    with Gallery.open(photos, model=other) as second:
        with pytest.raises(ModelMismatch, match="--model"):
            second.search("cat")
        assert counts(second.index()) == (3, 3, 0, 0, 0)
        result = second.search("cat")
        assert result.model.space != first
        vectors = second.encoder.encode_images([np.asarray(Image.open(photos / "b.png"))])
        assert second.search(image=photos / "b.png", k=1).hits[0].path == "b.png"
        assert np.isfinite(vectors).all()
    with Gallery.open(photos) as last:
        assert last.search("cat").model.space == result.model.space, "last indexed with"
    with Gallery.open(photos, model=gallery.model) as again:
        assert again.search("cat").model.space == first


def test_what_lies_in_a_folder_named_like_a_picture_can_go(gallery, photos):
    (photos / "f.jpg").mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(picture(len(name) + ord(name[0]))).save(photos / "f.jpg" / name)
    assert gallery.index().files == 5
    (photos / "f.jpg" / "one.png").unlink()
    assert gallery.index().removed == 1


def test_an_unreadable_folder_or_link_loses_nothing(gallery, photos, monkeypatch):
    (photos / "link.png").symlink_to("sub/c.webp")
    Image.fromarray(picture(33)).save(photos / "sub" / "d.png")
    (photos / "far.png").symlink_to("sub/d.png")
    gallery.index()
    before = paths(gallery)
    real = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = gallery.index()
    assert report.removed == 0
    assert [p.code for p in report.failed] == ["folder-unreadable"]
    assert paths(gallery) == before
