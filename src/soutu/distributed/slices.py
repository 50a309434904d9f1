"""How large the parts of a job are."""

from __future__ import annotations


def shard_size(count: int) -> int:
    """Pictures in a slice of ``count``: seconds to a minute of one worker's work, which is what a
    worker that dies costs; more where there would be too many files."""
    return 1000 if count <= 1_000_000 else 10_000
