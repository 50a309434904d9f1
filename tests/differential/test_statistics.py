"""Intervals and tests against SciPy, or against counting everything."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.evaluation.statistics import FLIPS, holm, intervals, randomisation_test

EIGHTHS = st.integers(-16, 16).map(lambda n: n / 8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=1, max_size=9))
def test_few_pairs_are_counted_exactly(pairs):
    differences = [Fraction(a) - Fraction(b) for a, b in pairs]
    seen = abs(sum(differences))
    swapped = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(pairs))
    ]
    expected = sum(one >= seen for one in swapped) / len(swapped)
    one, other = np.array(pairs).T
    assert randomisation_test(one, other) == pytest.approx(expected, abs=1e-12)
    assert randomisation_test(other, one) == randomisation_test(one, other)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_many_pairs_agree_with_scipy(shift):
    stats = pytest.importorskip("scipy.stats", reason="compared with SciPy")
    rng = np.random.default_rng(3)
    one = rng.random(60)
    other = one - shift * rng.random(60) + 0.2 * rng.standard_normal(60)
    exact = stats.permutation_test(
        (one, other), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=100_000, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    found = randomisation_test(one, other)
    error = 4 * np.sqrt(max(exact * (1 - exact), 1 / FLIPS) / FLIPS)
    assert found == pytest.approx(exact, abs=error + 1e-4)
    assert found >= 1 / (FLIPS + 1), "what was drawn is never proof of the impossible"


def test_equal_runs_do_not_differ():
    values = np.random.default_rng(0).random(500)
    assert randomisation_test(values, values.copy()) == 1.0


def test_intervals_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats", reason="compared with SciPy")
    rng = np.random.default_rng(5)
    table = np.column_stack([rng.random(300), rng.random(300) < 0.8, rng.integers(1, 40, 300)])
    found = intervals(table.astype(float), median=[False, False, True])
    for figure, column, of in zip(found, table.T, (np.mean, np.mean, np.median), strict=True):
        assert figure.value == pytest.approx(of(column))
        peer = stats.bootstrap(
            (column,), of, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        width = peer.high - peer.low
        assert figure.low == pytest.approx(peer.low, abs=0.15 * width)
        assert figure.high == pytest.approx(peer.high, abs=0.15 * width)


def test_an_interval_covers_what_it_promises():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        (figure,) = intervals(rng.random((80, 1)))
        covered += figure.low <= 0.5 <= figure.high
    assert 180 <= covered <= 199


def test_intervals_are_the_same_each_time():
    table = np.random.default_rng(0).random((50, 3))
    assert intervals(table) == intervals(table.copy())
    (lone,) = intervals(np.array([[0.25]]))
    assert (lone.value, lone.low, lone.high) == (0.25, 0.25, 0.25)


def test_holm_as_in_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_rejects_what_stepping_down_rejects(p_values):
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        expected, left = set(), len(p_values)
        for at in sorted(range(len(p_values)), key=lambda at: p_values[at]):
            if p_values[at] * left > level:
                break
            expected.add(at)
            left -= 1
        assert {at for at, p in enumerate(corrected) if p <= level} == expected
    for order in permutations(range(len(p_values))):
        assert holm([p_values[at] for at in order]) == [corrected[at] for at in order]
