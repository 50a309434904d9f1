"""How well a model finds what a judged collection says is right."""

from soutu.evaluation.comparison import Difference, against_first, check_metrics, compare
from soutu.evaluation.judged import Collection
from soutu.evaluation.judging import Evaluation, Outcome, evaluate
from soutu.evaluation.layouts import LAYOUTS, open_collection
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.results import (
    figures,
    folder_of,
    is_result,
    read_outcomes,
    result_folder,
    write,
    write_comparison,
)
from soutu.evaluation.trials import Trial, parse_trials, read_grid
from soutu.evaluation.vectors import How

__all__ = [
    "LAYOUTS",
    "METRICS",
    "Collection",
    "Difference",
    "Evaluation",
    "How",
    "Outcome",
    "Trial",
    "against_first",
    "check_metrics",
    "compare",
    "evaluate",
    "figures",
    "folder_of",
    "is_result",
    "open_collection",
    "parse_trials",
    "read_grid",
    "read_outcomes",
    "result_folder",
    "write",
    "write_comparison",
]
