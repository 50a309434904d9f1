"""Every code that sources raise is worded, in both languages, with the same fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from string import Formatter

import pytest

import soutu.images
from soutu.i18n import format_message

WORDINGS: dict[str, dict[str, str]] = json.loads(
    resources.files("soutu").joinpath("messages", "sources.json").read_text(encoding="utf-8")
)


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def raised() -> set[str]:
    folder = Path(next(iter(soutu.images.__path__)))
    own = codes(folder.glob("*.py"))
    # Pictures are decoded in processes elsewhere.
    return own | (codes([folder.parent / "server/decode_pool.py"]) & set(WORDINGS))


def codes(files: Iterable[Path]) -> set[str]:
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r'"((?:image|folder|captions|ignore)-[a-z0-9-]+)"', source))


def test_the_codes_raised_are_the_codes_worded() -> None:
    assert raised() == set(WORDINGS)


@pytest.mark.parametrize("code", WORDINGS)
def test_both_languages_say_the_same(code: str) -> None:
    assert set(WORDINGS[code]) == {"en", "zh"}
    assert fields(WORDINGS[code]["en"]) == fields(WORDINGS[code]["zh"])
    assert re.search("[\u4e00-\u9fff]", WORDINGS[code]["zh"])
    values = dict.fromkeys(fields(WORDINGS[code]["en"]), "x")
    assert "{" not in format_message(code, "zh", **values)
