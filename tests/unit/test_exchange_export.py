"""Exporting: what is written, what comes back, and what is left alone."""

import pickle
import shutil

import numpy as np
import pytest

from soutu.errors import BadInput, MissingExtra, MissingIndex
from soutu.exchange import EXPORTS, export
from soutu.exchange.export import export_embeddings
from soutu.exchange.npy import EmbeddingSource
from soutu.factory import read_embeddings
from soutu.gallery import Gallery
from soutu.store.base import NewCaption
from soutu.store.sqlite.store import LocalStore
from tests.conftest import write_bundle
from tests.store_samples import DIM, card, picture, pictures, unit

NEEDS = {"pt": "torch", "parquet": "pyarrow"}


def need(form):
    if form in NEEDS:
        pytest.importorskip(NEEDS[form], reason=f"{NEEDS[form]} is not installed")


@pytest.fixture
def store(tmp_path):
    """Four pictures: one with two captions, one with one, one whose caption has no vector, one
    without any and with two paths."""
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as opened:
        with opened.writer() as writer:
            a, b, c, _ = writer.add_images(pictures(4), unit(4, DIM))
            writer.add_images([picture("copy.jpg", "图/0003.jpg")], unit(1, DIM, seed=9))
            said = [
                NewCaption(a, "一"),
                NewCaption(b, "二"),
                NewCaption(a, "one"),
                NewCaption(c, ""),
            ]
            writer.replace_captions([*said[:3], NewCaption(c, "三")])
            ids = [row.id for row in writer.captions_without_vector()]
            writer.set_caption_vectors(ids[:3], unit(3, DIM, seed=1))
        yield opened


def write(store, folder, form="npy"):
    return export_embeddings(store, folder, form, EmbeddingSource("tiny", store.info))


def read(folder, form):
    source = read_embeddings(folder, form)
    [rows] = source.batches(99)
    return source, rows


@pytest.mark.parametrize("form", ["npy", "pt"])
def test_parallel_files_have_a_row_for_each_caption(store, tmp_path, form):
    need(form)
    report = write(store, tmp_path / "out", form)
    assert (report.rows, report.uncaptioned, report.not_encoded) == (3, 3, 0)
    source, rows = read(tmp_path / "out", form)
    assert source.source == EmbeddingSource("tiny", card())
    assert rows.paths == ["图/0000.jpg", "图/0000.jpg", "图/0001.jpg"]
    assert rows.captions == ["一", "one", "二"]
    np.testing.assert_array_equal(rows.images, unit(4, DIM)[[0, 0, 1]])
    np.testing.assert_array_equal(rows.texts, unit(3, DIM, seed=1)[[0, 2, 1]])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(report.files)
    ending = {"npy": ".json", "pt": ".pkl"}[form]
    assert set(report.files) == {
        f"image_features.{form}", f"text_features.{form}", f"captions{ending}",
        f"image_paths{ending}", "model.json",
    }  # fmt: skip


def test_parquet_has_all_rows(store, tmp_path):
    need("parquet")
    report = write(store, tmp_path / "out", "parquet")
    assert (report.rows, report.uncaptioned) == (6, 0)
    _, rows = read(tmp_path / "out", "parquet")
    assert rows.paths == [
        "图/0000.jpg", "图/0000.jpg", "图/0001.jpg", "图/0002.jpg", "copy.jpg", "图/0003.jpg",
    ]  # fmt: skip
    assert rows.captions == ["一", "one", "二", "三", "", ""]
    assert rows.text_rows.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(rows.images, unit(4, DIM)[[0, 0, 1, 2, 3, 3]])
    np.testing.assert_array_equal(rows.texts, unit(3, DIM, seed=1)[[0, 2, 1]])
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out" / "embeddings.parquet")
    assert table.column("caption").to_pylist()[4:] == [None, None]
    assert table.column("text_embedding").null_count == 3


