"""What the figures have to show, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.search_plot import EXACT, OURS

Verdicts = dict[str, dict[str, Any]]

FAISS = "Faiss"
RECALL = 0.99
LARGE = 1_000_000
TO_FAISS = 1.3
FASTER_THAN_EXACT = 8
BUILD = 90  # seconds
RESIDENT = 400  # MB


def verdicts(by_size: Mapping[int, Any]) -> Verdicts:
    """Name → ``results`` (what was measured) and ``holds``."""
    results: Verdicts = {}
    for count, figures in by_size.items():
        size = f"at {count:,}"
        engines, to = figures["engines"], figures["Soutu to"]
        times = to[FAISS]["of medians"]
        results[f"no more than {TO_FAISS} × Faiss {size}"] = _verdict(times, times <= TO_FAISS)
        for name, engine in engines.items():
            if name in to and name not in (EXACT, FAISS):
                times = to[name]["of medians"]
                results[f"faster than {name} {size}"] = _verdict(times, times < 1)
            if name != EXACT and "text" in engine:
                reached = engine["text"]["recall@10"]
                results[f"recall@10 of {name} on texts {size}"] = _verdict(
                    reached, reached >= RECALL
                )
        if count >= LARGE:
            results.update(_large(figures, size))
    return results


def _large(figures: Any, size: str) -> Verdicts:  # noqa: ANN401
    ours = figures["engines"][OURS]
    times = round(1 / figures["Soutu to"][EXACT]["of medians"], 1)
    megabytes = figures["Soutu alone"]["memory"].get("RssAnon MB", float("inf"))
    return {
        f"{FASTER_THAN_EXACT} times as fast as the scan {size}": _verdict(
            times, times >= FASTER_THAN_EXACT
        ),
        f"built in {BUILD} s {size}": _verdict(ours["build s"], ours["build s"] <= BUILD),
        f"no more than {RESIDENT} MB {size}": _verdict(megabytes, megabytes <= RESIDENT),
    }


def _verdict(value: float, holds: bool) -> dict[str, Any]:
    return {"found": value, "holds": holds}
