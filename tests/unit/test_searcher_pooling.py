"""Mean pooling: formula, agreement, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soutu.errors import BadQuery
from soutu.search.searcher import EQUAL_SHARES, TOWER_SHARES, mean_pool, pool_variants
from soutu.types import Variant


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(
    rows=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_equal_to_the_formula(rows, seed, data):
    vectors = unit(rows, 32, seed)
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=rows, max_size=rows))
    pooled, agreement = mean_pool(vectors, weights)
    mean = sum(w * v.astype(np.float64) for w, v in zip(weights, vectors, strict=True))
    mean = mean / sum(weights)
    assert np.allclose(pooled, mean / np.linalg.norm(mean), atol=1e-6)
    assert agreement == pytest.approx(np.linalg.norm(mean), abs=1e-6)
    pairwise = (
        sum(
            a * b * float(x @ y)
            for a, x in zip(weights, vectors, strict=True)
            for b, y in zip(weights, vectors, strict=True)
        )
        / sum(weights) ** 2
    )
    assert agreement**2 == pytest.approx(pairwise, abs=1e-5)


def test_ranks_as_the_mean_of_the_scores():
    variants, images = unit(4, 16, 1), unit(200, 16, 2)
    pooled, _ = mean_pool(variants, [1, 1, 1, 1])
    assert np.array_equal(np.argsort(-images @ pooled), np.argsort(-(images @ variants.T).mean(1)))


def test_one_variant_is_itself_and_agrees_fully():
    vectors = unit(1, 8, 3)
    pooled, agreement = mean_pool(vectors, [2.5])
    assert np.allclose(pooled, vectors[0], atol=1e-7)
    assert agreement == pytest.approx(1, abs=1e-6)


def test_variants_that_cancel_are_an_error():
    vector = unit(1, 8, 4)
    with pytest.raises(BadQuery, match="cancel"):
        mean_pool(np.concatenate([vector, -vector]), [1, 1])


SAID = [Variant("灰猫"), Variant("gray cat", 1.0, "x"), Variant("grey cat", 0.5, "x")]


def test_mean_is_the_original_recipe():
    vectors = unit(3, 16, 7).astype(np.float64)
    mean = np.asarray([1, 1, 0.5]) @ vectors
    found, _ = pool_variants(unit(3, 16, 7), SAID)
    assert np.allclose(found, mean / np.linalg.norm(mean), atol=1e-6)


def test_balanced_gives_each_language_half():
    vectors = unit(3, 16, 7).astype(np.float64)
    english = (vectors[1] + 0.5 * vectors[2]) / 1.5
    expected = vectors[0] + english / np.linalg.norm(english)
    found, agreement = pool_variants(unit(3, 16, 7), SAID, EQUAL_SHARES)
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    assert agreement == pytest.approx(pool_variants(unit(3, 16, 7), SAID)[1])


@pytest.mark.parametrize("shares", [None, EQUAL_SHARES, TOWER_SHARES])
def test_one_variant_alone_stays_itself(shares):
    found, agreement = pool_variants(unit(1, 16, 7), SAID[:1], shares)
    assert np.allclose(found, unit(1, 16, 7)[0], atol=1e-6)
    assert agreement == pytest.approx(1, abs=1e-6)
