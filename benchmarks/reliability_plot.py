"""Draw a reliability diagram: how often queries are answered, by confidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

BINS = 10
_COLOURS = ("#b45309", "#1d4ed8", "#15803d")


def draw(curves: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """``curves``: model → "p" (n,), what was said, and "right" (n,), whether it was so. ``path``
    ends in .svg."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 12, "svg.hashsalt": "soutu", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (axes, below) = pyplot.subplots(
        2, 1, figsize=(6, 6.4), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    axes.plot([0, 1], [0, 1], color="#a1a1aa", linestyle="--", label="as said")
    for (model, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        p, right = curve["p"], curve["right"]
        bins = np.minimum((p * BINS).astype(int), BINS - 1)
        filled = [number for number in range(BINS) if (bins == number).any()]
        confidence = [p[bins == number].mean() for number in filled]
        share = [right[bins == number].mean() for number in filled]
        axes.plot(confidence, share, color=colour, marker="o", linewidth=2, label=model)
        below.hist(p, bins=np.linspace(0, 1, BINS + 1), color=colour, histtype="step", linewidth=2)
    axes.set_ylabel("share that was there")
    axes.set_title(
        "What was said of 300 scenes, and what was so\n(a third of the queries are answered)"
    )
    axes.title.set_fontsize(12)
    axes.grid(color="#d4d4d8")
    axes.legend(frameon=False)
    below.set_xlabel("confidence")
    below.set_ylabel("queries")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
