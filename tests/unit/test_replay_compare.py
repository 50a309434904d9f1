"""Overlap and rank correlation, and by whom a variant was proposed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soutu.searchlog.replay import correlation, differing_sources, kendall, overlap
from soutu.types import Variant


def test_overlap():
    assert overlap([1, 2, 3], [3, 2, 1]) == 1
    assert overlap([1, 2, 3, 4], [1, 9]) == 0.25
    assert (overlap([], []), overlap([1], [])) == (1, 0)


def test_correlation_of_rankings():
    assert correlation([1, 2, 3], [1, 2, 3]) == 1
    assert correlation([1, 2, 3], [3, 2, 1]) == -1
    assert correlation([1], [2]) == -1
    assert correlation([], []) == 1
    assert correlation([1, 2], []) is None
    swapped, replaced = correlation([1, 2, 3], [2, 1, 3]), correlation([1, 2, 3], [1, 2, 4])
    assert swapped == pytest.approx(1 / 3)
    assert 0 < replaced < 1


try:
    from scipy.stats import kendalltau
except ImportError:
    kendalltau = None

RANKS = st.lists(st.integers(0, 6), min_size=2, max_size=12)


@pytest.mark.skipif(kendalltau is None, reason="compares with scipy")
@given(RANKS, st.randoms(use_true_random=False))
def test_kendall_is_scipys(one, draw):
    other = [draw.randrange(7) for _ in one]
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)
    else:
        assert kendall(one, other) is None


def test_long_rankings_are_compared_where_it_counts():
    many = np.random.default_rng(0).permutation(50_000).tolist()
    assert correlation(many, many[::-1]) < 0


def said(*variants):
    return [Variant(text, 1.0, source, term) for text, source, term in variants]


def test_who_proposed_what_differs():
    before = said(("猫", "original", 0), ("cat", "lexicon", 0))
    assert differing_sources(before, said(("猫", "original", 0))) == {"lexicon", "package"}
    ruled = said(("猫", "original", 0), ("kitty", "/my/rules.yaml", 0))
    assert differing_sources(before, ruled) == {"rules", "package"}
    assert differing_sources(before, [*before, *said(("a cat", "llm", 0))]) == {"llm"}
    assert differing_sources(before, before) == set()
    both = [*ruled, *said(("狗", "original", 1), ("dog", "lexicon:animal", 1))]
    assert differing_sources([*before, *said(("狗", "original", 1))], both) == {
        "rules",
        "lexicon",
        "package",
    }