@pytest.mark.parametrize("form", EXPORTS)
def test_many_batches_are_as_one(store, tmp_path, form, monkeypatch):
    need(form)
    write(store, tmp_path / "whole", form)
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    write(store, tmp_path / "parts", form)
    one, many = (read(tmp_path / name, form)[1] for name in ("whole", "parts"))
    assert (one.paths, one.captions) == (many.paths, many.captions)
    np.testing.assert_array_equal(one.images, many.images)
    np.testing.assert_array_equal(one.texts, many.texts)


@pytest.mark.parametrize("form", ["npy", "pt"])
def test_without_captions_there_are_pictures_alone(tmp_path, form):
    need(form)
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as store:
        with store.writer() as writer:
            writer.add_images(pictures(3), unit(3, DIM))
        report = write(store, tmp_path / "out", form)
    assert (report.rows, report.uncaptioned, len(report.files)) == (3, 0, 3)
    rows = read(tmp_path / "out", form)[1]
    assert rows.paths == [image.path for image in pictures(3)]
    np.testing.assert_array_equal(rows.images, unit(3, DIM))


def test_files_that_this_model_has_not_seen_are_counted(store, tmp_path):
    with LocalStore.create_or_open(tmp_path / ".soutu", card("other")) as other:
        with pytest.raises(BadInput, match="soutu index"):
            write(other, tmp_path / "out")
        with other.writer() as writer:
            writer.add_images(pictures(1), unit(1, DIM))
        report = write(other, tmp_path / "out")
    assert (report.rows, report.not_encoded) == (1, 4)
    assert not list(tmp_path.glob(".soutu-export-*"))


def test_an_earlier_export_is_replaced_as_a_whole(store, tmp_path):
    need("parquet")
    folder = tmp_path / "new" / "out"
    write(store, folder, "npy")
    write(store, folder, "parquet")
    assert sorted(path.name for path in folder.iterdir()) == ["embeddings.parquet", "model.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("names", [["notes.txt"], ["model.json", "photo.jpg"], ["captions.json"]])
def test_other_things_are_left_alone(store, tmp_path, names):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(BadInput, match=names[-1]) as caught:
        write(store, folder)
    assert caught.value.code == "export-not-empty"
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all((folder / name).read_text() == "mine" for name in names)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="is a file"):
        write(store, tmp_path / "file")


def test_an_export_that_fails_leaves_the_earlier_one(store, tmp_path, monkeypatch):
    write(store, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_features", full)
    with pytest.raises(BadInput, match="No space left"):
        write(store, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".soutu", "out"]


def test_one_state_is_written_whatever_is_indexed_meanwhile(store, tmp_path, monkeypatch):
    real = LocalStore.all_captions

    def meanwhile(self):
        found = real(self)
        with LocalStore.create_or_open(self.home, card()) as other, other.writer() as writer:
            writer.replace_captions([])
            writer.detach(list(self.files())[:1])
        return found

    monkeypatch.setattr(LocalStore, "all_captions", meanwhile)
    assert write(store, tmp_path / "out").rows == 3


def test_names_that_are_no_text_go_into_arrays_but_not_into_parquet(tmp_path):
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as store:
        with store.writer() as writer:
            writer.add_images([picture(odd)], unit(1, DIM))
        write(store, tmp_path / "out")
        assert read(tmp_path / "out", "npy")[1].paths == [odd]
        need("parquet")
        with pytest.raises(BadInput, match="--format npy"):
            write(store, tmp_path / "table", "parquet")


@pytest.mark.parametrize(("form", "extra"), [("pt", "torch"), ("parquet", "parquet")])
def test_an_absent_package_is_named_before_anything_is_read(tmp_path, monkeypatch, form, extra):
    import importlib.util
    import sys

    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=rf"soutu\[{extra}\]"):
        export_embeddings(None, tmp_path / "out", form, None)


