"""Bringing a store up to date with a folder."""

from soutu.indexing.ann import refresh_ann
from soutu.indexing.pipeline import Pace
from soutu.indexing.plan import IndexPlan, plan_index
from soutu.indexing.reference import refresh_reference
from soutu.indexing.run import IndexReport, index_folder
from soutu.indexing.watch import ticks

__all__ = [
    "IndexPlan",
    "IndexReport",
    "Pace",
    "index_folder",
    "plan_index",
    "refresh_ann",
    "refresh_reference",
    "ticks",
]
