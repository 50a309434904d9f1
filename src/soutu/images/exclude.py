"""Decide what a person has excluded from a folder, by patterns in the form of ``.gitignore``.

For each file and folder the last pattern that matches decides: of those given for one run, else
of the ``.soutuignore`` files from the deepest folder up, else of the settings. ``!`` takes an
exclusion back, but not below a folder that is excluded.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec, RegexPattern

from soutu.errors import BadInput
from soutu.fs import read_regular_file
from soutu.images.scan import IGNORE_FILE, is_skipped, nfc
from soutu.text import is_text

MAX_BYTES = 1_000_000  # of an ignore file


class Patterns:
    """The patterns of one place; ``unused`` are those that have excluded nothing."""

    def __init__(self) -> None:
        self._rules: list[tuple[str, re.Pattern[str], bool]] = []
        self.unused: set[str] = set()

    def add(self, pattern: str) -> None:
        """Add a pattern; ValueError where it cannot match anything."""
        try:
            [rule] = GitIgnoreSpec.from_lines([nfc(pattern)]).patterns
        except (ValueError, re.error) as error:
            raise ValueError(pattern) from error
        if not isinstance(rule, RegexPattern) or rule.regex is None:
            raise ValueError(pattern)
        self._rules.append((pattern, rule.regex, bool(rule.include)))
        if rule.include:
            self.unused.add(pattern)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._rules)

    def verdict(self, path: str) -> bool | None:
        """Whether the last pattern that matches excludes ``path``; None where none does.

        A folder ends with a slash. Only matches of the path itself count, as those of the folders
        above it have been judged before.
        """
        for pattern, regex, excludes in reversed(self._rules):
            if _matches(regex, path):
                if excludes:
                    self.unused.discard(pattern)
                return excludes
        return None


def _matches(regex: re.Pattern[str], path: str) -> bool:
    # The library lets a pattern match all that lies below a folder of that name: behind the slash
    # of a group, or, where there is no group, because the pattern says so itself (``a/**``).
    if not regex.groups:
        return regex.search(path.removesuffix("/")) is not None
    matches = regex.finditer(path)
    return any(m.lastindex is None or m.end(m.lastindex) == len(path) for m in matches)


class Excludes:
    """What is excluded below one folder.

    ``notes`` says what of the ignore files could not be used; they are read by each ``walk``.

    Parameters
    ----------
    settings, flags
        Patterns of the settings and of one run, relative to the folder; a text is one pattern.
    root
        The folder, in case that a pattern begins with its path.

    Raises
    ------
    BadInput
        For a pattern that is none.
    """

    def __init__(
        self, settings: Sequence[str] = (), flags: Sequence[str] = (), root: Path | None = None
    ) -> None:
        flags = (flags,) if isinstance(flags, str) else tuple(flags)
        self._root = root
        self._settings, self._flags = self._compile(settings), self._compile(flags)
        self._files: dict[str, Patterns] = {}  # by the folder's path with a slash; "" for the root
        self.notes: list[BadInput] = []
        self.flags = flags

    def _compile(self, lines: Sequence[str]) -> Patterns:
        patterns = Patterns()
        for line in lines:
            try:
                patterns.add(self._anchored(line))
            except ValueError:
                raise BadInput("exclude-pattern", pattern=line) from None
        return patterns

    def _anchored(self, pattern: str) -> str:
        """Return a pattern that is no line of a file in the form of one that is."""
        if self._root and pattern.startswith(f"{os.fspath(self._root)}{os.sep}"):
            return pattern[len(os.fspath(self._root)) :].replace(os.sep, "/")
        return re.sub(r"^\./", "/", re.sub("^#", r"\\#", pattern))

    @property
    def unused(self) -> list[str]:
        """Patterns of the run that have excluded nothing."""
        return sorted(self._flags.unused)

    def clear(self) -> None:
        """Forget all ignore files."""
        self._files.clear()
        self.notes.clear()

    def read_file(self, file: Path, prefix: str) -> None:
        """Read the ignore file of the folder ``prefix`` ("" or ``a/b/``); OSError."""
        self.add_file(read_regular_file(file, MAX_BYTES), prefix)

    def add_file(self, data: bytes, prefix: str) -> None:
        """Use the patterns in the ignore file ``data`` of the folder ``prefix``."""
        patterns = self._files[prefix] = Patterns()
        name = prefix + IGNORE_FILE
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = data.decode("utf-16", "replace")
        else:
            text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
            # Names on the disk may be in the same encoding, and match byte for byte.
            if not is_text(text):
                self.notes.append(BadInput("ignore-encoding", file=name))
        for number, line in enumerate(re.split(r"\r?\n", text), 1):
            pattern = _trim(line.removesuffix("\r"))
            if pattern.strip() and not pattern.startswith("#"):
                try:
                    patterns.add(pattern)
                except ValueError:
                    where = {"file": name, "line": number}
                    self.notes.append(BadInput("ignore-pattern", pattern=pattern, **where))

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """Whether ``path`` is excluded, the folders above it aside; None where nothing says so."""
        if not (self._flags or self._files or self._settings):
            return None
        for prefix, patterns in self._places(path):
            relative = nfc(path[len(prefix) :]).replace("\n", " ") + "/" * is_folder
            verdict = patterns.verdict(relative)
            if verdict is not None:
                return verdict
        return None

    def covers(self, path: str) -> bool:
        """Whether ``walk`` passes over the file ``path``, or over a folder above it."""
        ends = [index for index, letter in enumerate(path) if letter == "/"]
        for folder in (path[:end] for end in ends):
            verdict = self.verdict(folder, is_folder=True)
            if verdict or (verdict is None and is_skipped(folder)):
                return True
        return bool(self.verdict(path, is_folder=False))

    def _places(self, path: str) -> Iterator[tuple[str, Patterns]]:
        yield "", self._flags
        if self._files:
            end = path.rfind("/")
            while end >= 0:
                if patterns := self._files.get(path[: end + 1]):
                    yield path[: end + 1], patterns
                end = path.rfind("/", 0, end)
            if patterns := self._files.get(""):
                yield "", patterns
        yield "", self._settings


def _trim(line: str) -> str:
    """Remove spaces from the end, but for one that a backslash protects."""
    match = re.fullmatch(r"((?:\\.|[^\\])*?) *", line)
    return match[1] if match else line
