"""How a gallery answers texts in general."""

import numpy as np
import pytest

from soutu.search.calibration import (
    MIN_IMAGES,
    ScoreBaseline,
    baseline_from_json,
    baseline_to_json,
    measure_baseline,
    skewness,
)
from tests.store_samples import unit

DIM = 16


def measured(count: int = 600, images: int | None = None) -> tuple[ScoreBaseline, np.ndarray]:
    vectors, bank = unit(count, DIM, seed=1), unit(50, DIM, seed=2)
    return measure_baseline(vectors, bank, images=images or count, texts="some"), bank @ vectors.T


def test_the_top_level_is_what_the_texts_reach_among_all():
    reference, scores = measured()
    best = scores.max(axis=1)
    top = reference.levels[-1]
    assert (top.images, reference.images, reference.texts) == (600, 600, "some")
    assert top.mean == pytest.approx(best.mean(), abs=1e-6)
    assert top.spread == pytest.approx(best.std(), abs=1e-6)


def test_lower_levels_are_the_first_pictures_each_a_quarter_of_the_next():
    reference, scores = measured()
    assert [level.images for level in reference.levels] == [37, 150, 600]
    for level in reference.levels:
        best = scores[:, : level.images].max(axis=1)
        assert level.mean == pytest.approx(best.mean(), abs=1e-6)


def test_the_mean_of_the_texts_is_kept():
    reference, _ = measured()
    assert np.allclose(reference.centre, unit(50, DIM, seed=2).mean(axis=0), atol=1e-6)


def test_standing_is_in_deviations_of_the_level():
    reference, _ = measured()
    level = reference.levels[-1]
    at = level.mean + 2 * level.spread
    assert reference.z_score(at, 600) == pytest.approx(2, abs=1e-5)
    assert reference.z_score(level.mean, 600) == pytest.approx(0, abs=1e-5)


def test_the_same_cosine_stands_higher_among_fewer():
    reference, _ = measured()
    standings = [reference.z_score(0.6, count) for count in (10, 37, 80, 150, 400, 600, 5000)]
    assert standings == sorted(standings, reverse=True)
    assert len(set(standings)) == len(standings)


def test_between_levels_it_lies_on_a_line_in_log_n():
    reference, _ = measured()
    low, high = reference.levels[-2:]
    middle = round((low.images * high.images) ** 0.5)
    mean, spread = (low.mean + high.mean) / 2, (low.spread + high.spread) / 2
    assert reference.z_score(0.5, middle) == pytest.approx((0.5 - mean) / spread, abs=1e-3)


def test_one_level_serves_for_all_sizes():
    reference, _ = measured(MIN_IMAGES)
    assert len(reference.levels) == 1
    assert reference.z_score(0.5, 10) == reference.z_score(0.5, 10_000)


def test_what_is_kept_comes_back_to_the_bit():
    reference, _ = measured(images=12_345)
    again = baseline_from_json(baseline_to_json(reference))
    assert again.levels == reference.levels
    assert (again.texts, again.images, again.skewness) == ("some", 12_345, reference.skewness)
    assert np.array_equal(again.centre, reference.centre)


def test_skewness_is_that_of_how_often_a_picture_is_the_best():
    """Of ten texts the two that are clearest (the fifth) both have picture 0 as their best."""
    scores = np.zeros((10, 5), np.float32)
    scores[np.arange(10), [0, 0, 1, 2, 3, 4, 1, 2, 3, 4]] = 1
    scores[2:, 0] += 0.3
    counts = np.array([2, 0, 0, 0, 0], float)
    deviation = counts - counts.mean()
    assert skewness(scores) == pytest.approx((deviation**3).mean() / deviation.std() ** 3)


def test_only_texts_whose_best_picture_stands_out_count():
    """Nine texts find next to nothing in picture 0; the clear one finds picture 3."""
    scores = np.full((5, 4), 0.5, np.float32)
    scores[:4] += np.random.default_rng(0).normal(0, 1e-3, (4, 4))
    scores[4] = [0, 0.1, 0, 9]
    one = np.array([0, 0, 0, 1.0]) - 0.25
    assert skewness(scores) == pytest.approx((one**3).mean() / one.std() ** 3, rel=1e-5)


def test_a_gallery_of_equal_pictures_has_a_skewness():
    assert skewness(np.ones((20, 8), np.float32)) == pytest.approx(2.27, abs=0.01)
    assert skewness(np.zeros((5, 1), np.float32)) == 0.0


def test_a_hub_makes_it_high():
    images, bank = unit(1000, DIM, seed=3), unit(400, DIM, seed=4) * 0.3
    bank += unit(1, DIM, seed=5)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    even = skewness(bank @ images.T)
    images[7] = unit(1, DIM, seed=5)
    assert skewness(bank @ images.T) > max(even, 10)
