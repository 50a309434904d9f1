"""What was tuned for a model (``soutu tune``), and the file that keeps it.

space: tiny/1fe5c2689725
weights: {later: 0.5, listed: 0.25, synonym: 0.5}
correction: {alpha: 0.2, skewed: 3.3, growth: 0.0}
confidence: {any: [1.5, 0.46, -2.7], this: [1.7, 0.79, -3.8]}
min_confidence: 0.62
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from soutu.errors import BadConfig
from soutu.query.confidence import ANY, THIS, Calibration
from soutu.query.expand import WEIGHTS, Weights
from soutu.query.hubs import HUBS, Hubs


@dataclass(frozen=True)
class Tuned:
    """``space``: of the model that it was tuned for, "" for all. ``any`` and ``this`` as in
    ``query/confidence.py``. ``min_confidence`` counts where the settings give none."""

    space: str = ""
    weights: Weights = WEIGHTS
    hubs: Hubs = HUBS
    any: Calibration = ANY
    this: Calibration = THIS
    min_confidence: float = 0.0


UNTUNED = Tuned()


def to_yaml(tuned: Tuned) -> str:
    import yaml

    kept = {
        "space": tuned.space,
        "weights": asdict(tuned.weights),
        "correction": asdict(tuned.hubs),
        "confidence": {"any": [*astuple(tuned.any)], "this": [*astuple(tuned.this)]},
        "min_confidence": tuned.min_confidence,
    }
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def read_tuned(file: Path) -> Tuned:
    """What ``to_yaml`` made; a part that is left out is as if nothing were tuned. BadConfig naming
    the file and what in it is wrong."""
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadConfig("config-yaml", file=file, fault=" ".join(str(fault).split())) from fault
    parts = ("space", "weights", "correction", "confidence", "min_confidence")
    if not isinstance(loaded, dict) or not set(loaded) <= {*parts}:
        raise BadConfig("tuned-form", file=file, known=", ".join(parts))
    told = _Read(file)
    confidence = told.mapping("confidence", loaded.get("confidence", {}), ("any", "this"))
    weights = told.numbers("weights", loaded, Weights, 1e-6)
    return Tuned(
        space=str(loaded.get("space", "")),
        weights=Weights(**weights),
        hubs=Hubs(**told.numbers("correction", loaded, Hubs, 0)),
        any=told.calibration("any", confidence.get("any"), ANY),
        this=told.calibration("this", confidence.get("this"), THIS),
        min_confidence=told.number("min_confidence", loaded.get("min_confidence", 0), 0, 1),
    )


@dataclass(frozen=True)
class _Read:
    file: Path

    def mapping(self, name: str, value: object, known: tuple[str, ...]) -> Mapping[str, object]:
        if not isinstance(value, dict) or not set(value) <= {*known}:
            raise self._wrong(name, value, "{" + ": …, ".join(known) + ": …}")
        return value

    def number(self, name: str, value: object, low: float, high: float) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not low <= value <= high:  # type: ignore[operator]
            raise self._wrong(name, value, f"{low:g} … {high:g}")
        return float(value)  # type: ignore[arg-type]

    def numbers(
        self, name: str, loaded: Mapping[str, object], kind: type[Weights] | type[Hubs], low: float
    ) -> dict[str, float]:
        known = tuple(one.name for one in fields(kind))
        found = self.mapping(name, loaded.get(name, {}), known)
        return {at: self.number(f"{name}.{at}", value, low, 100) for at, value in found.items()}

    def calibration(self, name: str, value: object, default: Calibration) -> Calibration:
        if value is None:
            return default
        if not isinstance(value, list) or len(value) != 3:
            raise self._wrong(name, value, "[scale, growth, offset]")
        scale, growth, offset = (self.number(name, one, -100, 100) for one in value)
        return Calibration(scale, growth, offset)

    def _wrong(self, name: str, value: object, expected: str) -> BadConfig:
        return BadConfig(
            "config-value", source=self.file, name=name, value=value, expected=expected
        )
