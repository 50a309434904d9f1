"""Searches page by page, by indexed pictures, and with variants that a person chose."""

import json

import numpy as np
import pytest
from PIL import Image

from soutu.errors import BadQuery
from soutu.gallery import Gallery
from soutu.query.parser import INDEXED, parse_query
from soutu.search.searcher import SearchParams
from soutu.types import Query, Term, Variant
from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(45):
        Image.fromarray(picture(number)).save(folder / f"{number:02}.png")
    lines = [f"{number:02}.png,灰猫 {number}\n" for number in range(0, 45, 7)]
    captions = folder / "captions.csv"
    captions.write_text("image_path,caption\n" + "".join(lines), "utf-8")
    settings = {"correction": "on"}
    with Gallery.open(folder, model=str(write_bundle(tmp_path / "m")), settings=settings) as opened:
        opened.index(captions)
        yield opened


def shown(result):
    return [(hit.rank, hit.id, hit.score, hit.cosine, hit.confidence) for hit in result.hits]


@pytest.mark.parametrize("text", ["灰猫", "cat - dog", "a red car"])
def test_pages_are_parts_of_one_ranking(gallery, text):
    query = parse_query(text)
    whole = gallery.search_query(query, SearchParams(45))
    pages = [gallery.search_query(query, SearchParams(10, offset)) for offset in range(0, 50, 10)]
    assert [one for page in pages for one in shown(page)] == shown(whole)
    assert len({page.confidence for page in pages}) == 1
    assert len(gallery.search_query(query, SearchParams(10, 40)).hits) == 5
    assert gallery.search_query(query, SearchParams(10, 45)).hits == ()


def test_pages_are_one_search_in_the_log(gallery):
    query = parse_query("cat")
    for offset in (0, 5, 10):
        gallery.search_query(query, SearchParams(5, offset))
    assert len(gallery.search_log.path.read_text("utf-8").splitlines()) == 1


def test_an_indexed_picture_is_its_own_nearest(gallery):
    query = Query("", (Term(INDEXED, "07.png"),))
    result = gallery.search_query(query, SearchParams(3))
    assert result.hits[0].path == "07.png"
    assert result.hits[0].cosine == pytest.approx(1, abs=1e-5)
    by_file = gallery.search(image=gallery.root / "07.png", k=3)
    assert [hit.path for hit in by_file.hits] == [hit.path for hit in result.hits]
    captions = gallery.captions_of("07.png", k=2)
    assert [hit.caption for hit in captions.hits] == [
        hit.caption for hit in gallery.captions(gallery.root / "07.png", k=2).hits
    ]


@pytest.mark.parametrize("path", ["08.jpg", "../07.png", "/etc/passwd", "", "*", "07.png\0"])
def test_another_file_is_none(gallery, path):
    with pytest.raises(BadQuery) as caught:
        gallery.search_query(Query("", (Term(INDEXED, path),)), SearchParams())
    assert caught.value.code == "query-not-indexed"
    with pytest.raises(BadQuery):
        gallery.captions_of(path)


def test_terms_are_mixed(gallery):
    terms = Term("text", "cat"), Term(INDEXED, "03.png", 0.5), Term("text", "dog", -1.0)
    result = gallery.search_query(Query("mixed", terms), SearchParams(5))
    assert len(result.hits) == 5
    assert result.confidence is None


def test_what_a_person_chose_is_searched_for(gallery):
    asked = gallery.search_query(parse_query("灰猫"), SearchParams(45))
    texts = [variant.text for variant in asked.variants]
    assert "gray cat" in texts
    wanted = Variant("gray cat", 1.0), Variant("something else", 0.5)
    found = gallery.search_query(parse_query("灰猫"), SearchParams(45, variants=wanted))
    used = {v.text: (v.weight, v.source) for v in found.variants if not v.unused}
    assert used["gray cat"][0] == 1.0
    assert used["something else"] == (0.5, "chosen")
    off = [v for v in found.variants if v.unused]
    assert {v.text for v in off} == set(texts) - {"gray cat"}
    vectors = gallery.encoder.encode_texts(["gray cat", "something else"])
    mean = vectors[0] + 0.5 * vectors[1]
    assert np.allclose(found.vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert found.fusion == "chosen"


def test_to_choose_what_is_searched_for_anyway_changes_nothing(gallery):
    asked = gallery.search_query(parse_query("灰猫"), SearchParams(45))
    same = tuple(v for v in asked.variants if not v.unused)
    found = gallery.search_query(parse_query("灰猫"), SearchParams(45, variants=same))
    assert shown(found) == shown(asked)


def test_a_term_of_which_nothing_is_chosen_keeps_its_own_text(gallery):
    query = parse_query("灰猫 + dog")
    found = gallery.search_query(query, SearchParams(5, variants=(Variant("cat", 1.0, term=0),)))
    assert [(v.term, v.text) for v in found.variants if not v.unused] == [(1, "dog"), (0, "cat")]


@pytest.mark.parametrize(
    "wrong", [Variant("x", 0.0), Variant("x", -1.0), Variant("x", 101.0), Variant(" "),
              Variant("x", term=1), Variant("x", term=-1), Variant("x", float("nan"))]
)  # fmt: skip
def test_variants_that_are_none(gallery, wrong):
    with pytest.raises(BadQuery):
        gallery.search_query(parse_query("cat"), SearchParams(variants=(wrong,)))


def test_without_expansion(gallery):
    found = gallery.search_query(parse_query("灰猫"), SearchParams(5, expand=False))
    assert [v.text for v in found.variants] == ["灰猫"]
    line = json.loads(gallery.search_log.path.read_text("utf-8").splitlines()[-1])
    assert line["settings"]["expand"] is False


def test_all_of_it_replays(gallery):
    gallery.search_query(parse_query("灰猫"), SearchParams(5))
    gallery.search_query(parse_query("灰猫"), SearchParams(5, expand=False, where="width > 1"))
    wanted = Variant("gray cat", 0.5), Variant("something else", 2.0)
    gallery.search_query(parse_query("灰猫"), SearchParams(5, variants=wanted, where="name != 'x'"))
    gallery.search_query(Query("@07.png", (Term(INDEXED, "07.png"),)), SearchParams(5))
    gallery.search_query(
        Query("m", (Term("text", "cat"), Term(INDEXED, "07.png", -0.5))), SearchParams(5)
    )
    gallery.captions_of("07.png")
    done = gallery.replay()
    assert (done.searches, done.same, dict(done.left_out)) == (6, 6, {})
    assert done.drift == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("asking", [SearchParams(0), SearchParams(5, -1)])
def test_numbers_that_are_none(gallery, asking):
    with pytest.raises(BadQuery):
        gallery.search_query(parse_query("cat"), asking)
