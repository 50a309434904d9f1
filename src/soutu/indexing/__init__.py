"""Bringing a store up to date with a folder."""

from soutu.indexing.baseline import refresh_ann, refresh_baseline
from soutu.indexing.diff import IndexPlan, plan_index
from soutu.indexing.indexer import IndexReport, index_folder, watch_changes
from soutu.indexing.pipeline import IndexOptions

__all__ = [
    "IndexOptions",
    "IndexPlan",
    "IndexReport",
    "index_folder",
    "plan_index",
    "refresh_ann",
    "refresh_baseline",
    "watch_changes",
]
