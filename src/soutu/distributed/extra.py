"""The extra ``ray``, asked for before anything here that needs it is imported."""

from __future__ import annotations

import os

from soutu.errors import MissingExtra


def require() -> None:
    """Raises MissingExtra where Ray or what it brings is not installed."""
    # Read when Ray is imported: nobody's use is reported anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import fsspec
        import pyarrow.parquet
        import ray.data
    except ImportError as fault:
        raise MissingExtra("extra-ray", fault=fault) from fault
    del fsspec, pyarrow, ray
