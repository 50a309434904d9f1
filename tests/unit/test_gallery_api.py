"""The Python API: results as sequences, queries of all kinds, vectors, and plugging in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import soutu
from soutu import BadInput, BadQuery, Gallery, Hit
from soutu.images.scan import demo_data
from soutu.types import Variant


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("api") / "photos"
    root.mkdir()
    for file in sorted((demo_data() / "images").iterdir())[:12]:
        shutil.copy(file, root)
    with Gallery.open(root, model="tiny") as gallery:
        gallery.index()
    return root


@pytest.fixture
def gallery(folder):
    with Gallery.open(folder) as gallery:
        yield gallery


def test_a_result_is_a_sequence_of_hits(gallery):
    result = gallery.search("灰猫", k=4)
    assert len(result) == 4
    assert [hit.rank for hit in result] == [1, 2, 3, 4]
    assert result[0] is result.hits[0]
    assert result[1:3] == result.hits[1:3]
    assert isinstance(result[-1], Hit)


def test_results_compare_by_identity_and_hash(gallery):
    first, second = gallery.search("灰猫"), gallery.search("灰猫")
    assert first == first
    assert first != second
    assert len({first, second}) == 2


def test_a_result_shows_itself_briefly(gallery):
    assert len(repr(gallery.search("灰猫"))) < 200
    assert "灰猫" in repr(gallery.search("灰猫"))
    assert str(gallery.root) in repr(gallery)


def test_a_result_becomes_json_and_a_data_frame(gallery):
    result = gallery.search("灰猫", k=3)
    known = json.loads(json.dumps(result.to_dict()))
    assert [hit["path"] for hit in known["hits"]] == [hit.path for hit in result]
    assert known["query"] == "灰猫"
    pandas = pytest.importorskip("pandas", reason="a data frame needs pandas")
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["path"]) == [hit.path for hit in result]


def test_a_notebook_shows_thumbnails(gallery):
    html = gallery.search("<灰猫>", k=2)._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 2
    assert "<灰猫>" not in html


def test_a_picture_is_found_in_each_form(gallery):
    path = sorted(gallery.root.glob("*.*"))[3]
    rgb = np.asarray(Image.open(path).convert("RGB"))
    for query in (path, Image.open(path), rgb):
        assert gallery.search(query, k=1)[0].path == path.name
    assert gallery.search(image=str(path), k=1)[0].path == path.name


def test_a_vector_is_a_query(gallery):
    paths, vectors = gallery.vectors()
    for index in (0, 5, 11):
        result = gallery.search(vectors[index], k=1)
        assert result[0].path == paths[index]
        assert result[0].score == pytest.approx(1, abs=1e-5)
    assert gallery.search(3 * vectors[0], k=1)[0].score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "vector", [np.zeros(512, np.float32), np.ones(7, np.float32), np.full(512, np.nan)]
)
def test_a_vector_that_is_none_is_refused(gallery, vector):
    with pytest.raises(BadQuery):
        gallery.search(vector)


def test_an_array_that_is_no_picture_is_refused(gallery):
    with pytest.raises(BadInput):
        gallery.search(np.zeros((4, 4), np.uint8))


def test_a_list_is_searched_in_one_batch(gallery, monkeypatch):
    path = sorted(gallery.root.glob("*.*"))[2]
    queries = ["灰猫", "a red car", path, gallery.vectors()[1][0], "灰猫 + 雪地"]
    single = [gallery.search(query, k=3) for query in queries]
    calls, real = [], gallery.encoder.encode_texts
    monkeypatch.setattr(
        gallery.encoder, "encode_texts", lambda texts: calls.append(texts) or real(texts)
    )
    batch = gallery.search(queries, k=3)
    assert len(calls) == 1
    assert [[hit.path for hit in r] for r in batch] == [[hit.path for hit in r] for r in single]
    assert gallery.search([]) == []


def test_each_search_of_a_list_is_logged_and_replays(gallery):
    before = len(gallery.search_log.path.read_text("utf-8").splitlines())
    gallery.search(["灰猫", np.asarray(gallery.vectors()[1][0])], k=2)
    assert len(gallery.search_log.path.read_text("utf-8").splitlines()) == before + 2
    replayed = gallery.replay()
    assert replayed.same == replayed.searches


def test_texts_and_images_are_encoded(gallery):
    paths, vectors = gallery.vectors()
    images = gallery.encode_images([gallery.root / paths[0], str(gallery.root / paths[1])])
    assert (np.diagonal(images @ vectors[:2].T) > 0.999).all()
    assert gallery.encode_texts(["a", "b"]).shape == (2, gallery.encoder.info.dim)


def test_pictures_are_added_and_removed_one_by_one(tmp_path):
    files = sorted((demo_data() / "images").iterdir())[:4]
    for file in files[:3]:
        shutil.copy(file, tmp_path)
    with Gallery.open(tmp_path, model="tiny") as gallery:
        gallery.index()
        shutil.copy(files[3], tmp_path)
        (tmp_path / files[0].name).unlink()  # which a look at the whole folder would notice
        report = gallery.add([files[3].name])
        assert (report.encoded, report.removed) == (1, 0)
        assert len(gallery.vectors()[0]) == 4
        assert gallery.remove([tmp_path / files[1].name, "absent.jpg"]) == 1
        assert files[1].name not in gallery.vectors()[0]
        assert gallery.index().files == 3
        for path in ("../x.jpg", "absent.jpg", Path("/etc/passwd")):
            with pytest.raises(BadInput):
                gallery.add([path])


class Turned:
    """Another encoder: the vectors of ``tiny`` with their sign changed."""

    def __init__(self, inner):
        self._inner = inner
        self.info = inner.info
        self.batch, self.max_concurrency = inner.batch, inner.max_concurrency

    def encode_texts(self, texts):
        return -self._inner.encode_texts(texts)

    def encode_images(self, images):
        return -self._inner.encode_images(images)


class Always:
    name = "always"

    def expand(self, text):
        return [Variant("a red car", 1.0, "always")]


def test_an_encoder_and_expanders_of_ones_own(folder, tmp_path):
    with Gallery.open(folder) as plain:
        inner, vectors = plain.encoder, plain.vectors()[1]
    root = Path(shutil.copytree(folder, tmp_path / "own", ignore=shutil.ignore_patterns(".soutu")))
    with Gallery.open(root, encoder=Turned(inner), expanders=[Always()]) as gallery:
        gallery.index()
        assert np.allclose(gallery.vectors()[1], -vectors, atol=1e-5)
        result = gallery.search("灰猫", k=1)
        assert [v.text for v in result.variants] == ["灰猫", "a red car"]


def test_the_version_and_what_is_lazy():
    assert soutu.__version__.count(".") == 2
    for name in soutu.__all__:
        assert getattr(soutu, name) is not None
    with pytest.raises(AttributeError):
        _ = soutu.nothing
