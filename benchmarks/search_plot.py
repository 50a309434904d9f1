"""Latency against the size of the gallery, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

EXACT, OURS = "exact scan", "Soutu"
_LINES = {EXACT: ("#b45309", "s", "exact scan (numpy)"), OURS: ("#1d4ed8", "o", "Soutu")}


def draw(curve: Mapping[int, Mapping[str, float]], title: str, path: Path) -> None:
    """``curve``: images → search → median milliseconds. ``path`` ends in .svg."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 12, "svg.hashsalt": "soutu", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.4), layout="constrained")
    sizes = sorted(curve)
    for name, (colour, marker, label) in _LINES.items():
        times = [curve[size][name] for size in sizes]
        axes.loglog(sizes, times, color=colour, marker=marker, linewidth=2, label=label)
        axes.annotate(
            f"{times[-1]:.3g} ms", (sizes[-1], times[-1]), (-12, 3), textcoords="offset points",
            ha="right", color=colour,
        )  # fmt: skip
    axes.set_xlabel("images")
    axes.set_ylabel("median latency of one query, ms")
    axes.set_title(title)
    axes.xaxis.set_major_formatter(_short)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(y=0.1)
    axes.grid(which="major", color="#d4d4d8")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _short(value: float, _: object) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k"
