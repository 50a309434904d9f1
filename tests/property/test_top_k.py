"""top_k against a plain sort, with many ties."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from soutu.store.scoring import exact_scores, rescoring_candidates, top_k

FEW = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 0.25 + 2**-25, 1.0, float("-inf")])
ANY = st.floats(width=32, allow_nan=False)
SCORES = st.lists(FEW, max_size=60) | st.lists(ANY, max_size=60)


@given(scores=SCORES, k=st.integers(-2, 70), data=st.data())
@example(scores=[1.0] * 9, k=4, data=None)
def test_top_k_is_a_sort_by_score_then_id(scores, k, data):
    ids = list(range(len(scores), 0, -1))
    if data is not None:
        ids = data.draw(st.permutations(ids))
    found = top_k(np.array(scores, np.float32), np.array(ids, np.int64), k)
    expected = sorted(zip(scores, ids, strict=True), key=lambda pair: (-pair[0], pair[1]))
    expected = expected[: max(k, 0)]
    assert found.ids.tolist() == [id_ for _, id_ in expected]
    assert found.scores.tolist() == [score for score, _ in expected]
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 200),
    kinds=st.integers(1, 200),
    k=st.integers(1, 20),
)
def test_rescored_contenders_are_the_true_best(seed, count, kinds, k):
    """However the float32 scores were rounded, what is among the best by exact score is kept."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((kinds, 16)).astype(np.float32)[random.integers(0, kinds, count)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = rows[0]
    exact, ids = exact_scores(rows, query), np.arange(count)
    rounded = (rows @ query) + random.uniform(-2e-7, 2e-7, count).astype(np.float32)
    near = rescoring_candidates(rounded, k, query)
    found = top_k(exact_scores(rows[near], query), ids[near], k)
    np.testing.assert_array_equal(found.ids, top_k(exact, ids, k).ids)
    np.testing.assert_array_equal(found.scores, top_k(exact, ids, k).scores)
