"""Everything Soutu can complain about.

    SoutuError
    ├── BadInput            exit 2   the user's input is at fault
    │   ├── BadImage                 a file is no picture we can read
    │   ├── BadCaptions              a captions file, or one line of it
    │   ├── BadQuery
    │   └── BadConfig
    ├── Missing             exit 3   something needed is not there
    │   ├── MissingModel
    │   ├── MissingIndex
    │   └── MissingExtra
    ├── ModelMismatch       exit 4   this index holds no vectors of that model
    ├── IndexCorrupt        exit 5   damaged, locked, or on storage we cannot trust
    └── RemoteUnavailable   exit 6

An error carries a code and fields; the wording lives in ``messages/*.json`` in
English and Chinese, so that the library raises facts and the CLI picks a
language. ``str(error)`` is English.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import ClassVar


@cache
def _wordings() -> dict[str, dict[str, str]]:
    # Read by nearly every command: JSON takes a millisecond, YAML and its parser took twenty.
    merged: dict[str, dict[str, str]] = {}
    for part in resources.files("soutu").joinpath("messages").iterdir():
        merged.update(json.loads(part.read_text(encoding="utf-8")))
    return merged


def wording(code: str, lang: str = "en", **fields: object) -> str:
    """The sentence for ``code`` in ``lang`` ("en" or "zh"), its fields filled in."""
    return _wordings()[code][lang].format_map(fields)


class SoutuError(Exception):
    """Base of all errors. ``code`` names the wording, ``fields`` fill it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, /, **fields: object) -> None:
        super().__init__(code, fields)
        self.code = code
        self.fields = fields

    def message(self, lang: str = "en") -> str:
        return wording(self.code, lang, **self.fields)

    def __str__(self) -> str:
        return self.message()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.fields)


def _rebuild(kind: type[SoutuError], code: str, fields: dict[str, object]) -> SoutuError:
    return kind(code, **fields)


class BadInput(SoutuError):
    exit_code = 2


class BadImage(BadInput):
    pass


class BadCaptions(BadInput):
    pass


class BadQuery(BadInput):
    pass


class BadConfig(BadInput):
    pass


class Missing(SoutuError):
    exit_code = 3


class MissingModel(Missing):
    pass


class MissingIndex(Missing):
    pass


class MissingExtra(Missing):
    pass


class ModelMismatch(SoutuError):
    exit_code = 4


class IndexCorrupt(SoutuError):
    exit_code = 5


class RemoteUnavailable(SoutuError):
    exit_code = 6
