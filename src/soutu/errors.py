"""Everything Soutu can complain about.

    SoutuError
    ├── BadInput            exit 2   the user's input is at fault
    │   ├── BadImage                 a file that cannot be read as an image
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

An error carries a code and fields. Its text is in ``messages/*.json`` in English and Chinese, so
the library raises facts and the command line chooses a language. ``str(error)`` is English.
"""

from __future__ import annotations

from typing import ClassVar

from soutu.i18n import format_message


class SoutuError(Exception):
    """Base of all errors.

    Parameters
    ----------
    code : str
        Names the message.
    **fields : object
        Fill the placeholders of the message.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, /, **fields: object) -> None:
        super().__init__(code, fields)
        self.code = code
        self.fields = fields

    def message(self, lang: str = "en") -> str:
        """Return the message in ``lang`` ("en" or "zh")."""
        return format_message(self.code, lang, **self.fields)

    def __str__(self) -> str:
        """Return the English message."""
        return self.message()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle code and fields."""
        return _rebuild, (type(self), self.code, self.fields)


def _rebuild(cls: type[SoutuError], code: str, fields: dict[str, object]) -> SoutuError:
    return cls(code, **fields)


class BadInput(SoutuError):
    """The user's input is at fault."""

    exit_code = 2


class BadImage(BadInput):
    """A file cannot be read as an image."""


class BadCaptions(BadInput):
    """A captions file, or one line of it, cannot be read."""


class BadQuery(BadInput):
    """A query, a filter or a parameter of a search is not valid."""


class BadConfig(BadInput):
    """A setting is unknown or has a value that is not valid."""


class Missing(SoutuError):
    """Something needed is not there."""

    exit_code = 3


class MissingModel(Missing):
    """No such model is installed or known."""


class MissingIndex(Missing):
    """The folder has no index."""


class MissingExtra(Missing):
    """An optional dependency is not installed."""


class ModelMismatch(SoutuError):
    """The index holds no vectors of the model."""

    exit_code = 4


class IndexCorrupt(SoutuError):
    """The index is damaged, locked, or on storage that cannot be trusted."""

    exit_code = 5


class RemoteUnavailable(SoutuError):
    """A server does not answer, or refuses."""

    exit_code = 6
