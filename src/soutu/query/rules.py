"""Expansion rules: ``queries: {金毛: [golden retriever dog, …]}``, one's own in YAML.

The package's own are JSON, which costs a search no YAML parser (8 ms from a cold start).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from soutu.errors import BadConfig
from soutu.query.expand import RuleExpander
from soutu.types import Variant

Rules = dict[str, tuple[Variant, ...]]


def built_in() -> object:
    """The package's own rules, not yet understood."""
    file = resources.files("soutu") / "query" / "data" / "expansions.json"
    return json.loads(file.read_text(encoding="utf-8"))


def load_rules(files: Iterable[Path]) -> RuleExpander:
    """The built-in rules with each of ``files`` laid over them, key by key.

    Raises BadConfig naming the file, the key and the cure.
    """
    merged = _understood(built_in(), "built-in")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as fault:
            raise BadConfig("rules-unreadable", file=file, fault=fault) from fault
        merged.update(_read(text, str(file)))
    return RuleExpander(merged)


def _read(text: str, source: str) -> Rules:
    import yaml

    try:
        loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as fault:
        raise BadConfig("rules-yaml", file=source, fault=" ".join(str(fault).split())) from fault
    return _understood(loaded, source)


def _understood(loaded: object, source: str) -> Rules:
    said = loaded if isinstance(loaded, dict) else {}
    queries = said.get("queries")
    if not isinstance(queries, dict) or set(said) != {"queries"}:
        raise BadConfig("rules-form", file=source)
    return {_key(key, source): _variants(key, value, source) for key, value in queries.items()}


def _key(key: object, source: str) -> str:
    if not isinstance(key, str) or not key.strip():
        raise BadConfig("rules-key", file=source, key=key)
    return key.strip()


def _variants(key: object, value: object, source: str) -> tuple[Variant, ...]:
    """A list of texts, or of {text, weight}."""
    if not isinstance(value, list):
        raise BadConfig("rules-value", file=source, key=key, value=value)
    found = []
    for item in value:
        fields = item if isinstance(item, dict) else {"text": item}
        text, weight = fields.get("text"), fields.get("weight", 1.0)
        usable = isinstance(text, str) and text.strip() and set(fields) <= {"text", "weight"}
        if not usable or not isinstance(weight, (int, float)) or not 0 < weight <= 100:
            raise BadConfig("rules-value", file=source, key=key, value=item)
        found.append(Variant(str(text).strip(), float(weight), source))
    return tuple(found)
