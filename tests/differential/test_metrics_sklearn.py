"""Metrics against scikit-learn, which shares no code with the library that we use."""

import numpy as np
import pytest
from hypothesis import assume, given, settings

pytest.importorskip("pytrec_eval", reason="needs the extra eval")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
    precision_score,
    recall_score,
)

from soutu.evaluation.evaluate import rank_blocks
from soutu.evaluation.metrics import LIBRARY, compute_metrics
from tests.differential.test_metrics import cases, order


def by_sklearn(whole, right, depth):
    """``whole``: all columns, best first, without ties. What stands below ``depth`` is not found,
    so it is no hit; but it counts among what could have been found."""
    columns = len(whole)
    falling = np.zeros(columns)
    falling[whole] = np.arange(columns, 0, -1)
    gains = np.array([right.get(column, 0) for column in range(columns)], float)
    relevant = gains > 0
    values = {}
    for k in (1, 5, 10):
        shown = np.zeros(columns, bool)
        shown[whole[: min(k, depth)]] = True
        values[f"hit@{k}"] = float(recall_score(relevant, shown, zero_division=0) > 0)
        values[f"recall@{k}"] = recall_score(relevant, shown, zero_division=0)
        share = precision_score(relevant, shown, zero_division=0)
        values[f"precision@{k}"] = share * shown.sum() / k  # fewer than k are as many misses
    if depth >= columns > 1:
        values["mAP"] = average_precision_score(relevant, falling)
        first = np.zeros(columns, bool)
        first[next(column for column in whole if relevant[column])] = True
        values["MRR"] = label_ranking_average_precision_score(first[None], falling[None])
        for k in (5, 10):
            values[f"nDCG@{k}"] = ndcg_score(gains[None], falling[None], k=k)
    return values


@settings(max_examples=300, deadline=None)
@given(cases())
def test_they_agree_to_1e_9(case):
    scores, right, depth = case
    assume(any(right))
    targets = np.eye(len(scores[0]), dtype=np.float32)
    (block,) = rank_blocks(np.array(scores, np.float32), targets, right, depth)
    table = compute_metrics(block.top, right)
    for row, grades in enumerate(right):
        ours = dict(zip(LIBRARY, table[row], strict=True))
        if not grades:
            assert not table[row].any()  # nothing could be found
            continue
        theirs = by_sklearn(order(scores[row], grades), grades, depth)
        assert len(theirs) in (9, len(LIBRARY))
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-9), name
