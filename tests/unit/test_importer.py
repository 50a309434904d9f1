"""Importing into a gallery: what an index run then finds, and what a search answers."""

import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from soutu.errors import BadInput, MissingModel
from soutu.gallery import Gallery
from soutu.indexing import importer
from tests.conftest import DIM, picture, write_bundle
from tests.embeddings import write_folder
from tests.store_samples import unit

pytest.importorskip("onnx", reason="needs onnx to make a bundle")
PATHS = ["a.jpg", "b.png", "sub/c.webp"]
CAPTIONS = ["灰猫", "a dog", "a pig"]


@pytest.fixture
def model(tmp_path):
    return str(write_bundle(tmp_path / "model"))


@pytest.fixture
def gallery(photos, model):
    with Gallery.open(photos, model=model) as opened:
        yield opened


@pytest.fixture
def given(tmp_path):
    """A folder of embeddings of the three pictures, with captions."""
    return write_folder(tmp_path / "given", unit(3, DIM), PATHS, CAPTIONS, unit(3, DIM, seed=1))


def stored(gallery):
    """Path to the stored vector, caption text to its own, through the store."""
    store = gallery.store
    files, captions = store.files(), store.all_captions()
    silent = {row.id for row in store.captions_without_vector()}
    worded = [row for row in captions if row.id not in silent]
    images = store.image_vectors([file.image_id for file in files.values()])
    texts = store.caption_vectors([row.id for row in worded])
    return (
        dict(zip(files, images, strict=True)),
        {row.text: vector for row, vector in zip(worded, texts, strict=True)},
    )


def counts(report):
    return report.rows, report.on_disk, report.absent, report.added, report.captions, report.silent


def test_everything_given_is_stored(gallery, given):
    assert counts(gallery.import_embeddings(given)) == (3, 3, 0, 3, 3, 0)
    images, texts = stored(gallery)
    for row in range(3):
        np.testing.assert_array_equal(images[PATHS[row]], unit(3, DIM)[row])
        np.testing.assert_array_equal(texts[CAPTIONS[row]], unit(3, DIM, seed=1)[row])
    assert {hit.path for hit in gallery.search("cat", k=9).hits} == set(PATHS)


def test_an_index_run_then_finds_nothing_to_do(gallery, given, photos):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    Image.fromarray(picture(0)).save(photos / "a.jpg", exif=exif)
    gallery.import_embeddings(given)
    state = gallery.store.state()
    imported = gallery.store.images([f.image_id for f in gallery.store.files().values()])
    report = gallery.index()
    assert (report.files, report.encoded, report.unchanged, report.removed) == (3, 0, 3, 0)
    assert report.captions == 3
    assert gallery.store.state() == state, "nothing has changed"
    shutil.rmtree(gallery.home)
    gallery.close()
    gallery.index()
    files = gallery.store.files().values()
    indexed = gallery.store.images([file.image_id for file in files])
    facts = [(row.paths, row.width, row.height, row.taken) for row in indexed]
    assert facts == [(row.paths, row.width, row.height, row.taken) for row in imported]
    assert facts[0] == (("a.jpg",), 40, 60, "2024-05-06T07:08:09")


def test_the_same_import_again_changes_nothing(gallery, given, photos):
    (photos / "b.png").unlink()
    first = gallery.import_embeddings(given)
    assert counts(first) == (3, 2, 1, 3, 3, 0)
    again = gallery.import_embeddings(given)
    assert counts(again) == (3, 2, 1, 0, 0, 0)
    assert again.generation == first.generation


def test_known_files_are_not_read_again(gallery, given, monkeypatch):
    gallery.import_embeddings(given)
    monkeypatch.setattr(importer, "read_file", lambda *a, **k: pytest.fail("read"))
    assert gallery.import_embeddings(given).on_disk == 3


