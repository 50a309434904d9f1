"""Messages in Chinese and English: which language to use, and the text of each message code."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import resources
from typing import Protocol, runtime_checkable

_chosen: list[str] = []


@runtime_checkable
class Translatable(Protocol):
    """A value with a text of its own in each language, such as a SoutuError."""

    def message(self, lang: str) -> str:
        """Return the text in ``lang``."""


def choose_language(lang: str) -> None:
    """Overrule the locale for this process."""
    _chosen[:] = [lang]


def prefer_language(lang: str | None) -> None:
    """Use the language of the settings unless ``--lang`` chose one."""
    if lang and not _chosen:
        choose_language(lang)


def current_language() -> str:
    """Return "zh" or "en": ``--lang``, else SOUTU_LANG, else the locale."""
    if _chosen:
        return _chosen[0]
    names = ("SOUTU_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((os.environ[name] for name in names if os.environ.get(name)), "en")
    return "zh" if locale.lower().startswith("zh") else "en"


def tr(code: str, **fields: object) -> str:
    """Return message ``code`` in the current language, errors among ``fields`` included."""
    return format_message(code, current_language(), **fields)


def format_message(code: str, lang: str = "en", **fields: object) -> str:
    """Return message ``code`` in ``lang`` ("en" or "zh") with its placeholders filled in."""
    texts = {name: _translate(value, lang) for name, value in fields.items()}
    return load_messages()[code][lang].format_map(texts)


def _translate(value: object, lang: str) -> object:
    if isinstance(value, Translatable):
        return value.message(lang)
    if isinstance(value, list) and any(isinstance(item, Translatable) for item in value):
        return "".join(f"\n  {_translate(item, lang)}" for item in value)
    return value


@cache
def load_messages() -> dict[str, dict[str, str]]:
    """Read ``messages/*.json``: by code, the text in each language."""
    # Nearly every command needs them: JSON takes a millisecond, YAML and its parser took twenty.
    messages: dict[str, dict[str, str]] = {}
    for file in resources.files("soutu").joinpath("messages").iterdir():
        messages.update(json.loads(file.read_text(encoding="utf-8")))
    return messages
