"""Searches with a minus, and with a word's senses apart, through the searcher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soutu.query.expansion import RuleExpander
from soutu.search.searcher import PENALTY_WEIGHT, PENALTY_Z_SCORE, Searcher, pool_by_sense
from soutu.searchlog.reader import LogRecord, parse_record
from soutu.searchlog.record import Provenance, to_json, to_record
from soutu.searchlog.replay import ReplayState, replay_record
from soutu.types import Variant
from tests.unit.test_baseline import Texts
from tests.unit.test_searcher_confidence import COUNT, local, measure, reference  # noqa: F401


def vectors_of(store):
    return store.image_vectors(list(range(1, COUNT + 1)))


def test_a_minus_penalises_what_is_shown_in_a_measured_gallery(local):  # noqa: F811
    encoder = Texts()
    wanted, unwanted = encoder.encode_texts(["cat", "snow"])
    searcher = Searcher(encoder, measure(local), negatives="penalise")
    result = searcher.search("cat - 2:snow", k=10)
    threshold = 0.5 + PENALTY_Z_SCORE * 0.1
    [taken] = result.penalties
    assert (taken.weight, taken.threshold) == (2 * PENALTY_WEIGHT, pytest.approx(threshold))
    images = vectors_of(local)
    scores = images @ wanted - taken.weight * np.maximum(0, images @ unwanted - threshold)
    assert np.allclose([hit.score for hit in result.hits], np.sort(scores)[::-1][:10], atol=1e-6)
    assert np.allclose(result.vector, wanted, atol=1e-6)
    for hit in result.hits:
        assert hit.cosine == pytest.approx(float(images[hit.id - 1] @ wanted), abs=1e-6)


def test_it_subtracts_where_one_says_so_or_nothing_was_measured(local):  # noqa: F811
    encoder = Texts()
    wanted, unwanted = encoder.encode_texts(["cat", "snow"])
    expected = (wanted - unwanted) / np.linalg.norm(wanted - unwanted)
    unmeasured = Searcher(encoder, local, negatives="penalise").search("cat - snow")
    said = Searcher(encoder, measure(local), negatives="subtract").search("cat - snow")
    for result in (unmeasured, said):
        assert np.allclose(result.vector, expected, atol=1e-6)
        assert result.penalties == ()


def test_senses_are_searched_for_side_by_side(local):  # noqa: F811
    encoder = Texts()
    rule = [Variant("fruit", 1.0, "x:fruit"), Variant("phone", 0.5, "x:phone"), Variant("both")]
    expander = RuleExpander({"apple": rule})
    result = Searcher(encoder, local, expander, fusion="senses").search("apple", k=10)
    apple, fruit, phone, both = encoder.encode_texts(["apple", "fruit", "phone", "both"])
    first, second = apple + fruit + both, apple + 0.5 * phone + both
    vectors = np.stack([v / np.linalg.norm(v) for v in (first, second)])
    assert result.senses is not None
    assert np.allclose(result.senses, vectors, atol=1e-6)
    scores = (vectors_of(local) @ vectors.T).max(axis=1)
    assert np.allclose([hit.score for hit in result.hits], np.sort(scores)[::-1][:10], atol=1e-6)
    assert all(hit.score == pytest.approx(hit.cosine, abs=1e-6) for hit in result.hits)


def test_a_word_of_one_sense_has_one_vector():
    said = [Variant("a"), Variant("b", 1.0, "x:one")]
    vectors = Texts().encode_texts(["a", "b"])
    assert pool_by_sense(vectors, said).shape == (1, vectors.shape[1])


def test_several_terms_keep_no_senses_apart(local):  # noqa: F811
    rule = [Variant("fruit", 1.0, "x:fruit"), Variant("phone", 0.5, "x:phone")]
    searcher = Searcher(Texts(), local, RuleExpander({"apple": rule}), fusion="senses")
    assert searcher.search("apple + snow").senses is None


def test_senses_and_penalties_come_back_from_the_log(local):  # noqa: F811
    rule = [Variant("fruit", 1.0, "x:fruit"), Variant("phone", 0.5, "x:phone")]
    searcher = Searcher(
        Texts(), measure(local), RuleExpander({"apple": rule}), fusion="senses",
        open_image=lambda path: pytest.fail(f"{path} is opened"), negatives="penalise",
    )  # fmt: skip
    for query in ("apple", "cat - snow"):
        result = searcher.search(query, k=10)
        logged = parse_record(to_json(to_record(result)).encode(), "here:1")
        assert isinstance(logged, LogRecord)
        found = searcher.rerun(
            replace(result, hits=(), senses=logged.senses, penalties=logged.penalties)
        )
        assert [(hit.id, hit.score) for hit in found.hits] == [
            (hit.id, hit.score) for hit in result.hits
        ]
        now = ReplayState(
            searcher.encoder.info, local.state(), result.reference, Provenance(), lambda _: []
        )
        told = replay_record(logged, searcher, now)
        assert told.same
        assert told.scores == pytest.approx(0, abs=1e-6)