def test_a_stopped_import_is_gone_on_with(gallery, given, monkeypatch):
    monkeypatch.setattr(importer, "BATCH_ROWS", 1)

    def stop(done, total):
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.import_embeddings(given, progress=stop)
    assert counts(gallery.import_embeddings(given)) == (3, 3, 0, 1, 3, 0)
    assert len(stored(gallery)[0]) == 3


def test_many_small_batches_are_as_one(gallery, tmp_path, monkeypatch):
    paths = [f"no/{i % 40}.jpg" for i in range(100)]
    captions = [f"text {i}" if i % 3 else "" for i in range(100)]
    images, texts = unit(100, DIM), unit(100, DIM, seed=1)
    write_folder(tmp_path / "given", images, paths, captions, texts)
    monkeypatch.setattr(importer, "BATCH_ROWS", 7)
    assert counts(gallery.import_embeddings(tmp_path / "given")) == (100, 0, 40, 40, 66, 0)
    found, worded = stored(gallery)
    for row in range(40):
        np.testing.assert_array_equal(found[paths[row]], images[row], "the first counts")
    for row in range(100):
        if captions[row]:
            np.testing.assert_array_equal(worded[captions[row]], texts[row])


def test_arrays_are_mapped_and_read_a_batch_at_a_time(gallery, given, monkeypatch):
    monkeypatch.setattr(importer, "BATCH_ROWS", 2)
    taken = []
    real = np.memmap.__getitem__

    def getitem(self, rows):
        taken.append(rows)
        return real(self, rows)

    monkeypatch.setattr(np.memmap, "__getitem__", getitem)
    gallery.import_embeddings(given)
    assert slice(0, 2) in taken
    assert all(isinstance(rows, slice) is False or rows.stop - rows.start <= 2 for rows in taken)


def test_equal_content_is_one_image(gallery, photos, tmp_path):
    shutil.copyfile(photos / "a.jpg", photos / "copy.jpg")
    write_folder(tmp_path / "x", unit(2, DIM), ["copy.jpg", "a.jpg"])
    assert counts(gallery.import_embeddings(tmp_path / "x")) == (2, 2, 0, 2, 0, 0)
    [hit] = gallery.search("cat").hits
    assert {hit.path, *hit.also} == {"a.jpg", "copy.jpg"}
    np.testing.assert_array_equal(stored(gallery)[0]["a.jpg"], unit(2, DIM)[0])
    assert gallery.index().encoded == 2, "only what was not imported"


def test_what_is_indexed_keeps_its_vectors_and_captions(gallery, given, photos):
    (photos / "c.csv").write_text("image_path,caption,tag\na.jpg,灰猫,家\nb.png,我的\n".replace(
        "b.png,我的", "b.png,我的,x"), "utf-8")  # fmt: skip
    gallery.index(photos / "c.csv")
    images, texts = stored(gallery)
    ids = {row.text: row.id for row in gallery.store.all_captions()}
    assert counts(gallery.import_embeddings(given)) == (3, 3, 0, 0, 2, 0)
    now, said = stored(gallery)
    for path in PATHS:
        np.testing.assert_array_equal(now[path], images[path])
    np.testing.assert_array_equal(said["灰猫"], texts["灰猫"])
    after = {row.text: row for row in gallery.store.all_captions()}
    assert {text: after[text].id for text in ids} == ids
    assert after["灰猫"].tags == {"tag": "家"}
    assert set(after) == {"灰猫", "我的", "a dog", "a pig"}


def test_another_models_vectors_come_beside(gallery, given, tmp_path, photos):
    gallery.index()
    write_bundle(tmp_path / "other", seed=1)
    with Gallery.open(photos, model=str(tmp_path / "other")) as second:
        assert counts(second.import_embeddings(given)) == (3, 3, 0, 0, 3, 0)
        np.testing.assert_array_equal(stored(second)[0]["b.png"], unit(3, DIM)[1])
        assert second.index().encoded == 0
    assert len(Gallery.open(photos).info().spaces) == 2


