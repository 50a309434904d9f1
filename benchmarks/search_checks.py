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
    """Name → ``found`` (what was measured) and ``holds``."""
    found: Verdicts = {}
    for count, figures in by_size.items():
        at = f"at {count:,}"
        engines, to = figures["engines"], figures["Soutu to"]
        times = to[FAISS]["of medians"]
        found[f"no more than {TO_FAISS} × Faiss {at}"] = _verdict(times, times <= TO_FAISS)
        for name, told in engines.items():
            if name in to and name not in (EXACT, FAISS):
                times = to[name]["of medians"]
                found[f"faster than {name} {at}"] = _verdict(times, times < 1)
            if name != EXACT and "text" in told:
                reached = told["text"]["recall@10"]
                found[f"recall@10 of {name} on texts {at}"] = _verdict(reached, reached >= RECALL)
        if count >= LARGE:
            found.update(_large(figures, at))
    return found


def _large(figures: Any, at: str) -> Verdicts:  # noqa: ANN401
    ours = figures["engines"][OURS]
    times = round(1 / figures["Soutu to"][EXACT]["of medians"], 1)
    megabytes = figures["Soutu alone"]["memory"].get("RssAnon MB", float("inf"))
    return {
        f"{FASTER_THAN_EXACT} times as fast as the scan {at}": _verdict(
            times, times >= FASTER_THAN_EXACT
        ),
        f"built in {BUILD} s {at}": _verdict(ours["build s"], ours["build s"] <= BUILD),
        f"no more than {RESIDENT} MB {at}": _verdict(megabytes, megabytes <= RESIDENT),
    }


def _verdict(found: float, holds: bool) -> dict[str, Any]:
    return {"found": found, "holds": holds}
