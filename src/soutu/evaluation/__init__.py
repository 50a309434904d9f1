"""How well a model finds what a judged collection says is right."""

from soutu.evaluation.comparison import Difference, check_metrics, compare
from soutu.evaluation.judged import Collection
from soutu.evaluation.judging import Evaluation, Outcome, evaluate
from soutu.evaluation.layouts import LAYOUTS, open_collection
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.results import figures, is_result, read_outcomes, result_folder, write
from soutu.evaluation.vectors import How

__all__ = [
    "LAYOUTS",
    "METRICS",
    "Collection",
    "Difference",
    "Evaluation",
    "How",
    "Outcome",
    "check_metrics",
    "compare",
    "evaluate",
    "figures",
    "is_result",
    "open_collection",
    "read_outcomes",
    "result_folder",
    "write",
]
