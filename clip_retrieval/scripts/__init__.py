"""The workspace's three scripts; run them with ``python -m scripts.NAME`` from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from models.clip_wrapper import CLIPWrapper
from soutu.errors import SoutuError
from soutu.exchange.npy import load_features
from soutu.query.expansion import Expander
from soutu.search.searcher import Searcher
from soutu.searchlog.record import SearchLog, format_hit, format_search
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
    hits = [(hit.rank, hit.score, hit.path, hit.caption) for hit in result.hits]
    for hit in hits:
        print(format_hit(*hit))
    SearchLog(OUTPUTS / "search_log.jsonl").record(result)
    variants = [variant.text for variant in result.variants]
    text = format_search(datetime.now(timezone.utc), result.query.raw, variants, hits)
    SearchLog(OUTPUTS / "search_log.txt").append(text)


def guarded(work: Callable[[], None]) -> None:
    """Run a script; what is wrong goes to standard error, and its kind is the exit code."""
    try:
        work()
    except SoutuError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (EOFError, KeyboardInterrupt):
        sys.exit(130)