def test_captions_without_vectors_are_encoded_by_the_next_run(gallery, tmp_path):
    write_folder(tmp_path / "x", unit(3, DIM), PATHS, CAPTIONS)
    assert counts(gallery.import_embeddings(tmp_path / "x")) == (3, 3, 0, 3, 3, 3)
    assert stored(gallery)[1] == {}
    gallery.index()
    assert set(stored(gallery)[1]) == set(CAPTIONS)


def test_what_is_not_on_disk_is_searchable_until_the_next_run(gallery, given, photos):
    (photos / "a.jpg").unlink()
    assert counts(gallery.import_embeddings(given))[1:3] == (2, 1)
    assert "a.jpg" in {hit.path for hit in gallery.search("cat").hits}
    file = gallery.store.files()["a.jpg"]
    [row] = gallery.store.images([file.image_id])
    assert (file.size, file.mtime_ns, row.width, row.height) == (0, 0, 0, 0)
    report = gallery.index()
    assert (report.removed, report.encoded) == (1, 0)


def test_a_file_that_comes_later_takes_the_place_of_the_absent_one(gallery, given, photos):
    (photos / "a.jpg").rename(photos / "away")
    gallery.import_embeddings(given)
    (photos / "away").rename(photos / "a.jpg")
    assert counts(gallery.import_embeddings(given))[1:4] == (3, 0, 0)
    assert gallery.index().unchanged == 3
    assert len(gallery.search("cat").hits) == 3


def test_an_indexed_file_that_is_away_is_not_overwritten(gallery, given, photos):
    gallery.index()
    before = gallery.store.files()["a.jpg"]
    (photos / "a.jpg").unlink()
    gallery.import_embeddings(given)
    assert gallery.store.files()["a.jpg"] == before


def test_a_damaged_picture_keeps_its_row(gallery, given, photos):
    (photos / "a.jpg").write_bytes(b"no picture")
    assert counts(gallery.import_embeddings(given))[1:3] == (3, 0)
    assert gallery.index().unchanged == 3


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: np.save(folder / "image_features.npy", unit(3, DIM + 1)), "import-dim"),
        (lambda folder: np.save(folder / "image_features.npy", unit(2, DIM)), "import-counts"),
        (lambda folder: np.save(folder / "text_features.npy", 0 * unit(3, DIM)), "import-zero"),
        (lambda folder: write_folder(folder, unit(0, DIM), [], [], unit(0, DIM)), "import-counts"),
    ],
)
def test_bad_input_leaves_no_trace(gallery, given, spoil, code):
    spoil(given)
    with pytest.raises(BadInput) as caught:
        gallery.import_embeddings(given)
    assert caught.value.code == code
    assert not gallery.home.exists()


def test_the_last_row_is_checked_before_the_first_is_written(gallery, given, monkeypatch):
    monkeypatch.setattr(importer, "BATCH_ROWS", 1)
    images = unit(3, DIM)
    images[2] = np.nan
    np.save(given / "image_features.npy", images)
    with pytest.raises(BadInput, match=r"image_features\.npy, row 2 "):
        gallery.import_embeddings(given)
    assert not gallery.home.exists()


def test_no_rows_at_all(gallery, tmp_path):
    write_folder(tmp_path / "x", unit(0, DIM), [])
    with pytest.raises(BadInput, match="no rows"):
        gallery.import_embeddings(tmp_path / "x")


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"model": "tiny", "dim": 8}'])
def test_a_model_json_of_another_program_says_nothing(photos, given, text):
    (given / "model.json").write_text(text)
    with pytest.raises(MissingModel, match="--model NAME"):
        Gallery.open(photos).import_embeddings(given)


@pytest.mark.parametrize(
    ("asked", "code"), [(None, "import-model-unnamed"), ("ViT-B-32", "import-model-unknown")]
)
def test_a_model_that_is_not_known_is_named(photos, given, asked, code):
    with pytest.raises(MissingModel) as caught:
        Gallery.open(photos, model=asked).import_embeddings(given)
    assert caught.value.code == code
    assert "models" in str(caught.value)
