"""How well a model finds what a judged collection says is right."""

from soutu.evaluation.dataset import Dataset
from soutu.evaluation.evaluate import Evaluation, QueryOutcomes, evaluate
from soutu.evaluation.loaders import LAYOUTS, open_dataset
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.results import (
    Difference,
    check_metrics,
    compare,
    compare_to_first,
    figures,
    folder_of,
    is_result,
    read_outcomes,
    result_folder,
    write_comparison,
    write_result,
)
from soutu.evaluation.variants import SearchVariant, parse_variants, read_grid
from soutu.evaluation.vectors import EncodeOptions

__all__ = [
    "LAYOUTS",
    "METRICS",
    "Dataset",
    "Difference",
    "EncodeOptions",
    "Evaluation",
    "QueryOutcomes",
    "SearchVariant",
    "check_metrics",
    "compare",
    "compare_to_first",
    "evaluate",
    "figures",
    "folder_of",
    "is_result",
    "open_dataset",
    "parse_variants",
    "read_grid",
    "read_outcomes",
    "result_folder",
    "write_comparison",
    "write_result",
]
