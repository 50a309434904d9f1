"""Several ways of searching the same collection: which they are, said on one line or as a grid.

A way is written as parts joined by plus signs, ``raw`` or ``expand`` first:

    raw,expand,expand+nnn,expand+templates,expand+fusion=balanced

``nnn`` corrects hubs (``search/calibration.py``). A grid file is every combination of its lists,
in YAML:

    models: [tiny, tiny-en]
    expansions: [raw, expand, templates]
    fusions: [auto, mean]
    corrections: [off, on]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from soutu.errors import BadConfig
from soutu.search.calibration import AUTO, CORRECTIONS, OFF, ON
from soutu.search.searcher import FUSIONS

_PLAIN: Mapping[str, object] = {"expand": False, "templates": False, "correction": OFF}
_EXPANSIONS: Mapping[str, Mapping[str, object]] = {
    "raw": {},
    "expand": {"expand": True},
    "templates": {"expand": True, "templates": True},
}
_FURTHER: Mapping[str, Mapping[str, object]] = {
    "nnn": {"correction": ON},
    "templates": {"templates": True},
}
_GRID = ("models", "expansions", "fusions", "corrections")


@dataclass(frozen=True)
class SearchVariant:
    """``settings``: those of ``soutu.settings.Settings`` that make it what it is."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)


def parse_variants(text: str) -> list[SearchVariant]:
    """The ways that ``text`` names, in its order. BadConfig naming what is not understood, and for
    a way that is there twice."""
    return _distinct(_trial(part.strip()) for part in text.split(","))


def read_grid(file: Path) -> list[SearchVariant]:
    """Every combination of the lists in ``file``; a query that is not expanded has no fusion.
    BadConfig naming the file and what in it is wrong."""
    import yaml

    try:
        grid = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadConfig("config-yaml", file=file, fault=" ".join(str(fault).split())) from fault
    if not isinstance(grid, dict) or not grid:
        raise BadConfig("grid-form", file=file, known=", ".join(_GRID))
    for name in grid:
        if name not in _GRID:
            raise BadConfig("grid-unknown", file=file, name=name, known=", ".join(_GRID))
    models = _listed(grid, "models", file, None)
    fusions = _listed(grid, "fusions", file, FUSIONS)
    corrections = _listed(grid, "corrections", file, CORRECTIONS)
    found = []
    for model, expansion, fusion, correction in product(
        models or [""],
        _listed(grid, "expansions", file, tuple(_EXPANSIONS)) or ["expand"],
        fusions or [AUTO],
        corrections or [OFF],
    ):
        fusion = fusion if expansion != "raw" else AUTO
        settings = {**_PLAIN, **_EXPANSIONS[expansion], "fusion": fusion, "correction": correction}
        parts = [expansion, *([f"fusion={fusion}"] if fusion != AUTO else [])]
        parts += [f"correction={correction}"] if correction != OFF else []
        prefix = f"{model} " if model else ""
        named = {"model": model} if model else {}
        found.append(SearchVariant(prefix + "+".join(parts), {**settings, **named}))
    return list({trial.name: trial for trial in found}.values())


def _trial(text: str) -> SearchVariant:
    first, *further = text.split("+")
    if first not in ("raw", "expand"):
        raise BadConfig("trial-first", text=text, part=first)
    settings = {**_PLAIN, **_EXPANSIONS[first]}
    for part in further:
        settings |= _part(text, part)
    if first == "raw" and (settings["templates"] or "fusion" in settings):
        raise BadConfig("trial-raw", text=text)
    return SearchVariant(text, settings)


def _part(text: str, part: str) -> Mapping[str, object]:
    name, _, value = part.partition("=")
    choices = {"fusion": FUSIONS, "correction": CORRECTIONS}
    if part in _FURTHER:
        return _FURTHER[part]
    if value in choices.get(name, ()):
        return {name: value}
    named = [f"{name}={value}" for name, values in choices.items() for value in values]
    raise BadConfig("trial-part", text=text, part=part, known=", ".join([*_FURTHER, *named]))


def _distinct(trials: Iterator[SearchVariant]) -> list[SearchVariant]:
    found: dict[str, SearchVariant] = {}
    for trial in trials:
        if trial.name in found:
            raise BadConfig("trial-twice", text=trial.name)
        found[trial.name] = trial
    return list(found.values())


def _listed(
    grid: Mapping[str, object], name: str, file: Path, known: Sequence[str] | None
) -> list[str]:
    values = grid.get(name, [])
    words = {True: ON, False: OFF}  # as YAML reads a bare on and off
    listed = values if isinstance(values, list) else []
    texts = [words[value] if isinstance(value, bool) else value for value in listed]
    good = bool(texts) or name not in grid
    if not good or not all(isinstance(t, str) and t and t in (known or [t]) for t in texts):
        expected = ", ".join(known) if known else "tiny, ViT-B-32 …"
        raise BadConfig("grid-value", file=file, name=name, value=values, expected=expected)
    return [str(text) for text in texts]
