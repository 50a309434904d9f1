"""Variants of searching the same dataset: named on one line, or as a grid.

A variant is written as parts joined by plus signs, ``raw`` or ``expand`` first:

    raw,expand,expand+nnn,expand+templates,expand+fusion=balanced

``nnn`` corrects hubs (``search/calibration.py``). A grid file is every combination of its lists,
in YAML:

    models: [tiny, tiny-en]
    expansions: [raw, expand, templates]
    fusions: [auto, mean]
    corrections: [off, on]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from soutu.errors import BadConfig
from soutu.search.calibration import AUTO, CORRECTIONS, OFF, ON
from soutu.search.searcher import FUSIONS

EXPANSIONS: Mapping[str, Mapping[str, object]] = {
    "raw": {"expand": False, "templates": False, "correction": OFF},
    "expand": {"expand": True, "templates": False, "correction": OFF},
    "templates": {"expand": True, "templates": True, "correction": OFF},
}
PARTS: Mapping[str, Mapping[str, object]] = {
    "nnn": {"correction": ON},
    "templates": {"templates": True},
    **{f"fusion={name}": {"fusion": name} for name in FUSIONS},
    **{f"correction={name}": {"correction": name} for name in CORRECTIONS},
}
GRID_LISTS = ("models", "expansions", "fusions", "corrections")


@dataclass(frozen=True)
class SearchVariant:
    """``settings``: those of ``soutu.settings.Settings`` that make it what it is."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)


def parse_variants(text: str) -> list[SearchVariant]:
    """Parse the variants that ``text`` names, in its order.

    Raises BadConfig naming what is not understood, and for a variant that is there twice.
    """
    variants: dict[str, SearchVariant] = {}
    for name in map(str.strip, text.split(",")):
        first, *parts = name.split("+")
        if first not in ("raw", "expand"):
            raise BadConfig("trial-first", text=name, part=first)
        settings = dict(EXPANSIONS[first])
        for part in parts:
            if part not in PARTS:
                raise BadConfig("trial-part", text=name, part=part, known=", ".join(PARTS))
            settings |= PARTS[part]
        if first == "raw" and (settings["templates"] or "fusion" in settings):
            raise BadConfig("trial-raw", text=name)
        if name in variants:
            raise BadConfig("trial-twice", text=name)
        variants[name] = SearchVariant(name, settings)
    return [*variants.values()]


def read_grid(file: Path) -> list[SearchVariant]:
    """Combine the lists in ``file``; a query that is not expanded has no fusion.

    Raises BadConfig naming the file and what in it is wrong.
    """
    import yaml

    try:
        grid = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadConfig("config-yaml", file=file, error=" ".join(str(error).split())) from error
    if not isinstance(grid, dict) or not grid:
        raise BadConfig("grid-form", file=file, known=", ".join(GRID_LISTS))
    for name in grid:
        if name not in GRID_LISTS:
            raise BadConfig("grid-unknown", file=file, name=name, known=", ".join(GRID_LISTS))
    variants: dict[str, SearchVariant] = {}
    for model, expansion, fusion, correction in product(
        _read_list(grid, "models", file, None) or [""],
        _read_list(grid, "expansions", file, tuple(EXPANSIONS)) or ["expand"],
        _read_list(grid, "fusions", file, FUSIONS) or [AUTO],
        _read_list(grid, "corrections", file, CORRECTIONS) or [OFF],
    ):
        fusion = AUTO if expansion == "raw" else fusion
        settings = {**EXPANSIONS[expansion], "fusion": fusion, "correction": correction}
        settings |= {"model": model} if model else {}
        name = f"{model} {expansion}" if model else expansion
        name += f"+fusion={fusion}" if fusion != AUTO else ""
        name += f"+correction={correction}" if correction != OFF else ""
        variants.setdefault(name, SearchVariant(name, settings))
    return [*variants.values()]


def _read_list(
    grid: Mapping[str, object], name: str, file: Path, known: Sequence[str] | None
) -> list[str]:
    values = grid.get(name, [])
    words = {True: ON, False: OFF}  # as YAML reads a bare on and off
    items = values if isinstance(values, list) else []
    texts = [words[value] if isinstance(value, bool) else value for value in items]
    valid = all(isinstance(t, str) and t and t in (known or [t]) for t in texts)
    if not valid or (not texts and name in grid):
        expected = ", ".join(known) if known else "tiny, ViT-B-32 …"
        raise BadConfig("grid-value", file=file, name=name, value=values, expected=expected)
    return [str(text) for text in texts]
