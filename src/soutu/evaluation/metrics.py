"""Each query's figures, by ``ir-measures`` (trec_eval's definitions) but for the rank.

The library is given rankings without ties, for ours are broken already. Without any right target
all figures are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from soutu.types import Ids

MAX_RANK = 1000
"""How deep rankings are judged, as at TREC: what stands below counts as not found."""
RANK = "rank"
"""The first right target's, among all; its median over the queries is what is shown."""
LIBRARY: Mapping[str, str] = {
    "hit@1": "Success@1",
    "hit@5": "Success@5",
    "hit@10": "Success@10",
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "precision@1": "P@1",
    "precision@5": "P@5",
    "precision@10": "P@10",
    "mAP": "AP",
    "MRR": "RR",
    "nDCG@5": "nDCG@5",
    "nDCG@10": "nDCG@10",
}
"""Our names, and the library's. ``hit@K`` is what CLIP papers call R@K."""
METRICS = (*LIBRARY, RANK)


def check_extra() -> None:
    """Raise MissingExtra unless all of the extra ``eval`` is installed."""
    for package in ("ir_measures", "pytrec_eval", "scipy", "jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtra("extra-eval", error=f"No module named {package!r}")


def compute_metrics(top: Ids, right: Sequence[Mapping[int, int]]) -> NDArray[np.float64]:
    """Compute the figures of ``LIBRARY``, (q, len(LIBRARY)).

    ``top`` (q, depth) are the columns that each query found, best first; ``right`` its right ones
    with their grades.
    """
    import ir_measures

    measures: dict[Any, int] = {
        ir_measures.parse_measure(name): column for column, name in enumerate(LIBRARY.values())
    }
    falling = [float(score) for score in range(top.shape[1], 0, -1)]
    run = {
        str(row): dict(zip(map(str, columns), falling, strict=True))
        for row, columns in enumerate(top.tolist())
    }
    qrels = {
        str(row): {str(column): grade for column, grade in grades.items()}
        for row, grades in enumerate(right)
        if grades
    }
    table = np.zeros((len(top), len(measures)))
    if qrels:
        evaluator = ir_measures.pytrec_eval.evaluator([*measures], qrels)
        for result in evaluator.iter_calc(run):
            table[int(result.query_id), measures[result.measure]] = result.value
    return table