@pytest.fixture
def full(photos, tmp_path):
    """An indexed gallery with a copy of one picture and captions."""
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    shutil.copyfile(photos / "a.jpg", photos / "sub" / "copy.jpg")
    lines = ["a.jpg,灰猫", "a.jpg,a cat", "b.png,狗", "sub/c.webp,pig"]
    (photos / "c.csv").write_text("image_path,caption\n" + "\n".join(lines), "utf-8")
    with Gallery.open(photos, model=str(write_bundle(tmp_path / "model"))) as gallery:
        gallery.index(photos / "c.csv")
        yield gallery


def answers(gallery):
    """All that a search returns, to the last bit."""
    by_text, by_image = gallery.search("猫", k=9), gallery.search(image=gallery.root / "b.png", k=9)
    captions = gallery.captions(gallery.root / "a.jpg", k=9)
    return [
        [(hit.score, hit.path, hit.also, hit.caption) for hit in found.hits]
        for found in (by_text, by_image, captions)
    ]


@pytest.mark.parametrize("form", EXPORTS)
def test_there_and_back(full, tmp_path, form):
    need(form)
    full.export_embeddings(tmp_path / "out", form=form)
    shutil.copytree(full.root, tmp_path / "again", ignore=shutil.ignore_patterns(".soutu"))
    with Gallery.open(tmp_path / "again") as again:
        report = again.import_embeddings(tmp_path / "out")
        assert (report.on_disk, report.absent, report.silent) == (4, 0, 0)
        assert answers(again) == answers(full)
        vector = full.search("猫").vector
        before, after = (g.store.search_images(vector, 9) for g in (full, again))
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.scores, after.scores)
        assert again.model == full.model
        indexed = again.index()
        assert (indexed.encoded, indexed.unchanged, indexed.captions) == (0, 4, 4)


def test_the_originals_own_code_reads_the_export(full, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    full.export_embeddings(tmp_path / "out", form="pt")
    images = torch.load(tmp_path / "out" / "image_features.pt", weights_only=True)
    texts = torch.load(tmp_path / "out" / "text_features.pt", weights_only=True)
    captions = pickle.loads((tmp_path / "out" / "captions.pkl").read_bytes())
    paths = pickle.loads((tmp_path / "out" / "image_paths.pkl").read_bytes())
    assert images.shape == texts.shape == (len(paths), 16)
    assert images.dtype == torch.float32
    assert sorted(zip(paths, captions, strict=True))[0] == ("a.jpg", "a cat")


def test_a_gallery_without_index(photos, tmp_path):
    with pytest.raises(MissingIndex):
        Gallery.open(photos).export_embeddings(tmp_path / "out")


def test_a_model_is_not_needed_but_may_be_named(full, tmp_path):
    shutil.move(tmp_path / "model", tmp_path / "moved")
    with Gallery.open(full.root) as gallery:
        assert gallery.export_embeddings(tmp_path / "out").rows == 6
    with Gallery.open(full.root, model=str(tmp_path / "moved")) as gallery:
        assert gallery.export_embeddings(tmp_path / "out").rows == 6


def test_features_of_another_model_than_was_named_are_refused(full, tmp_path, photos):
    full.export_embeddings(tmp_path / "out")
    other = write_bundle(tmp_path / "other", seed=1)
    shutil.rmtree(photos / ".soutu")
    with pytest.raises(BadInput) as caught:
        Gallery.open(photos, model=str(other)).import_embeddings(tmp_path / "out")
    assert caught.value.code == "import-model-differs"
    assert not (photos / ".soutu").exists()


def test_a_model_that_is_no_longer_there_is_known_from_its_description(full, tmp_path, photos):
    full.export_embeddings(tmp_path / "out")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    shutil.rmtree(photos / ".soutu")
    with Gallery.open(photos) as gallery:
        assert gallery.import_embeddings(tmp_path / "out").added == 4
        assert gallery.info().model == full.encoder.info
    with Gallery.open(photos, model=str(tmp_path / "moved")) as gallery:
        assert gallery.search("cat").hits
