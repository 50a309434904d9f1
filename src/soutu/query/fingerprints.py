"""Fingerprints of the words that expand queries: equal ones expand every query alike."""

from __future__ import annotations

import json
from functools import cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path

from soutu.query.rules import built_in

PACKAGE, RULES, LEXICON = "package", "rules", "lexicon"


def fingerprints(rules: Path | None, lexicon: Path | None) -> dict[str, str]:
    """By what they belong to: the package's own words, a file of rules, a file of words; ""
    for a file that is not there."""
    return {PACKAGE: _package(), RULES: _of_file(rules), LEXICON: _of_file(lexicon)}


@cache
def _package() -> str:
    folder = resources.files("soutu") / "query" / "data" / "lexicon"
    digest = blake2b(json.dumps(built_in()).encode(), digest_size=8)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".tsv"):
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _of_file(file: Path | None) -> str:
    try:
        return blake2b(file.read_bytes(), digest_size=8).hexdigest() if file else ""
    except OSError:
        return ""
