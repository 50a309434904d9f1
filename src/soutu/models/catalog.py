"""The list of known models, ``catalog.yaml``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

INT8_BYTES = 1.03  # a parameter; scales, tokenizer and what stays float32 included


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot text→image hit rate@1 in per cent, and on which test; None: not published."""

    test: str
    zh: float | None
    en: float | None


@dataclass(frozen=True)
class OfficialWeights:
    """Where a model's own weights are; ``catalog.yaml`` describes the fields."""

    layout: str
    repository: str
    revision: str | None = None
    modelscope: str | None = None
    tokenizer: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownTextTower:
    """A text tower trained against a model's images; ``catalog.yaml`` describes the fields."""

    weights: OfficialWeights
    languages: tuple[str, ...]
    license: str
    parameters: float


@dataclass(frozen=True)
class CatalogEntry:
    """A known model; ``catalog.yaml`` describes the fields."""

    name: str
    source: str
    weights: OfficialWeights
    repositories: tuple[str, ...]
    px: int
    dim: int
    parameters: float
    gflops: float
    languages: tuple[str, ...]
    license: str
    recall: ZeroShotResult | None
    quick_gelu: bool = False
    chinese_mean_recall: float | None = None
    text_towers: Mapping[str, KnownTextTower] = field(default_factory=dict)

    @property
    def megabytes(self) -> float:
        """The size of the download: its weights in float32."""
        return self.parameters * 4

    @property
    def disk_megabytes(self) -> float:
        """The size once it is built, where all layers and the embedding table can be int8."""
        return self.parameters * INT8_BYTES


@cache
def load_catalog() -> dict[str, CatalogEntry]:
    """Return all known models by name."""
    import yaml  # an installed model needs no catalog: no parser at every start

    text = resources.files("soutu").joinpath("models/catalog.yaml").read_text("utf-8")
    return {name: _read_entry(name, row) for name, row in yaml.safe_load(text).items()}


def sort_by_language(entries: Iterable[CatalogEntry], lang: str) -> list[CatalogEntry]:
    """Return the models that read ``lang`` ("zh" or "en") first, the best published ones ahead.

    Figures of one scale are compared: models with a Chinese mean stand before those without.
    """

    def key(entry: CatalogEntry) -> tuple[bool, float, float]:
        mean = entry.chinese_mean_recall or 0.0 if lang == "zh" else 0.0
        rate = getattr(entry.recall, lang, None) or 0.0
        return lang in entry.languages, mean, rate

    return sorted(entries, key=key, reverse=True)


def _read_entry(name: str, row: dict[str, Any]) -> CatalogEntry:
    recall = ZeroShotResult(**row["recall"]) if row["recall"] else None
    lists = {key: tuple(row[key]) for key in ("languages", "repositories")}
    weights = OfficialWeights(**row["weights"])
    towers = {key: _read_tower(tower) for key, tower in row.get("text_towers", {}).items()}
    parts = {"recall": recall, "weights": weights, "text_towers": towers}
    return CatalogEntry(name, **{**row, **lists, **parts})


def _read_tower(row: dict[str, Any]) -> KnownTextTower:
    parts = {"weights": OfficialWeights(**row["weights"]), "languages": tuple(row["languages"])}
    return KnownTextTower(**{**row, **parts})
