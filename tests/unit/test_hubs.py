"""Holding hubs back."""

import numpy as np
import pytest

from soutu.query.hubs import ALPHA, GROWTH, MOST, SKEWED, Hubs, corrected, shift, strength
from soutu.query.standing import Level, Reference
from tests.store_samples import unit

CENTRE = unit(1, 8, seed=1)[0] * np.float32(0.4)


def reference(skewness: float) -> Reference:
    return Reference("some", 100, (Level(100, 0.3, 0.1),), skewness, CENTRE)


@pytest.mark.parametrize(
    ("skewness", "when", "expected"),
    [
        (SKEWED, "auto", ALPHA),
        (SKEWED - 0.01, "auto", 0),
        (0.0, "on", ALPHA),
        (99.0, "off", 0),
        (2 * SKEWED, "auto", ALPHA + GROWTH),
        (3 * SKEWED, "on", ALPHA + GROWTH * np.log2(3)),
        (99.0, "auto", MOST),
    ],
)
def test_it_is_done_where_hubs_rule_or_as_the_settings_say(skewness, when, expected):
    assert strength(reference(skewness), when) == pytest.approx(expected, abs=5e-4)


def test_what_was_tuned_counts_whatever_the_skewness():
    tuned = Hubs(0.7, 2.0, growth=0.0)
    assert [strength(reference(s), "auto", tuned) for s in (1.9, 2.0, 99.0)] == [0.0, 0.7, 0.7]
    assert strength(reference(4.0), "auto", Hubs(0.1, 0.0)) == pytest.approx(0.1 + 2 * GROWTH)


def test_nothing_is_corrected_in_a_gallery_that_was_not_measured():
    assert strength(None, "on") == 0
    assert shift(None, "on") is None
    query = unit(1, 8)[0]
    assert corrected(query, None, 0.5) is query


def test_scores_lose_what_the_picture_has_with_all_texts():
    query, images = unit(1, 8, seed=2)[0], unit(20, 8, seed=3)
    bank = unit(30, 8, seed=4)
    known = Reference("some", 20, (), 9.0, bank.mean(axis=0))
    expected = images @ query - 0.5 * (images @ bank.T).mean(axis=1)
    assert np.allclose(images @ corrected(query, known, 0.5), expected, atol=1e-6)


def test_the_shift_is_what_a_query_loses():
    known = reference(SKEWED)
    query = unit(1, 8, seed=5)[0]
    moved = shift(known, "auto")
    assert moved is not None
    assert moved.dtype == np.float32
    assert np.allclose(query - moved, corrected(query, known, ALPHA), atol=1e-7)
