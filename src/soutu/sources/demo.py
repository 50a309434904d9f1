"""The drawn pictures, captions and queries that come with the package."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

from soutu.errors import Missing


def demo_data() -> Path:
    """The folder of the demo pictures: inside the installed package, or in a checkout."""
    package = Path(str(resources.files("soutu")))
    for folder in (package / "demo", package.parents[1] / "clip_retrieval" / "data"):
        if (folder / "captions.csv").is_file():
            return folder
    raise Missing("demo-missing", folder=package / "demo")


def sample_queries() -> list[tuple[str, frozenset[str]]]:
    """Each sample query and the pictures that answer it."""
    with (demo_data() / "queries.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [(row["query"], frozenset(row["image_paths"].split())) for row in rows]
