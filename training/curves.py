"""Learning curves as a picture: ``python -m training.curves tiny tiny-en``.

Keeps each run's figures in ``training/curves/RUN.jsonl`` and draws ``training/curves/RUN.png``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from training.train import RUNS

CURVES = Path("training/curves")


def read(path: Path) -> dict[str, list[float]]:
    """Read a run's figures as columns; of a step that was run twice the last counts."""
    lines = {row["step"]: row for row in map(json.loads, path.read_text().splitlines())}
    rows = [lines[step] for step in sorted(lines)]
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def draw(columns: dict[str, list[float]], title: str, out: Path) -> None:
    """Hit rates and precision over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), dpi=110)
    names = [name for name in columns if name.startswith(("zh", "en"))]
    for name in names:
        style = "--" if name.startswith("en") else "-"
        axes.plot(columns["step"], columns[name], style, label=name)
    axes.set(xlabel="step (256 pictures each)", ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    CURVES.mkdir(exist_ok=True)
    for run in args.runs:
        copy = CURVES / f"{run}.jsonl"
        shutil.copyfile(RUNS / run / "curve.jsonl", copy)
        draw(read(copy), f"{run}: unseen rich scenes", CURVES / f"{run}.png")


if __name__ == "__main__":
    main()
