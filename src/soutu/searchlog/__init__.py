"""Running logged searches again: the same answer, or what has changed since."""

from soutu.searchlog.record import (
    SCHEMA,
    Provenance,
    SearchLog,
    append,
    append_record,
    readable,
    to_json,
    to_record,
    top_line,
)
from soutu.searchlog.replay import Cause, CauseCount, Now, Replay, ReplayedSearch, compare, replay

__all__ = [
    "SCHEMA",
    "Cause",
    "CauseCount",
    "Now",
    "Provenance",
    "Replay",
    "ReplayedSearch",
    "SearchLog",
    "append",
    "append_record",
    "compare",
    "readable",
    "replay",
    "to_json",
    "to_record",
    "top_line",
]
