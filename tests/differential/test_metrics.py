"""Rankings and metrics against the definitions, written out query by query without a library."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.evaluation.evaluate import MICRO, rank_blocks
from soutu.evaluation.metrics import LIBRARY, compute_metrics

# Few different values, so that ties are everywhere; some closer than the six decimals that count.
LEVELS = st.sampled_from([-1.0, -0.25, 0.0, 2e-7, 0.25, 0.2500001, 0.5, 0.750001, 0.75, 1.0])


@st.composite
def cases(draw):
    """Scores (q, n), each query's grades by column, and how much of a ranking is judged."""
    n = draw(st.integers(1, 14))
    queries = draw(st.integers(1, 5))
    row = st.lists(LEVELS, min_size=n, max_size=n)
    scores = [draw(row) for _ in range(queries)]
    grades = st.dictionaries(st.integers(0, n - 1), st.integers(1, 3))
    return scores, [draw(grades) for _ in range(queries)], draw(st.integers(1, 20))


def order(scores, right):
    """By score in millionths, a wrong target before a right one, then as they come."""

    def key(column):
        return -round(float(np.float32(scores[column])) * MICRO), column in right, column

    return sorted(range(len(scores)), key=key)


def by_hand(found, right):
    """The definitions; ``found`` are the judged columns, best first."""
    hits = [column in right for column in found]
    values = {}
    for k in (1, 5, 10):
        first = sum(hits[:k])
        values[f"hit@{k}"] = float(first > 0)
        values[f"recall@{k}"] = first / len(right) if right else 0.0
        values[f"precision@{k}"] = first / k
    precisions = [sum(hits[: at + 1]) / (at + 1) for at, hit in enumerate(hits) if hit]
    values["mAP"] = sum(precisions) / len(right) if right else 0.0
    values["MRR"] = 1 / (1 + hits.index(True)) if True in hits else 0.0
    for k in (5, 10):
        ideal = dcg(sorted(right.values(), reverse=True)[:k])
        values[f"nDCG@{k}"] = dcg([right.get(c, 0) for c in found[:k]]) / ideal if right else 0.0
    return [values[name] for name in LIBRARY]


def dcg(gains):
    return sum(gain / math.log2(at + 2) for at, gain in enumerate(gains))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_metric_is_its_definition(case):
    scores, right, depth = case
    # Columns as axes: the product of a query with the targets is its row of scores.
    targets = np.eye(len(scores[0]), dtype=np.float32)
    (block,) = rank_blocks(np.array(scores, np.float32), targets, right, depth)
    table = compute_metrics(block.top, right)
    for row, grades in enumerate(right):
        whole = order(scores[row], grades)
        assert block.top[row].tolist() == whole[:depth]
        best = [rank for rank, column in enumerate(whole, 1) if column in grades]
        assert block.first[row] == (best[0] if best else 0)
        assert table[row] == pytest.approx(by_hand(whole[:depth], grades), abs=1e-9)


def test_metrics_of_a_query_worked_out_on_paper():
    top = np.array([[3, 0, 2, 1]])
    values = dict(zip(LIBRARY, compute_metrics(top, [{0: 1, 1: 2}])[0], strict=True))
    assert values["MRR"] == 1 / 2
    assert values["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert values["precision@5"] == pytest.approx(2 / 5)
    assert values["recall@1"] == 0
    expected = (1 / math.log2(3) + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert values["nDCG@5"] == pytest.approx(expected)


def test_blocks_are_one_ranking(monkeypatch):
    """However the queries are cut, and however many targets there are, ranks are counted among
    all of them."""
    rng = np.random.default_rng(0)
    queries, targets = (rng.standard_normal((n, 8)).astype(np.float32) for n in (30, 500))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    right = [{int(c): 1 for c in rng.integers(500, size=1 + row % 3)} for row in range(30)]
    (whole,) = rank_blocks(queries, targets, right, 7)
    monkeypatch.setattr("soutu.evaluation.evaluate._CELLS", 2000)
    parts = list(rank_blocks(queries, targets, right, 7))
    assert [part.start for part in parts] == list(range(0, 30, 4))
    assert np.concatenate([part.top for part in parts]).tolist() == whole.top.tolist()
    assert np.concatenate([part.first for part in parts]).tolist() == whole.first.tolist()
    for row in range(30):
        full = order((queries[row] @ targets.T).tolist(), right[row])
        assert whole.top[row].tolist() == full[:7]
        assert whole.first[row] == 1 + min(full.index(column) for column in right[row])
