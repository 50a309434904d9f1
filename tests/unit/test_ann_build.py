"""The promise of a recall: chosen on a lower bound, judged on queries that it was not chosen on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from soutu.store.ann_build import judge_effort

K = 10


def hits(chosen_on: list[int], judged_on: list[int]) -> np.ndarray:
    """The first are every other query, from the first on."""
    table = np.empty(2 * len(chosen_on), np.int64)
    table[::2], table[1::2] = chosen_on, judged_on
    return table


def test_the_mean_of_the_choosing_half_is_not_enough():
    half = [10] * 15 + [8] * 5  # a mean of 0.95, of which 0.038 are uncertain
    mean, spread = 0.95, math.sqrt(0.25 * 0.75) * 0.2
    low = mean - 1.96 * spread / math.sqrt(20)
    table = {"text": hits(half, [10] * 20)}
    assert judge_effort(table, K, low + 0.001) is None
    assert judge_effort(table, K, low - 0.001) is not None


def test_what_was_not_reached_on_the_other_half_is_no_promise():
    table = {"text": hits([10] * 20, [10] * 10 + [8] * 10)}
    assert judge_effort(table, K, 0.91) is None
    reached = judge_effort(table, K, 0.89)
    assert reached is not None


def test_what_is_reported_was_reached_on_the_other_half():
    reached = judge_effort({"text": hits([10] * 20, [10] * 10 + [8] * 10)}, K, 0.8)
    assert reached is not None
    estimate = reached["text"]
    assert (estimate.queries, estimate.recall) == (20, 0.9)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(20), abs=1e-4)


@pytest.mark.parametrize("bad", ["text", "image"])
def test_every_kind_of_query_counts(bad):
    table = {name: hits([10] * 20, [10] * 20) for name in ("text", "image")}
    assert judge_effort(table, K, 0.99) is not None
    table[bad] = hits([5] * 20, [10] * 20)
    assert judge_effort(table, K, 0.99) is None
    table[bad] = hits([10] * 20, [5] * 20)
    assert judge_effort(table, K, 0.99) is None
