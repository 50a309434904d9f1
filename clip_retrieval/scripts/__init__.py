"""The workspace's three scripts; run them with ``python -m scripts.NAME`` from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from models.clip_wrapper import CLIPWrapper
from soutu import searchlog
from soutu.errors import SoutuError
from soutu.exchange.npy import load_features
from soutu.query.expansion import Expander
from soutu.search.searcher import Searcher
from soutu.types import SearchResult

WORKSPACE = Path(__file__).parent.parent
DATA = WORKSPACE / "data"
OUTPUTS = WORKSPACE / "outputs"


def open_searcher(device: str, expander: Expander | None = None) -> Searcher:
    """Search the features in outputs/ with the model that they were made with."""
    features = load_features(OUTPUTS)
    return Searcher(CLIPWrapper(features.model, device).encoder, features.store(), expander)


def show(result: SearchResult) -> None:
    """Print the hits and append the search to both logs."""
    for hit in result.hits:
        print(searchlog.top_line(hit.rank, hit.score, hit.path, hit.caption))
    searchlog.append_record(OUTPUTS / "search_log.jsonl", result)
    searchlog.append(OUTPUTS / "search_log.txt", searchlog.readable(result))


def guarded(work: Callable[[], None]) -> None:
    """Run a script; what is wrong goes to standard error, and its kind is the exit code."""
    try:
        work()
    except SoutuError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (EOFError, KeyboardInterrupt):
        sys.exit(130)
