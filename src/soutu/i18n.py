"""Which language to speak, and how to say a message in it."""

from __future__ import annotations

import os

from soutu.errors import SoutuError, wording

_chosen: list[str] = []


def choose_language(lang: str) -> None:
    """Overrule the locale for this process."""
    _chosen[:] = [lang]


def prefer_language(lang: str | None) -> None:
    """The language of the settings; ``--lang`` overrules it."""
    if lang and not _chosen:
        choose_language(lang)


def current_language() -> str:
    """ "zh" or "en": ``--lang``, else SOUTU_LANG, else the locale."""
    if _chosen:
        return _chosen[0]
    names = ("SOUTU_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    spoken = next((os.environ[name] for name in names if os.environ.get(name)), "en")
    return "zh" if spoken.lower().startswith("zh") else "en"


def tr(code: str, **fields: object) -> str:
    """The sentence ``code`` in the person's language; errors among the fields too."""
    lang = current_language()
    spoken = {
        name: value.message(lang) if isinstance(value, SoutuError) else value
        for name, value in fields.items()
    }
    return wording(code, lang, **spoken)
