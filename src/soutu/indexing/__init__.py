"""Bringing a store up to date with a folder."""

from soutu.indexing.pipeline import Pace
from soutu.indexing.run import IndexReport, index_folder

__all__ = ["IndexReport", "Pace", "index_folder"]
