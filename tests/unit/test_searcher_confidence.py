"""Searches in a gallery that was measured: confidence, no match, hubs held back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from soutu.search.calibration import (
    ALPHA,
    ANY,
    BASELINE_KEY,
    SKEWNESS_THRESHOLD,
    THIS,
    UNTUNED,
    BaselineLevel,
    Calibration,
    ScoreBaseline,
    Thresholds,
    baseline_to_json,
)
from soutu.search.searcher import Searcher, SearchParams
from soutu.store.base import NewCaption
from soutu.store.memory import ArrayStore
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare
from tests.store_samples import DIM, card, pictures, unit
from tests.unit.test_baseline import Texts

COUNT = 50
CENTRE = unit(1, DIM, seed=9)[0] * np.float32(0.5)


def reference(skewness: float = 0.0) -> ScoreBaseline:
    levels = (BaselineLevel(12, 0.4, 0.1), BaselineLevel(COUNT, 0.5, 0.1))
    return ScoreBaseline("some", COUNT, levels, skewness, CENTRE)


@pytest.fixture
def local(tmp_path):
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as opened:
        with opened.writer() as writer:
            writer.add_images(pictures(COUNT), unit(COUNT, DIM, seed=1))
        yield opened


def measure(store: LocalStore, skewness: float = 0.0) -> LocalStore:
    store.set_meta(BASELINE_KEY + store.info.space, baseline_to_json(reference(skewness)))
    return store


def test_the_best_hit_says_how_sure_the_search_is(local):
    result = Searcher(Texts(), measure(local)).search("cat", k=3)
    standing = (result.hits[0].cosine - 0.5) / 0.1
    assert result.confidence == pytest.approx(ANY.probability(standing, COUNT), abs=1e-5)
    for hit in result.hits:
        expected = THIS.probability((hit.cosine - 0.5) / 0.1, COUNT)
        assert hit.confidence == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("confidence", "in_captions", "verdict"),
    [(0.19, False, "absent"), (0.2, False, "unsure"), (0.59, False, "unsure"),
     (0.6, False, "present"), (0.0, True, "unsure"), (0.7, True, "present"), (None, True, None)],
)  # fmt: skip
def test_a_confidence_means_one_of_three_things(confidence, in_captions, verdict):
    thresholds = Thresholds(0.2, 0.6)
    assert thresholds.verdict(confidence, in_captions=in_captions) == verdict


def test_a_search_is_not_sure_between_the_thresholds_of_its_model(local):
    searcher = Searcher(Texts(), measure(local))
    p = searcher.search("cat").confidence
    for thresholds, verdict in (
        (Thresholds(0.0, p), "present"),
        (Thresholds(p, p + 0.01), "unsure"),
        (Thresholds(p + 0.01, 1.0), "absent"),
    ):
        tuned = replace(UNTUNED, thresholds=thresholds)
        assert replace(searcher, tuned=tuned).search("cat").verdict == verdict
        again = replace(searcher, tuned=tuned)
        assert again.rerun(again.search("cat")).verdict == verdict


def test_what_a_caption_contains_is_never_called_absent(tmp_path):
    never = replace(UNTUNED, thresholds=Thresholds(1.0, 1.0))
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as store:
        with store.writer() as writer:
            writer.add_images(pictures(COUNT), unit(COUNT, DIM, seed=1))
            writer.replace_captions([NewCaption(1, "a cat on a table")])
        searcher = Searcher(Texts(), measure(store), hybrid="auto", tuned=never)
        assert searcher.search("cat").verdict == "unsure"
        assert searcher.search("rocket").verdict == "absent"


def test_a_sentence_counts_as_the_calibration_says(local):
    calibration = Calibration(1.0, 0.0, 0.0, -2.0)
    tuned = replace(UNTUNED, any=calibration, this=calibration)
    searcher = Searcher(Texts(), measure(local), tuned=tuned)
    for text, share in (("cat", 0.0), ("a cat on the table", 0.5),
                        ("a cat that sits on the table", 1.0), ("cat + a cat on the table", 0.25),
                        ("一只灰猫蹲在长长的树干上", 1.0)):  # fmt: skip
        result = searcher.search(text, k=3)
        for hit in result.hits:
            standing = (hit.cosine - 0.5) / 0.1
            expected = 1 / (1 + math.exp(2 * share - standing))
            assert hit.confidence == pytest.approx(expected, abs=1e-4)


def test_nothing_is_said_where_nothing_was_measured_and_of_pictures(local):
    plain = Searcher(Texts(), local).search("cat", min_confidence=0.99)
    assert (plain.confidence, plain.hits[0].confidence) == (None, None)
    assert plain.verdict is None
    assert plain.hits  # what is not known drops nothing
    arrays = ArrayStore(unit(3, DIM), unit(3, DIM), ["a", "b", "c"], ["1", "2", "3"], card())
    assert Searcher(Texts(), arrays).search("cat").confidence is None

    class Pictures(Texts):
        def encode_images(self, images):
            return unit(len(images), DIM, seed=3)

    image = np.zeros((2, 2, 3), np.uint8)
    searcher = Searcher(Pictures(), measure(local, SKEWNESS_THRESHOLD), correction="on")
    found = searcher.search_by_image(image, "x.jpg", SearchParams())
    assert (found.confidence, found.correction) == (None, 0.0)
    assert found.hits[0].score == found.hits[0].cosine


def test_below_the_least_confidence_nothing_matches(local):
    searcher = Searcher(Texts(), measure(local))
    sure = searcher.search("cat").confidence
    assert sure is not None
    assert searcher.search("cat", min_confidence=sure - 0.01).hits
    none = searcher.search("cat", min_confidence=sure + 0.01)
    assert none.hits == ()
    assert (none.confidence, none.min_confidence) == (sure, pytest.approx(sure + 0.01))


def test_among_those_a_filter_admits_the_yardstick_is_shorter(local):
    searcher = Searcher(Texts(), measure(local))
    few = [f"图/{i:04d}.jpg" for i in range(12)]
    result = searcher.search("cat", k=1, where=" or ".join(f"path = '{path}'" for path in few))
    standing = (result.hits[0].cosine - 0.4) / 0.1
    assert result.confidence == pytest.approx(ANY.probability(standing, 12), abs=1e-5)


def test_corrected_scores_rank_and_plain_cosines_are_told(local):
    encoder = Texts()
    query = encoder.encode_texts(["cat"])[0]
    vectors = local.image_vectors([row.id for row in local.images(range(1, COUNT + 1))])
    result = Searcher(encoder, measure(local, SKEWNESS_THRESHOLD), correction="auto").search(
        "cat", k=COUNT
    )
    assert result.correction == ALPHA
    scores = vectors @ (query - ALPHA * CENTRE)
    assert [hit.path for hit in result.hits] == [f"图/{i:04d}.jpg" for i in np.argsort(-scores)]
    assert np.allclose([hit.score for hit in result.hits], np.sort(scores)[::-1], atol=1e-6)
    order = np.argsort(-scores)
    assert np.allclose([hit.cosine for hit in result.hits], (vectors @ query)[order], atol=1e-6)
    assert np.allclose(result.vector, query, atol=1e-6)


def test_without_hubs_scores_are_cosines(local):
    result = Searcher(Texts(), measure(local, SKEWNESS_THRESHOLD - 1), correction="auto").search(
        "cat"
    )
    assert result.correction == 0
    assert [hit.score for hit in result.hits] == [hit.cosine for hit in result.hits]


def test_a_count_is_of_what_a_search_can_return(local):
    assert local.count_images(Compare("size", "<=", 1000)) == COUNT
    assert local.count_images(Compare("size", ">", 1000)) == 0
