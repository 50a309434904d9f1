"""Searching both ways over any store."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from soutu.errors import BadQuery
from soutu.models.bundle import read_bundle
from soutu.models.onnx import OnnxEncoder
from soutu.query.expansion import ExpanderPipeline, RuleExpander
from soutu.query.parser import parse_query
from soutu.search.searcher import Searcher, SearchParams
from soutu.store.memory import ArrayStore
from soutu.types import Variant
from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")

COUNT = 12


@pytest.fixture
def encoder(tmp_path):
    return OnnxEncoder(read_bundle(write_bundle(tmp_path / "m")), "cpu")


@pytest.fixture
def store(encoder):
    images = encoder.encode_images([picture(i) for i in range(COUNT)])
    texts = [f"caption {'abcdefghijkl'[i]}" for i in range(COUNT)]
    paths = [f"images/{i:03d}.jpg" for i in range(COUNT)]
    return ArrayStore(images, encoder.encode_texts(texts), paths, texts, encoder.info)


def test_text_finds_the_nearest_images(encoder, store):
    result = Searcher(encoder, store).search("cat", k=5)
    scores = store.image_vectors(range(COUNT)) @ encoder.encode_texts(["cat"])[0]
    best = np.argsort(-scores)[:5]
    assert [h.path for h in result.hits] == [f"images/{i:03d}.jpg" for i in best]
    assert [h.rank for h in result.hits] == [1, 2, 3, 4, 5]
    assert np.allclose([h.score for h in result.hits], scores[best], atol=1e-6)
    assert result.hits[0].caption.startswith("caption")
    assert (result.target, result.agreement) == ("images", pytest.approx(1, abs=1e-6))


def test_an_expanded_query_searches_the_mean_of_all_its_variants(encoder, store):
    rules = RuleExpander({"猫": [Variant("gray cat", 2.0, "mine")]})
    result = Searcher(encoder, store, rules).search(" 猫 ", k=3)
    vectors = encoder.encode_texts(["猫", "gray cat"]).astype(np.float64)
    mean = (vectors[0] + 2 * vectors[1]) / 3
    assert np.allclose(result.vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert result.agreement == pytest.approx(np.linalg.norm(mean), abs=1e-6)
    assert [(v.text, v.weight) for v in result.variants] == [("猫", 1.0), ("gray cat", 2.0)]
    assert result.query.raw == " 猫 "


@pytest.mark.parametrize("fusion", ["mean", "auto"])
@pytest.mark.parametrize(
    "asking",
    [SearchParams(), SearchParams(expand=False), SearchParams(variants=(Variant("gray cat"),))],
)
def test_what_a_search_will_encode_is_known_before(encoder, store, fusion, asking, monkeypatch):
    rules = RuleExpander({"猫": [Variant("gray cat", 2.0, "mine"), Variant("kitten")]})
    searcher = Searcher(encoder, store, ExpanderPipeline((rules,)), fusion=fusion)
    query = parse_query("猫 + 2:snow - 水")
    foreseen, asked = searcher.prepare(query, asking).texts, []
    real = encoder.encode_texts
    monkeypatch.setattr(encoder, "encode_texts", lambda texts: asked.append(texts) or real(texts))
    found = searcher.search_query(query, asking)
    assert [foreseen] == asked
    assert foreseen == [one.text for one in found.variants if not one.unused]
    with pytest.raises(BadQuery):
        searcher.prepare(query, SearchParams(variants=(Variant("x", term=3),)))


def test_whether_expansion_is_local_is_known_before(encoder, store):
    rules = RuleExpander({"猫": [Variant("gray cat")]})
    assert Searcher(encoder, store, ExpanderPipeline((rules,))).expands_locally
    remote = Searcher(encoder, store, ExpanderPipeline((), (rules,)))
    assert not remote.expands_locally
    assert remote.prepare(parse_query("猫"), SearchParams(expand=False)).texts == ["猫"]


def test_a_batch_is_encoded_at_once_and_answers_as_one_by_one(encoder, store, monkeypatch):
    searcher = Searcher(encoder, store)
    queries = [parse_query(text) for text in ("cat", "snow", "cat + snow", "2:cat - dog")]
    single = [searcher.search_query(query, SearchParams(4)) for query in queries]
    calls, real = [], encoder.encode_texts
    monkeypatch.setattr(encoder, "encode_texts", lambda texts: calls.append(texts) or real(texts))
    batch = searcher.run_batch([searcher.prepare(query, SearchParams(4)) for query in queries])
    assert calls == [["cat", "snow", "dog"]]
    for one, other in zip(single, batch, strict=True):
        assert [hit.id for hit in one] == [hit.id for hit in other]
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-5)


def test_an_image_finds_itself_and_its_caption_ranking(encoder, store):
    searcher = Searcher(encoder, store)
    assert (
        searcher.search_by_image(picture(7), "x.jpg", SearchParams(1)).hits[0].path
        == "images/007.jpg"
    )
    result = searcher.captions(picture(7), "x.jpg", k=4)
    scores = encoder.encode_texts([f"caption {'abcdefghijkl'[i]}" for i in range(COUNT)])
    scores = scores @ encoder.encode_images([picture(7)])[0]
    best = np.argsort(-scores)[:4]
    assert [h.caption for h in result.hits] == [f"caption {'abcdefghijkl'[i]}" for i in best]
    assert [h.path for h in result.hits] == [f"images/{i:03d}.jpg" for i in best]
    assert result.target == "captions"
    assert result.query.terms[0].kind == "image"


def test_k_beyond_the_gallery_gives_all(encoder, store):
    assert len(Searcher(encoder, store).search("cat", k=1000).hits) == COUNT


@pytest.mark.parametrize("text", ["", "  ", "\t\n", "\u3000"])
def test_an_empty_query_is_an_error(encoder, store, text):
    with pytest.raises(BadQuery, match="empty"):
        Searcher(encoder, store).search(text)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_an_error(encoder, store, k):
    with pytest.raises(BadQuery, match=str(k)):
        Searcher(encoder, store).search("cat", k=k)
    with pytest.raises(BadQuery):
        Searcher(encoder, store).captions(picture(1), "x", k=k)


def test_the_same_search_gives_the_same_answer(encoder, store):
    first, again = (Searcher(encoder, store).search("gray cat", k=COUNT) for _ in range(2))
    assert first.hits == again.hits


def test_saved_arrays_refuse_a_filter():
    from soutu.errors import BadQuery
    from soutu.store.memory import ArrayStore
    from soutu.types import Compare
    from tests.store_samples import DIM, card, unit

    store = ArrayStore(unit(2, DIM), unit(2, DIM), ("a", "b"), ("x", "y"), card())
    with pytest.raises(BadQuery, match="soutu index FOLDER"):
        store.search_images(unit(DIM), 1, Compare("width", ">", 1))


def test_terms_are_weighed_against_each_other_not_their_variants(encoder, store):
    rules = RuleExpander({"猫": (Variant("cat", 1.0, "x"), Variant("gray cat", 1.0, "x"))})
    result = Searcher(encoder, store, rules).search("2:猫 + dog - tree", k=3)
    cat = encoder.encode_texts(["猫", "cat", "gray cat"]).mean(axis=0)
    dog, tree = encoder.encode_texts(["dog", "tree"])
    expected = 2 * cat / np.linalg.norm(cat) + dog - tree
    np.testing.assert_allclose(result.vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert [(v.text, v.term) for v in result.variants] == [
        ("猫", 0), ("cat", 0), ("gray cat", 0), ("dog", 1), ("tree", 2),
    ]  # fmt: skip
    assert [term.weight for term in result.query.terms] == [2, 1, -1]


def test_pictures_are_terms(encoder, store):
    searcher = Searcher(encoder, store, open_image=lambda path: picture(int(path[2:])))
    result = searcher.search("./7 + cat", k=3)
    both = encoder.encode_images([picture(7)])[0] + encoder.encode_texts(["cat"])[0]
    np.testing.assert_allclose(result.vector, both / np.linalg.norm(both), atol=1e-6)
    with pytest.raises(BadQuery) as told:
        Searcher(encoder, store).search("./7")
    assert told.value.code == "query-no-pictures"


def test_terms_that_cancel_are_told(encoder, store):
    with pytest.raises(BadQuery) as told:
        Searcher(encoder, store).search("cat - cat")
    assert told.value.code == "query-cancels"


def test_auto_searches_what_the_model_reads_and_tells_the_rest(encoder, store):
    rules = RuleExpander({"猫": [Variant("cat", 1.0, "mine")]})
    card = replace(encoder.info, languages=("en",))
    english = SimpleNamespace(
        info=card, encode_texts=encoder.encode_texts, encode_images=encoder.encode_images
    )
    result = Searcher(english, store, rules, fusion="auto").search("猫", k=3)
    np.testing.assert_allclose(result.vector, encoder.encode_texts(["cat"])[0], atol=1e-6)
    assert [(v.text, v.unused) for v in result.variants] == [("猫", "not-read"), ("cat", "")]
    assert result.fusion == "auto"
    everything = Searcher(english, store, rules, fusion="mean").search("猫", k=3)
    assert [v.unused for v in everything.variants] == ["", ""]
