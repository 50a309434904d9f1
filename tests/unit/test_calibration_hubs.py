"""Holding hubs back."""

import numpy as np
import pytest

from soutu.search.calibration import (
    ALPHA,
    GROWTH,
    MAX_ALPHA,
    SKEWNESS_THRESHOLD,
    BaselineLevel,
    HubCorrection,
    ScoreBaseline,
    correct_query,
    correction_alpha,
    query_offset,
)
from tests.store_samples import unit

CENTRE = unit(1, 8, seed=1)[0] * np.float32(0.4)


def reference(skewness: float) -> ScoreBaseline:
    return ScoreBaseline("some", 100, (BaselineLevel(100, 0.3, 0.1),), skewness, CENTRE)


@pytest.mark.parametrize(
    ("skewness", "when", "expected"),
    [
        (SKEWNESS_THRESHOLD, "auto", ALPHA),
        (SKEWNESS_THRESHOLD - 0.01, "auto", 0),
        (0.0, "on", ALPHA),
        (99.0, "off", 0),
        (2 * SKEWNESS_THRESHOLD, "auto", ALPHA + GROWTH),
        (3 * SKEWNESS_THRESHOLD, "on", ALPHA + GROWTH * np.log2(3)),
        (99.0, "auto", MAX_ALPHA),
    ],
)
def test_it_is_done_where_hubs_rule_or_as_the_settings_say(skewness, when, expected):
    assert correction_alpha(reference(skewness), when) == pytest.approx(expected, abs=5e-4)


def test_what_was_tuned_counts_whatever_the_skewness():
    tuned = HubCorrection(0.7, 2.0, growth=0.0)
    assert [correction_alpha(reference(s), "auto", tuned) for s in (1.9, 2.0, 99.0)] == [
        0.0,
        0.7,
        0.7,
    ]
    assert correction_alpha(reference(4.0), "auto", HubCorrection(0.1, 0.0)) == pytest.approx(
        0.1 + 2 * GROWTH
    )


def test_nothing_is_corrected_in_a_gallery_that_was_not_measured():
    assert correction_alpha(None, "on") == 0
    assert query_offset(None, "on") is None
    query = unit(1, 8)[0]
    assert correct_query(query, None, 0.5) is query


def test_scores_lose_what_the_picture_has_with_all_texts():
    query, images = unit(1, 8, seed=2)[0], unit(20, 8, seed=3)
    bank = unit(30, 8, seed=4)
    known = ScoreBaseline("some", 20, (), 9.0, bank.mean(axis=0))
    expected = images @ query - 0.5 * (images @ bank.T).mean(axis=1)
    assert np.allclose(images @ correct_query(query, known, 0.5), expected, atol=1e-6)


def test_the_shift_is_what_a_query_loses():
    known = reference(SKEWNESS_THRESHOLD)
    query = unit(1, 8, seed=5)[0]
    moved = query_offset(known, "auto")
    assert moved is not None
    assert moved.dtype == np.float32
    assert np.allclose(query - moved, correct_query(query, known, ALPHA), atol=1e-7)
